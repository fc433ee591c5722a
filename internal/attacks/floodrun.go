package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// measured is what a flood cost.
type measured struct {
	id, what      string
	attempts      int64
	took          time.Duration
	before, after stats
	rss, peak     int64 // bytes resident before, and at most
	most          int   // goroutines at most
	log           int64 // bytes of the attackers' records
	alone, beside latencies
	note          string
}

// Targets of the client beside a flood, as a multiple of what it has alone.
const (
	medianTarget = 2
	p99Target    = 5
)

// heldUp reports whether the client beside the flood missed a target.
func (m measured) heldUp() bool {
	return m.beside.Median > medianTarget*m.alone.Median || m.beside.P99 > p99Target*m.alone.P99 || m.beside.Failed > 0
}

const floodName = "flood"

// serveFlood is what this program is with -role flood: the attackers are a
// process of their own, so that neither the well-behaved client nor the upstream
// waits for them there. Attackers have their own machines; on this one they give
// way. It prints how much they did.
func serveFlood(o options, stdout io.Writer) error {
	if err := yield(); err != nil {
		return err
	}
	i := slices.IndexFunc(floods(), func(f flood) bool { return f.what == o.what })
	if i < 0 {
		return fmt.Errorf("-what %s: no such flood", o.what)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.during)
	defer cancel()
	f := &flooder{ctx: ctx, addr: o.listen, target: o.target}
	var done atomic.Int64
	var wg sync.WaitGroup
	for range floodWorkers {
		wg.Go(func() {
			for ctx.Err() == nil {
				done.Add(int64(floods()[i].once(f)))
			}
		})
	}
	wg.Wait()
	_, err := fmt.Fprint(stdout, done.Load())
	return err
}

// yield has every thread of this process run where nobody else would; those that
// come later have it from the one that makes them. Linux keeps that for each thread.
func yield() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := giveWay(id); err != nil {
			return err
		}
	}
	return nil
}

// giveWay is SCHED_IDLE of sched(7) for one thread. By nice(2) alone an attacker still
// ends its time slice, of some milliseconds, before the engine's thread has the processor.
func giveWay(thread int) error {
	return unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}

// attackRun is one measurement.
type attackRun struct {
	id, what string
	lasts    time.Duration                        // about, and the client goes on for as long
	prepare  func(l *lab) (end func(), err error) // before the engine starts; may be nil
	// hold makes what is there all the while that the client goes on beside it,
	// before that begins; may be nil. attack is made meanwhile; nil beside a hold.
	hold   func(f *flooder) *held
	attack func(ctx context.Context, f *flooder) (attempts int64, note string, err error)
}

// attackRuns are every flood, the slow clients, and the idle connections. Where
// there are no slow clients, missing says why.
func (l *lab) attackRuns(ctx context.Context) (all []attackRun, missing error) {
	for _, fl := range floods() {
		all = append(all, attackRun{id: fl.id, what: fl.what, lasts: floodTime, attack: func(ctx context.Context, f *flooder) (int64, string, error) {
			out, err := exec.CommandContext(ctx, l.self, "-role", floodName, "-what", fl.what, "-listen", f.addr, "-target", f.target, "-during", floodTime.String()).Output()
			if err != nil {
				return 0, "", fmt.Errorf("the attackers: %w", err)
			}
			n, err := strconv.ParseInt(string(out), 10, 64)
			return n, "", err
		}})
	}
	slow, missing := slowRuns(ctx)
	return append(append(all, slow...), attackRun{id: "R7", what: "idle intercepted connections", lasts: floodTime, hold: idle}), missing
}

// measureFloods runs those whose id and words match.
func (l *lab) measureFloods(ctx context.Context, which string) (all []measured, missing, err error) {
	re, err := regexp.Compile(which)
	if err != nil {
		return nil, nil, err
	}
	runs, missing := l.attackRuns(ctx)
	for _, a := range runs {
		if !re.MatchString(a.id + " " + a.what) {
			continue
		}
		fmt.Fprintln(l.progress, "flood:", a.what)
		m, err := l.measure(ctx, a)
		if err != nil {
			return all, missing, fmt.Errorf("%s: %w", a.what, err)
		}
		all = append(all, *m)
	}
	return all, missing, nil
}

