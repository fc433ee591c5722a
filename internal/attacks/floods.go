package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// Floods are the rows of R that bytes alone do not say. Each meets an engine of
// its own with its limits as they are shipped, while a well-behaved client goes
// on beside it. What is bounded is printed; nothing here asserts a duration.
//
// BUG: on two cores that a flood of HTTP/2 control frames or resets fills, the
// client beside it waits for most of a second. Memory, goroutines and the log
// stay small. What it waits for is Go's scheduler: pairs of goroutines that are
// always ready hand the processor to each other, and the network is looked at
// between them only; with GOMAXPROCS=16 the median is a millisecond.

// flood is one attack by many connections.
type flood struct {
	id, what string
	// once makes the attack on one connection and returns how much it did:
	// streams, frames, connections. It is called again and again, by several.
	once func(f *flooder) int
}

const (
	floodTime    = 4 * time.Second
	floodWorkers = 8
	idleConns    = 10_000
)

// flooder is what a flood works with.
type flooder struct {
	ctx    context.Context
	pid    int    // the engine's
	addr   string // the engine's
	target string // an allowed host with its port
	n      atomic.Int64
}

func floods() []flood {
	return []flood{
		{"R2", "rapid reset: streams opened and reset", rapidReset},
		{"R3", "CONTINUATION without end", continuations},
		{"R3", "HPACK bombs of 6 MB in 2 KB", bombs},
		{"R3", "SETTINGS and PING without reading", settings},
		{"R5", "random names that the policy allows", randomNames},
		{"R5", "random names that no rule allows", deniedNames},
		{"L3", "garbage in place of a ClientHello", garbageHellos},
	}
}

// dial connects to the engine and makes a CONNECT to target.
func (f *flooder) dial(from, target string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.DialContext(f.ctx, "tcp", f.addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	if _, err := fmt.Fprintf(conn, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	const ok = "HTTP/1.1 200"
	head := make([]byte, 0, 1024)
	one := make([]byte, 1)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		if _, err := conn.Read(one); err != nil || len(head) > 1000 {
			return nil, errors.Join(fmt.Errorf("CONNECT: %.80q", head), conn.Close())
		}
		head = append(head, one[0])
	}
	if !strings.HasPrefix(string(head), ok) {
		return nil, errors.Join(fmt.Errorf("CONNECT: %.80q", head), conn.Close())
	}
	return conn, nil
}

// tls is dial with a handshake for the same name.
func (f *flooder) tls(from, target, alpn string) (*tls.Conn, error) {
	conn, err := f.dial(from, target)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: hostOf(target), NextProtos: []string{alpn}, CurvePreferences: []tls.CurveID{tls.X25519}})
	if err := tc.HandshakeContext(f.ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tc, nil
}

// frames runs do on an HTTP/2 connection until it fails or the flood is over.
func (f *flooder) frames(do func(h *h2conn) error) int {
	conn, err := f.tls("", f.target, "h2")
	if err != nil {
		return 0
	}
	defer conn.Close()
	h := newH2(conn)
	for n := 0; ; n++ {
		if f.ctx.Err() != nil || do(h) != nil {
			return n
		}
	}
}

func (f *flooder) fields(path string) []string {
	return []string{":method: GET", ":scheme: https", ":authority: " + f.target, ":path: " + path}
}

func rapidReset(f *flooder) int {
	return f.frames(func(h *h2conn) error {
		id := h.next
		h.next += 2
		block := h.encode(f.fields("/files/reset")...)
		if err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		return h.framer.WriteRSTStream(id, http2.ErrCodeCancel)
	})
}

func continuations(f *flooder) int {
	begun := false
	return f.frames(func(h *h2conn) error {
		if !begun {
			begun = true
			return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(f.fields("/files/a")...), EndStream: true})
		}
		return h.framer.WriteContinuation(1, false, h.encode("x: "+strings.Repeat("y", 8_000)))
	})
}

func bombs(f *flooder) int {
	return f.frames(func(h *h2conn) error {
		fields := f.fields("/files/a")
		bomb := "bomb: " + strings.Repeat("b", 3000)
		for range 2000 { // each but the first is one byte: an index
			fields = append(fields, bomb)
		}
		id := h.next
		h.next += 2
		return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.encode(fields...), EndStream: true, EndHeaders: true})
	})
}

func settings(f *flooder) int {
	return f.frames(func(h *h2conn) error {
		if err := h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}); err != nil {
			return err
		}
		return h.framer.WritePing(false, [8]byte{1})
	})
}

func randomNames(f *flooder) int {
	conn, err := f.tls("", fmt.Sprintf("c%d.api.test:%s", f.n.Add(1), portOf(f.target)), "http/1.1")
	if err == nil {
		_ = conn.Close()
	}
	return 1
}

func deniedNames(f *flooder) int {
	conn, err := f.dial("", fmt.Sprintf("c%d.denied.test:443", f.n.Add(1)))
	if err == nil {
		_ = conn.Close()
	}
	return 1
}

