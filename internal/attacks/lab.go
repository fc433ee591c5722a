package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// lab is what a run works with.
type lab struct {
	dir        string // keys, configurations, logs; removed at the end
	self       string // this program
	keys       keys
	up         *upstream
	progress   io.Writer
	names      int    // cases have numbers below it
	morePolicy string // rules of the engine beside those of engine.go
}

func newLab(progress io.Writer) (*lab, error) {
	l := &lab{progress: progress}
	var err error
	if l.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp("", "aegrail-attacks-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(l.dir, 0o755); err != nil { // Squid gives up root
		return nil, errors.Join(err, l.close())
	}
	if l.keys, err = makeKeys(l.dir); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if l.up, err = startUpstream(l.keys.good); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lab) close() error {
	if l.up != nil {
		l.up.close()
	}
	return os.RemoveAll(l.dir)
}

// role is this program as one of the proxies that are Go code.
func (l *lab) role(name, dir, addr string) *exec.Cmd {
	return exec.Command(l.self, "-role", name, "-listen", addr, "-dir", dir, "-keys", l.dir)
}

// hostsFiles writes, for each class, the names that its rules allow, one a line.
func (l *lab) hostsFiles(dir string) error {
	for _, c := range classes() {
		var b strings.Builder
		for i := range l.names + controlNames {
			b.WriteString(hostName(i, c) + "\n")
			if c == api {
				b.WriteString(hostName(i, "other.api") + "\n")
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts-"+string(c)), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// result is what a proxy did with every case.
type result struct {
	proxy
	findings []finding
	took     time.Duration
	notes    []string
	disagree []error // where the engine's log and the upstream differ
	unnamed  int     // connections at the upstream that belong to no case
}

// attack runs every case against p, so many at a time.
func (l *lab) attack(ctx context.Context, p proxy, cases []caseOf, workers int) (*result, error) {
	began := time.Now()
	bad := map[int]*tls.Config{}
	for _, c := range cases {
		if b := l.keys.bad[c.id+" "+c.what]; b != nil {
			bad[c.n] = b
		}
	}
	if p.port != 0 {
		cases = slices.Clone(cases)
		for i := range cases {
			cases[i].port = p.port
		}
	}
	l.up.expect(append(controls(l.names, cases[0].port), cases...), bad)
	r, err := l.start(ctx, p)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	if err := l.control(r, controls(l.names, cases[0].port)); err != nil {
		return nil, err
	}
	gots, errs := make([]got, len(cases)), make([]error, len(cases))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				c := cases[i]
				c.self = r.addr
				gots[i], errs[i] = client{r.addr, p.connects()}.run(c)
			}
		})
	}
	for i, c := range cases {
		if c.need&p.lacks == 0 && ctx.Err() == nil {
			next <- i
		}
	}
	close(next)
	wg.Wait()
	l.up.settle(ctx)
	res := l.verdicts(r, cases, gots, errs, time.Since(began))
	r.stop()
	if p.name == engineName {
		res.disagree = l.checkLog(r.file(auditName), cases)
	}
	return res, ctx.Err()
}

// controls are what a proxy must do for its column to mean anything: forward
// what is allowed, and refuse what is plainly not. They have numbers from n on.
func controls(n, port int) []caseOf {
	rows := []row{
		{what: "the allowed POST", in: post("a body"), want: exactly, may: []string{chatLine}},
		{what: "an allowed GET", in: get("a"), want: exactly, may: []string{"GET /files/a"}},
		{what: "another method", in: smuggled, want: nothing},
		{what: "another path", in: asking("POST /v1/files", "Content-Length: 0"), want: nothing},
		{what: "the allowed POST over HTTP/2", way: byHTTP2, need: needHTTP2, want: exactly, may: []string{chatLine},
			streams: []h2req{{[]string{":method: POST", ":scheme: https", ":authority: {host}", ":path: " + chatPath}, "a body"}}},
	}
	all := numbered(rows, port)
	for i := range all {
		all[i].n += n
	}
	return all
}

const controlNames = 5 // names that controls take

// control fails unless r meets the controls.
func (l *lab) control(r *running, cases []caseOf) error {
	j := judge{newStrictReader()}
	for _, c := range cases {
		if c.need&r.lacks != 0 {
			continue
		}
		g, err := client{r.addr, r.connects()}.run(c)
		if errors.Is(err, errNoHTTP2) || c.way == byHTTP2 && g.handshake != nil {
			r.lacks |= needHTTP2
			continue
		}
		if err != nil {
			return err
		}
		f := j.of(c, l.up.seen()[c.n], g)
		if c.way == byHTTP2 && f.why != "" && r.name != engineName {
			r.lacks |= needHTTP2 // mitmproxy has it where the upstream has it
			continue
		}
		if f.verdict != refused || f.why != "" {
			return fmt.Errorf("%s does not do %s: %s %s; it got %s; it said: %s", r.name, c.what, f.verdict, f.why, g, r.said)
		}
	}
	return nil
}

// verdicts judges every case by what the upstream saw.
func (l *lab) verdicts(r *running, cases []caseOf, gots []got, errs []error, took time.Duration) *result {
	res := &result{proxy: r.proxy, findings: make([]finding, len(cases)), took: took}
	seen := l.up.seen()
	res.unnamed = len(seen[-1])
	asked, _ := os.ReadFile(r.file(lookupsFile)) // a proxy that has none is not asked for it
	j := judge{newStrictReader()}
	for i, c := range cases {
		switch lacks := c.need & r.lacks; {
		case lacks != 0:
			res.findings[i] = finding{verdict: notApplicable, why: lacks.String()}
		case errors.Is(errs[i], errNoHTTP2):
			res.findings[i] = finding{verdict: notApplicable, why: needHTTP2.String()}
		case errs[i] != nil:
			res.findings[i] = finding{verdict: failed, why: errs[i].Error()}
		case r.name == engineName && gots[i].handshake != nil && c.sni == "" && (c.alpn == "" || c.alpn == "-"):
			// It was refused before there was anything to refuse.
			res.findings[i] = finding{verdict: failed, why: gots[i].String()}
		default:
			c.self = r.addr
			res.findings[i] = j.of(c, seen[c.n], gots[i])
			if c.need&needWatch != 0 && strings.Contains(string(asked), c.expand("{deniedname}")) {
				res.findings[i] = finding{verdict: through, why: "the denied name was looked up"}
			}
		}
	}
	select {
	case <-r.exited:
		res.notes = append(res.notes, "the process ended during the run: "+r.said.String())
	default:
	}
	return res
}
