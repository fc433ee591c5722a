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
	"strings"
	"sync"
	"time"
)

// lab is what a run works with.
type lab struct {
	dir      string // keys, configurations, logs; removed at the end
	self     string // this program
	keys     keys
	up       *upstream
	progress io.Writer
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

// hostsFile writes the names that the rules of class allow, one a line, and
// returns the file's name.
func (l *lab) hostsFile(dir string, c class, n int) (string, error) {
	var b strings.Builder
	for i := range n {
		b.WriteString(hostName(i, c) + "\n")
		if c == api {
			b.WriteString(hostName(i, "other.api") + "\n")
		}
	}
	name := filepath.Join(dir, "hosts-"+string(c))
	return name, os.WriteFile(name, []byte(b.String()), 0o644)
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

const workers = 8 // attackers at once

// attack runs every case against p.
func (l *lab) attack(ctx context.Context, p proxy, cases []caseOf) (*result, error) {
	began := time.Now()
	bad := map[int]*tls.Config{}
	for _, c := range cases {
		if b := l.keys.bad[c.id+" "+c.what]; b != nil {
			bad[c.n] = b
		}
	}
	l.up.expect(cases, bad)
	r, err := l.start(ctx, p)
	if err != nil {
		return nil, err
	}
	defer r.stop()
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
			res.findings[i] = finding{notApplicable, lacks.String()}
		case errors.Is(errs[i], errNoHTTP2):
			res.findings[i] = finding{notApplicable, needHTTP2.String()}
		case errs[i] != nil:
			res.findings[i] = finding{failed, errs[i].Error()}
		default:
			c.self = r.addr
			res.findings[i] = j.of(c, seen[c.n], gots[i])
			if c.need&needWatch != 0 && strings.Contains(string(asked), c.expand("{deniedname}")) {
				res.findings[i] = finding{through, "the denied name was looked up"}
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

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }
