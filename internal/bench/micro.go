package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// micro is a figure that is taken in this process.
type micro struct {
	name, target  string
	ns            float64
	allocs, bytes int64
}

// microRuns is how often each is measured; the least counts, since what
// disturbs only adds.
const microRuns = 3

// manyHosts are so many names that none of a run is in a cache of leaves.
const manyHosts = 1 << 30

func measureMicros(dir string, benchtime time.Duration) ([]micro, error) {
	testing.Init()
	if err := flag.Set("test.benchtime", benchtime.String()); err != nil {
		return nil, err
	}
	var out []micro
	var errs []error
	add := func(name, target string, f func(b *testing.B)) {
		best := micro{name: name, target: target, ns: math.Inf(1)}
		for range microRuns {
			r := testing.Benchmark(f)
			if r.N == 0 {
				errs = append(errs, fmt.Errorf("%s: failed", name))
				return
			}
			if ns := float64(r.T.Nanoseconds()) / float64(r.N); ns < best.ns {
				best.ns, best.allocs, best.bytes = ns, r.AllocsPerOp(), r.AllocedBytesPerOp()
			}
		}
		out = append(out, best)
	}
	for _, n := range []int{10, 10_000} {
		target := "1000"
		if n > 10 {
			target = "1.2 times the above"
		}
		add(fmt.Sprintf("decision among %d rules", n), target, func(b *testing.B) { benchDecide(b, n) })
	}
	add("leaf minted", "400000", func(b *testing.B) { benchLeaf(b, manyHosts) })
	add("leaf from the cache", "1000", func(b *testing.B) { benchLeaf(b, 1) })
	add(recordName, "2000, 0 allocations", benchRecord)
	add("parse, canon, decide", "0 allocations", func(b *testing.B) { benchPath(b, "", audit.Written) })
	add("parse, canon, decide, two records (written)", "0 allocations", func(b *testing.B) {
		benchPath(b, filepath.Join(dir, "written.jsonl"), audit.Written)
	})
	add("parse, canon, decide, two records (strict)", "", func(b *testing.B) {
		benchPath(b, filepath.Join(dir, "strict.jsonl"), audit.Strict)
	})
	return out, errors.Join(errs...)
}

// nobody of importance: whose requests are judged.
func principal() identity.Principal { return identity.Principal{AgentIdentity: "bench"} }

// compile makes a view of n rules, each with a host and a path of its own.
func compile(n int) (*policy.View, error) {
	doc := v1alpha1.AgentPolicy{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "bench"}}
	for i := range n {
		doc.Spec.Rules = append(doc.Spec.Rules, v1alpha1.Rule{
			Name:    fmt.Sprintf("rule%06d", i),
			Hosts:   []string{fmt.Sprintf("service%06d.tools.example.com", i)},
			Methods: []string{"GET", "POST"},
			Paths:   []string{fmt.Sprintf("/v1/tenants/%06d/items", i)},
		})
	}
	set, _, err := policy.Compile([]v1alpha1.AgentPolicy{doc}, policy.Options{AnyAgent: true})
	if err != nil {
		return nil, err
	}
	return set.For(principal()), nil
}

// benchDecide goes through the rules in random order. The request's own memory
// is the same each time, as after a parse, so that what misses the cache is the
// policy's.
func benchDecide(b *testing.B, n int) {
	view, err := compile(n)
	if err != nil {
		b.Fatal(err)
	}
	name, path := []byte("service000000.tools.example.com"), []byte("/v1/tenants/000000/items")
	var req canon.Request
	req.Scheme, req.Method, req.Path = canon.HTTPS, "POST", path
	req.Authority = canon.Authority{Host: unsafe.String(&name[0], len(name)), Port: 443}
	random := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		var digits [8]byte
		text := strconv.AppendInt(digits[:0], int64(1_000_000+random.IntN(n)), 10)[1:]
		copy(name[len("service"):], text)
		copy(path[len("/v1/tenants/"):], text)
		if d := view.Decide(&req); d.Verdict != policy.Allow {
			b.Fatalf("%s%s: %s", name, path, d.Reason)
		}
	}
}