// measure starts an engine as shipped, lets the attack run and takes its figures.
func (l *lab) measure(ctx context.Context, a attackRun) (*measured, error) {
	p := enginePeer("")
	command := p.command
	p.command = func(l *lab, dir, addr string) (*exec.Cmd, error) {
		cmd, err := command(l, dir, addr)
		cmd.Args = append(cmd.Args, "-shipped")
		return cmd, err
	}
	if a.prepare != nil {
		end, err := a.prepare(l)
		if err != nil {
			return nil, err
		}
		defer end()
	}
	l.up.expect(nil, nil)
	r, err := l.start(ctx, p)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	m := &measured{id: a.id, what: a.what}
	honest := authority(hostName(0, api), l.up.port)
	if m.alone, err = l.honestClient(ctx, r.addr, honest, floodTime); err != nil {
		return nil, err
	}
	if m.before, err = askStats(ctx, r.file(statsName)); err != nil {
		return nil, err
	}
	m.rss = resident(r.cmd.Process.Pid, "VmRSS")
	f := &flooder{ctx: ctx, pid: r.cmd.Process.Pid, addr: r.addr, target: authority(hostName(1, api), l.up.port)}
	if err := l.assail(ctx, a, f, m, honest); err != nil {
		return nil, err
	}
	m.peak = resident(r.cmd.Process.Pid, "VmHWM")
	if m.after, err = l.settled(ctx, r); err != nil {
		return nil, err
	}
	m.most = m.after.Most
	m.log, err = recordsOf("attacks", r.file(auditName))
	return m, err
}

// assail makes the attack, and has the well-behaved client go on meanwhile.
func (l *lab) assail(ctx context.Context, a attackRun, f *flooder, m *measured, honest string) (err error) {
	began := time.Now()
	if a.hold != nil {
		h := a.hold(f)
		defer h.release()
		m.attempts, m.note = int64(len(h.conns)), h.note(f.pid)
	}
	failed := make(chan error, 1)
	go func() {
		var err error
		m.beside, err = l.honestClient(ctx, f.addr, honest, a.lasts)
		failed <- err
	}()
	if a.attack != nil {
		m.attempts, m.note, err = a.attack(ctx, f)
	}
	m.took = time.Since(began)
	return errors.Join(err, <-failed)
}

// settled asks for the engine's figures until its goroutines are few again, for
// at most ten seconds.
func (l *lab) settled(ctx context.Context, r *running) (s stats, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := askStats(context.WithoutCancel(ctx), r.file(statsName))
		if err != nil {
			return s, err
		}
		if s = now; s.Goroutines < 40 {
			return s, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s, nil
		}
	}
}

const idleConns = 10_000

// held is connections that are open.
type held struct {
	conns  []*tls.Conn
	failed int64 // that could not be opened
}

// note says how many there are, and what they cost the process pid.
func (h *held) note(pid int) string {
	note := fmt.Sprintf("%d open, %d refused", len(h.conns), h.failed)
	if rss := resident(pid, "VmRSS"); rss > 0 && len(h.conns) > 0 {
		note += fmt.Sprintf(", %.1f KiB resident each", float64(rss)/float64(len(h.conns))/1024)
	}
	return note
}

func (h *held) release() {
	for _, c := range h.conns {
		_ = c.NetConn().Close()
	}
}

// idle opens connections from several addresses, since each client has a cap.
func idle(f *flooder) *held {
	var h held
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range floodWorkers {
		wg.Go(func() {
			for i := next.Add(1); i <= idleConns; i = next.Add(1) {
				conn, err := f.tls(fmt.Sprintf("127.0.1.%d", 1+i%4), f.target, "http/1.1")
				mu.Lock()
				if err != nil {
					h.failed++
				} else {
					h.conns = append(h.conns, conn)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return &h
}

// resident is a line of /proc/PID/status in bytes: VmRSS now, VmHWM at most.
func resident(pid int, line string) int64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // a process that ended has none
	for l := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// recordsOf is how many bytes of a log are records of one agent.
func recordsOf(agent, file string) (n int64, err error) {
	data, err := os.ReadFile(file)
	mark := `"agent_identity":"` + agent + `"`
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, mark) {
			n += int64(len(line))
		}
	}
	return n, err
}
