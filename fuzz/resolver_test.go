package fuzz

import (
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/resolver"
)

// onePolicy is a policy set that does not change.
type onePolicy struct{ set *policy.Set }

func (p onePolicy) Load() *policy.Set { return p.set }

// FuzzDNSQuery: whatever a query is, the answer is short, has the query's
// number, and holds an address only for a name that policy could allow, which
// is that name's.
func FuzzDNSQuery(f *testing.F) {
	for _, name := range []string{"api.allowed.test.", "API.allowed.TEST.", "x.deep.test.", "denied.test.", ".", "a\\.b.deep.test.", strings.Repeat("a.", 126) + "a."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeANY} {
			m := new(dns.Msg)
			m.SetQuestion(name, qtype)
			if qtype == dns.TypeAAAA {
				m.SetEdns0(1232, true)
			}
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(b[:len(b)-3])
		}
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01")) // a name that points at itself
	docs, err := v1alpha1.Parse("p.yaml", []byte("apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec: {allowlist: [api.allowed.test, '*.deep.test']}\n"))
	if err != nil {
		f.Fatal(err)
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true})
	if err != nil {
		f.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	log, err := audit.Open(audit.Config{File: filepath.Join(f.TempDir(), "audit.log"), Identity: "fuzz", Logger: logger})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = log.Close() })
	agent := identity.Principal{AgentIdentity: "fuzz"}
	r, err := resolver.New(resolver.Config{Policy: onePolicy{set}, Agent: func() identity.Principal { return agent }, Log: log, Logger: logger})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		answer := r.Answer(query, netip.AddrPort{})
		if answer == nil {
			if len(query) >= 12 && query[2]&0x80 == 0 {
				t.Fatalf("no answer to %x", query)
			}
			return
		}
		if len(answer) > 512+64 || answer[0] != query[0] || answer[1] != query[1] || answer[2]&0x80 == 0 {
			t.Fatalf("%x was answered %x", query, answer)
		}
		var m dns.Msg
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("%x was answered %x: %v", query, answer, err)
		}
		for _, rr := range m.Answer {
			host, _, err := canon.ParseHost(m.Question[0].Name)
			if err != nil || !set.For(agent).Named(host).Possible {
				t.Fatalf("%q, which no rule could allow, was answered %v", m.Question[0].Name, rr)
			}
			switch rr := rr.(type) {
			case *dns.A:
				if rr.A.String() != resolver.Address4(host).String() {
					t.Fatalf("%s is %v", host, rr)
				}
			case *dns.AAAA:
				if rr.AAAA.String() != resolver.Address6(host).String() {
					t.Fatalf("%s is %v", host, rr)
				}
			default:
				t.Fatalf("answered %v", rr)
			}
		}
	})
}