// benchLeaf asks for the leaves of n names in turn.
func benchLeaf(b *testing.B, n int) {
	ca, err := certs.NewEphemeral(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	store, err := certs.NewStore(ca, certs.StoreOptions{MintRate: 1e9, MintBurst: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		name := "api.example.com"
		if n > 1 {
			i = (i + 1) % n
			name = "service" + strconv.Itoa(i) + ".example.com"
		}
		if _, err := store.Leaf(context.Background(), name); err != nil {
			b.Fatal(err)
		}
	}
}

// repeated is a client that sends one request over and over, each in one piece.
type repeated struct {
	request []byte
	at      int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.request[r.at:])
	r.at = (r.at + n) % len(r.request)
	return n, nil
}

// benchPath is a request's way through the engine without the network: parse,
// canon, decide and permit, read the body, and with a log the records of its
// decision and completion.
func benchPath(b *testing.B, log string, d audit.Durability) {
	view, err := compile(10)
	if err != nil {
		b.Fatal(err)
	}
	var records *audit.Log
	if log != "" {
		if records, err = audit.Open(audit.Config{File: log, Durability: d, Identity: "bench"}); err != nil {
			b.Fatal(err)
		}
		defer records.Close()
	}
	w := newWay(view, records)
	if err := w.once(); err != nil { // what the first request makes is for all
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.once(); err != nil {
			b.Fatal(err)
		}
	}
}

// way holds what a connection reuses from request to request.
type way struct {
	in     canon.Inbound
	reader *http1.Reader
	head   http1.RequestHead
	req    canon.Request
	rec    audit.Record
	agent  audit.Agent
	view   *policy.View
	log    *audit.Log
	id     uint64
	digest [64]byte
}

func newWay(view *policy.View, log *audit.Log) *way {
	const name = "service000007.tools.example.com"
	head := "POST /v1/tenants/000007/items HTTP/1.1\r\nHost: " + name + "\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n" +
		"Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\nContent-Type: application/json\r\n" + contentLength(small) + "\r\n\r\n"
	w := &way{
		in: canon.Inbound{
			Kind: intake.Connect, Scheme: canon.HTTPS, Authority: canon.Authority{Host: name, Port: 443},
		},
		reader: http1.NewReader(&repeated{request: append([]byte(head), filler(small)...)}),
		agent:  audit.Agent{Identity: "bench"}, view: view, log: log,
	}
	for i := range w.digest {
		w.digest[i] = "0123456789abcdef"[i%16]
	}
	return w
}

func (w *way) once() error {
	if err := w.reader.Wait(); err != nil {
		return err
	}
	if err := w.reader.ReadRequest(&w.head); err != nil {
		return err
	}
	w.id++
	if err := w.req.FromHTTP1(w.id, w.in, &w.head); err != nil {
		return err
	}
	d := w.view.Decide(&w.req)
	if p := d.Permit(&w.req); d.Verdict != policy.Allow || !p.Covers(&w.req) {
		return fmt.Errorf("denied: %s", d.Reason)
	}
	if w.log != nil {
		if err := w.decide(&d); err != nil {
			return err
		}
	}
	body := w.reader.Body(w.head.Framing, w.head.Length)
	for {
		if _, err := body.Next(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if w.log == nil {
		return nil
	}
	w.rec.Phase, w.rec.StatusCode = audit.PhaseComplete, 200
	w.rec.RequestBytes, w.rec.ResponseBytes = small, small
	w.rec.RequestSHA256, w.rec.ResponseSHA256 = w.digest[:], w.digest[:]
	w.rec.Duration = 1234 * time.Microsecond
	return w.log.Complete(&w.rec)
}

func (w *way) decide(d *policy.Decision) error {
	w.rec = audit.Record{
		Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: w.id, Agent: &w.agent,
		Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 40000), Kind: "connect",
		Scheme: w.req.Scheme.String(), Host: w.req.Host, Port: w.req.Port, Method: w.req.Method, Path: w.req.Path,
		Rule: d.Rule, Policy: d.Policy, PolicyRevision: w.view.Revision(), Attempt: 1,
		TLSVersion: "TLS 1.3", ALPN: "http/1.1", Mitm: true,
	}
	receipt, err := w.log.Decide(&w.rec)
	if err == nil && !receipt.Covers(w.id) {
		err = errors.New("the receipt covers another request")
	}
	return err
}
