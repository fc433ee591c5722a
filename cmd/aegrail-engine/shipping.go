package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/ship"
)

// shipDrain is how long the end of the log may take to get out once the log is
// closed. With drain it is inside the 30 seconds that kubelet gives a pod by
// default.
const shipDrain = 5 * time.Second

// parseShipping reads where the log is shipped to. No error repeats an address,
// which may hold a password.
func (s *settings) parseShipping() (err error) {
	if s.anchors, err = targets("--audit-anchor", s.auditAnchors, ship.ParseAnchor); err != nil {
		return err
	}
	if s.sinks, err = targets("--audit-sink", s.auditSinks, ship.ParseSink); err != nil {
		return err
	}
	switch {
	case len(s.sinks) > 0 && s.auditFile == "":
		return fmt.Errorf("--audit-sink sends what is in the audit file: give --audit-file")
	case s.auditKeep < 0:
		return fmt.Errorf("--audit-keep %d: want 0 (all) or more", s.auditKeep)
	case s.auditKeep > 0 && (len(s.anchors) == 0 || len(s.sinks) == 0):
		return fmt.Errorf("--audit-keep %d removes what is anchored and shipped: give --audit-anchor and --audit-sink, or keep all with 0", s.auditKeep)
	}
	return nil
}

// targets reads the values of a flag, each of which may be several with commas
// between: a variable has one value.
func targets(flag string, values []string, parse func(string) (ship.Target, error)) ([]ship.Target, error) {
	var out []ship.Target
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			t, err := parse(strings.TrimSpace(one))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", flag, err)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

func newShipper(s settings, roots *x509.CertPool, logger *slog.Logger) (*ship.Shipper, error) {
	return ship.New(ship.Config{
		Log: s.auditFile, Anchors: s.anchors, Sinks: s.sinks, Roots: roots, Dial: s.dial(),
		Identity: s.identity, Version: readBuild().version, Logger: logger,
	})
}

// names lists targets for the engine's own log, without what may be secret.
func names(all []ship.Target) []string {
	out := make([]string, len(all))
	for i := range all {
		out[i] = all[i].String()
	}
	return out
}

// shipStats are the questions that a scrape asks s.
func shipStats(s *ship.Shipper) (anchors, sinks func() []metrics.ShipStats) {
	if s == nil {
		return nil, nil
	}
	translate := func(ask func() []ship.Stats) func() []metrics.ShipStats {
		return func() []metrics.ShipStats {
			var out []metrics.ShipStats
			for _, st := range ask() {
				out = append(out, metrics.ShipStats{Kind: string(st.Kind), Acknowledged: st.Acknowledged, Lag: st.Lag, Failures: st.Failures})
			}
			return out
		}
	}
	return translate(s.Anchors), translate(s.Sinks)
}

// shipRest brings the end of a closed log out. That it could not is no failure
// of ours: the records wait in the file for the next start.
func (d *daemon) shipRest() {
	ctx, done := context.WithTimeout(context.Background(), shipDrain)
	defer done()
	if err := d.shipper.Close(ctx); err != nil {
		d.logger.Warn("not all of the audit log got out", "err", oneLine(err.Error()))
	}
}
