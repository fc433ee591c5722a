//go:build !race

package proxy

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const hotPolicy = `
apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: hot}
spec:
  rules:
    - name: openai-chat
      hosts: [api.openai.com]
      methods: [POST]
      paths: [/v1/chat/completions]
`

const hotHead = "POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\nUser-Agent: OpenAI/Python 1.50.0\r\n" +
	"Accept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-test\r\nContent-Length: 2\r\n\r\n{}"

// hotPath is what a keep-alive exchange does between its two system calls:
// read, decide, record, record the end.
type hotPath struct {
	src    *bytes.Reader
	reader *http1.Reader
	head   http1.RequestHead
	x      *exchange
	log    *audit.Log
	in     canon.Inbound
	id     uint64
}

func newHotPath(tb testing.TB) *hotPath {
	tb.Helper()
	docs, err := v1alpha1.Parse("hot.yaml", []byte(hotPolicy))
	if err != nil {
		tb.Fatal(err)
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true})
	if err != nil {
		tb.Fatal(err)
	}
	log, err := audit.Open(audit.Config{File: filepath.Join(tb.TempDir(), "audit.log"), Identity: "hot"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = log.Close() })
	s := &Server{cfg: Config{Policy: new(PolicySource), Log: log}, now: time.Now}
	s.cfg.Policy.Store(set)
	c := &conn{s: s, scheme: canon.HTTPS, authority: canon.Authority{Host: "api.openai.com", Port: 443}}
	c.principal = identity.Principal{AgentIdentity: "hot"}
	c.agent = audit.Agent{Identity: "hot"}
	p := &hotPath{src: bytes.NewReader(nil), log: log, x: newExchange(s)}
	p.reader = http1.NewReader(p.src)
	p.x.c = c
	p.in = canon.Inbound{Kind: intake.Connect, Scheme: canon.HTTPS, Authority: c.authority}
	return p
}

func (p *hotPath) run(tb testing.TB, wire []byte) {
	p.src.Reset(wire)
	if err := p.reader.Wait(); err != nil {
		tb.Fatal(err)
	}
	if err := p.reader.ReadRequest(&p.head); err != nil {
		tb.Fatal(err)
	}
	x := p.x
	x.reset(x.c, nil, x.s.now())
	p.id++
	if err := x.req.FromHTTP1(p.id, p.in, &p.head); err != nil {
		tb.Fatal(err)
	}
	x.view = x.c.policy()
	if x.decision = x.view.Decide(&x.req); x.decision.Verdict != policy.Allow {
		tb.Fatal(x.decision.Reason)
	}
	if permit := x.decision.Permit(&x.req); !permit.Covers(&x.req) {
		tb.Fatal("no permit")
	}
	if _, err := x.recordDecision(1); err != nil {
		tb.Fatal(err)
	}
	body := p.reader.Body(p.head.Framing, p.head.Length)
	for {
		piece, err := body.Next()
		if err != nil {
			break
		}
		x.reqHash.Write(piece)
	}
	x.fillEnd()
	x.rec.Event = audit.EgressAllowed
	if err := p.log.Complete(&x.rec); err != nil {
		tb.Fatal(err)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	p := newHotPath(t)
	wire := []byte(hotHead)
	p.run(t, wire)
	if n := testing.AllocsPerRun(200, func() { p.run(t, wire) }); n != 0 {
		t.Errorf("%v allocations from the head to the record of the end, want none", n)
	}
}

func TestLookingAtFramesAllocatesNothing(t *testing.T) {
	frames := inboundFrames(t)
	w := watching(new(tally), &Server{now: time.Now, limits: Limits{}.withDefaults()})
	if n := testing.AllocsPerRun(200, func() { _ = w.pay(w.in.see(frames)) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// BenchmarkLookAtFrames is the head and the body of a DATA frame, read as the
// server reads them.
func BenchmarkLookAtFrames(b *testing.B) {
	head, body := []byte{0, 0x40, 0, frameData, 0, 0, 0, 0, 1}, make([]byte, 16<<10)
	var f h2inbound
	b.ReportAllocs()
	for b.Loop() {
		if f.see(head)+f.see(body) != 0 {
			b.Fatal("DATA is counted")
		}
	}
}

func BenchmarkHotPath(b *testing.B) {
	p := newHotPath(b)
	wire := []byte(hotHead)
	b.ReportAllocs()
	for b.Loop() {
		p.run(b, wire)
	}
}