func garbageHellos(f *flooder) int {
	conn, err := f.dial("", f.target)
	if err != nil {
		return 1
	}
	defer conn.Close()
	noise := make([]byte, 256)
	_, _ = rand.Read(noise) // it never fails
	copy(noise, "\x16\x03\x01\x00\xfb")
	if _, err := conn.Write(noise); err == nil {
		_, _ = io.Copy(io.Discard, conn) // until the engine closes
	}
	return 1
}

// measured is what a flood cost.
type measured struct {
	id, what      string
	attempts      int64
	took          time.Duration
	before, after stats
	rss, peak     int64 // bytes resident before, and at most
	log           int64 // bytes of the attackers' records
	alone, beside latencies
	note          string
}

const floodName = "flood"

// serveFlood is what this program is with -role flood: the attackers are a
// process of their own, so that neither the well-behaved client nor the upstream
// waits for them there. Attackers have their own machines; on this one they give
// way. It prints how much they did.
func serveFlood(o options, stdout io.Writer) error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, giveWay); err != nil {
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

const giveWay = 10 // nice(2)

// measureFloods runs every flood, and the idle connections.
func (l *lab) measureFloods(ctx context.Context) ([]measured, error) {
	var all []measured
	for _, fl := range floods() {
		fmt.Fprintln(l.progress, "flood:", fl.what)
		m, err := l.measure(ctx, fl.id, fl.what, func(f *flooder) (int64, string, error) {
			out, err := exec.CommandContext(ctx, l.self, "-role", floodName, "-what", fl.what, "-listen", f.addr, "-target", f.target, "-during", floodTime.String()).Output()
			if err != nil {
				return 0, "", fmt.Errorf("the attackers: %w", err)
			}
			n, err := strconv.ParseInt(string(out), 10, 64)
			return n, "", err
		})
		if err != nil {
			return all, err
		}
		all = append(all, *m)
	}
	fmt.Fprintln(l.progress, "flood: idle connections")
	m, err := l.measure(ctx, "R7", "idle intercepted connections", idle)
	if m != nil {
		all = append(all, *m)
	}
	return all, err
}

// measure starts an engine as shipped, lets attack run and takes its figures.
func (l *lab) measure(ctx context.Context, id, what string, attack func(*flooder) (int64, string, error)) (*measured, error) {
	p := enginePeer("")
	command := p.command
	p.command = func(l *lab, dir, addr string) (*exec.Cmd, error) {
		cmd, err := command(l, dir, addr)
		cmd.Args = append(cmd.Args, "-shipped")
		return cmd, err
	}
	l.up.expect(nil, nil)
	r, err := l.start(ctx, p)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	m := &measured{id: id, what: what}
	honest := authority(hostName(0, api), l.up.port)
	if m.alone, err = l.honestClient(ctx, r.addr, honest, time.Second); err != nil {
		return nil, err
	}
	if m.before, err = askStats(ctx, r.file(statsName)); err != nil {
		return nil, err
	}
	m.rss = resident(r.cmd.Process.Pid, "VmRSS")
	f := &flooder{ctx: ctx, pid: r.cmd.Process.Pid, addr: r.addr, target: authority(hostName(1, api), l.up.port)}
	failed := make(chan error, 1)
	go func() {
		var err error
		m.beside, err = l.honestClient(ctx, r.addr, honest, floodTime)
		failed <- err
	}()
	began := time.Now()
	m.attempts, m.note, err = attack(f)
	m.took = time.Since(began)
	if err := errors.Join(err, <-failed); err != nil {
		return nil, err
	}
	m.peak = resident(r.cmd.Process.Pid, "VmHWM")
	if m.after, err = l.settled(ctx, r); err != nil {
		return nil, err
	}
	m.log, err = recordsOf("attacks", r.file(auditName))
	return m, err
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

// idle opens connections from several addresses, since each client has a cap,
// and holds them while the figures are taken.
func idle(f *flooder) (int64, string, error) {
	var mu sync.Mutex
	var conns []net.Conn
	var failed atomic.Int64
	var next atomic.Int64
	var wg sync.WaitGroup
	for range floodWorkers {
		wg.Go(func() {
			for i := next.Add(1); i <= idleConns; i = next.Add(1) {
				conn, err := f.tls(fmt.Sprintf("127.0.1.%d", 1+i%4), f.target, "http/1.1")
				if err != nil {
					failed.Add(1)
					continue
				}
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	note := fmt.Sprintf("%d open, %d refused", len(conns), failed.Load())
	if rss := resident(f.pid, "VmRSS"); rss > 0 && len(conns) > 0 {
		note += fmt.Sprintf(", %.1f KiB resident each", float64(rss)/float64(len(conns))/1024)
	}
	for _, c := range conns {
		_ = c.(*tls.Conn).NetConn().Close()
	}
	return int64(len(conns)), note, nil
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
