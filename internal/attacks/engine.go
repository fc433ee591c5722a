package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	aegrail "github.com/arpitcoder/aegrail-engine/internal/proxy"
	"github.com/arpitcoder/aegrail-engine/internal/quota"
	aegrailup "github.com/arpitcoder/aegrail-engine/internal/upstream"
)

const (
	engineName = "aegrail-engine"
	policyName = "policy.yaml"
	auditName  = "audit.jsonl"
)

// policyText is the policy of the run, as the engine reads it.
const policyText = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: attacks}
spec:
  rules:
    - {name: chat, hosts: ["*.api.test", "*.inside.test", "*.mixed.test", "*.rebind.test"], ports: [%[1]d], methods: [POST], paths: [/v1/chat/completions], addresses: [127.0.0.1/32]}
    - {name: files, hosts: ["*.api.test", "*.inside.test", "*.mixed.test", "*.rebind.test"], ports: [%[1]d], methods: [GET], paths: ["/files/**"], addresses: [127.0.0.1/32]}
    - name: judged
      hosts: ["*.judged.test"]
      ports: [%[1]d]
      methods: [POST]
      paths: [/v1/chat/completions]
      addresses: [127.0.0.1/32]
      when: 'request.body.json.model == "good"'
      limits: {requestBytes: 4Ki}
    - {name: socket, hosts: ["*.socket.test"], ports: [%[1]d], methods: [GET], paths: [/socket], addresses: [127.0.0.1/32], websocket: true}
    - {name: split-files, hosts: ["*.split.test"], ports: [%[1]d], methods: [GET], paths: ["/files/**"], addresses: [127.0.0.2/32]}
    - {name: split-chat, hosts: ["*.split.test"], ports: [%[1]d], methods: [POST], paths: [/v1/chat/completions]}
    - {name: pinned, hosts: ["*.pinned.test"], ports: [%[1]d], tls: passthrough, addresses: [127.0.0.1/32]}
`

// enginePeer is the engine of this tree, put together as its program does but
// for the DNS, which is the run's: without one, no row about names and
// addresses could be made.
func enginePeer(version string) proxy {
	return proxy{name: engineName, version: version, how: "the policy in engine.go, one rule a line",
		command: func(l *lab, dir, addr string) (*exec.Cmd, error) {
			if err := os.WriteFile(filepath.Join(dir, policyName), append(fmt.Appendf(nil, policyText, l.up.port), l.morePolicy...), 0o600); err != nil {
				return nil, err
			}
			return l.role(engineName, dir, addr), nil
		}}
}

// serveEngine is what this program is with -role aegrail-engine.
func serveEngine(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp4", o.listen)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	logging := audit.Config{File: filepath.Join(o.dir, auditName), Identity: "attacks", Logger: logger}
	if !o.shipped {
		logging.Refusals = audit.RefusalLimits{First: 1_000_000, Rate: 1_000_000, Burst: 1_000_000} // each a record of its own
	}
	log, err := audit.Open(logging)
	if err != nil {
		return err
	}
	cfg, client, err := assemble(o, log, logger)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	server, err := aegrail.New(cfg)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	closeStats, err := serveStats(filepath.Join(o.dir, statsName))
	if err != nil {
		return errors.Join(err, log.Close())
	}
	defer closeStats()
	if err := server.Serve(ctx, ln); err != nil {
		return errors.Join(err, log.Close())
	}
	draining, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = server.Shutdown(draining) // what hangs is the attack's
	client.Close()
	return log.Close()
}

// assemble makes the engine's parts from the run's files.
func assemble(o options, log *audit.Log, logger *slog.Logger) (aegrail.Config, *aegrailup.Client, error) {
	var cfg aegrail.Config
	text, err := os.ReadFile(filepath.Join(o.dir, policyName))
	if err != nil {
		return cfg, nil, err
	}
	docs, err := v1alpha1.Parse(policyName, text)
	if err != nil {
		return cfg, nil, err
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true})
	if err != nil {
		return cfg, nil, err
	}
	ca, err := certs.LoadDir(filepath.Join(o.keys, caDir), time.Now())
	if err != nil {
		return cfg, nil, err
	}
	minting := certs.StoreOptions{Now: time.Now}
	if !o.shipped {
		minting.MintRate, minting.MintBurst = 1e6, 1e6 // every case has a name of its own
	}
	leaves, err := certs.NewStore(ca, minting)
	if err != nil {
		return cfg, nil, err
	}
	roots, err := rootsOf(o.keys)
	if err != nil {
		return cfg, nil, err
	}
	dns, err := newLookups(o.dir)
	if err != nil {
		return cfg, nil, err
	}
	client, err := aegrailup.New(aegrailup.Config{Resolver: dns, Roots: roots, Own: []netip.AddrPort{netip.MustParseAddrPort(o.listen)}, Logger: logger})
	if err != nil {
		return cfg, nil, err
	}
	counters, err := metrics.New(metrics.Config{Version: runtime.Version(), Audit: log.Stats, Leaves: func() metrics.LeafStats {
		s := leaves.Stats()
		return metrics.LeafStats{Hits: s.Hits, Misses: s.Misses, Mints: s.Mints, Size: s.Size}
	}})
	if err != nil {
		return cfg, nil, err
	}
	quotas, err := quota.New(quota.Config{Now: time.Now})
	cfg = aegrail.Config{
		Policy: new(aegrail.PolicySource), Log: log, Leaves: leaves, Upstream: client, Quota: quotas,
		Identify: byAddress, Metrics: counters, Logger: logger,
	}
	if !o.shipped {
		// Every attacker here has one address, and is one principal.
		cfg.Limits.ConnectionsPerClient, cfg.Limits.ConnectionsPerPrincipal = 16384, 16384
		cfg.Limits.Connections, cfg.Limits.ConnectionsUnknown = 32768, 32768
	}
	cfg.Policy.Store(set)
	return cfg, client, err
}

// byAddress tells the well-behaved client of the floods from the attackers: a
// flood is to cost its own principal alone.
func byAddress(f intake.Flow) (identity.Principal, error) {
	if f.Client.Addr().String() == honestAddr {
		return identity.Principal{AgentIdentity: "honest"}, nil
	}
	return identity.Principal{AgentIdentity: "attacks"}, nil
}

func rootsOf(dir string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", rootFile)
	}
	return roots, nil
}
