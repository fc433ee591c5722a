package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

func auditCommand(w *world) *cobra.Command {
	return group(&cobra.Command{Use: "audit", Short: "Verify, prove, show, follow and report on an audit log"},
		auditVerifyCommand(w), auditProveCommand(w), auditShowCommand(w), auditTailCommand(w), auditReportCommand(w), auditKeyCommand(w))
}

// filterFlags defines the flags that choose records by what is in them.
func filterFlags(f *pflag.FlagSet, filter *audit.Filter) {
	f.StringVar(&filter.Host, "host", "", "only this `HOST`, or *.suffix")
	f.StringVar(&filter.Verdict, "verdict", "", "only `VERDICT`: allowed, denied or error")
	f.StringVar(&filter.Rule, "rule", "", "only decisions by the rule `NAME`")
	f.StringVar(&filter.Reason, "reason", "", "only `REASON`")
	f.StringVar(&filter.Agent, "agent", "", "only the agent `NAME`, namespace, or namespace/serviceaccount")
}

func auditShowCommand(w *world) *cobra.Command {
	var raw, asJSON bool
	var filter audit.Filter
	var since, until, seq string
	c := &cobra.Command{
		Use:   "show FILE…",
		Short: "Print the records of a log",
		Long:  "Print the records of a log, a line each; - is standard input. This does not verify them.",
		Args:  takes(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			o := audit.ShowOptions{Filter: filter}
			switch {
			case raw && asJSON:
				return usagef(c, "--raw and --json: give one of them")
			case raw:
				o.Format = audit.Raw
			case asJSON:
				o.Format = audit.JSON
			}
			err := errors.Join(parseWhen("--since", since, &o.Filter.Since), parseWhen("--until", until, &o.Filter.Until),
				parseSeq(seq, &o.Filter))
			if err == nil {
				err = o.Filter.Check()
			}
			if err != nil {
				return badInput(err)
			}
			for _, name := range args {
				if err := showFile(w, name, o); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&raw, "raw", false, "the lines as they stand in the file")
	f.BoolVar(&asJSON, "json", false, "one flat JSON object a record")
	filterFlags(f, &filter)
	f.StringVar(&since, "since", "", "only from `TIME` on: RFC 3339, or how long ago (90m, 24h)")
	f.StringVar(&until, "until", "", "only before `TIME`, likewise")
	f.StringVar(&seq, "seq", "", "only record `N`, or those from N to M: 42 or 40-60")
	return c
}

func showFile(w *world, name string, o audit.ShowOptions) error {
	if name == "-" {
		return audit.Show(w.stdout, os.Stdin, o)
	}
	f, err := audit.OpenFile(name)
	if err != nil {
		return badInput(fmt.Errorf("reading the log: %w", err))
	}
	defer f.Close()
	return audit.Show(w.stdout, f, o)
}

// parseWhen reads a time, or a duration before now, into at. "" leaves it alone.
func parseWhen(flag, s string, at *time.Time) error {
	if s == "" {
		return nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		*at = time.Now().Add(-d)
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return fmt.Errorf("%s %q: want a time like 2026-05-15T09:42:00Z, or how long ago, like 90m", flag, s)
	}
	*at = t
	return nil
}

// parseSeq reads N or N-M into f. "" leaves it alone.
func parseSeq(s string, f *audit.Filter) error {
	if s == "" {
		return nil
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	var errs [2]error
	f.FromSeq, errs[0] = strconv.ParseUint(from, 10, 64)
	f.ToSeq, errs[1] = strconv.ParseUint(to, 10, 64)
	if errors.Join(errs[:]...) != nil || f.FromSeq == 0 || f.ToSeq == 0 {
		return fmt.Errorf("--seq %q: want the number of a record, from 1, or two of them, like 40-60", s)
	}
	return nil
}
