package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upstream is the server behind every proxy, and the judge's only witness: it
// keeps every connection and every byte that came on it, before TLS where there
// is none and within TLS where there is. It answers as a naive origin does.
type upstream struct {
	port     int
	lns      []net.Listener
	good     tls.Certificate
	bad      map[int]*tls.Config // by case; nil: good
	number   caseNumber
	protocol []string // ALPN

	mu    sync.Mutex
	cases map[int]caseOf
	conns []*captured
}

// captured is one connection as the upstream saw it. Its fields are guarded by
// upstream.mu.
type captured struct {
	name   string // SNI; "" without
	inside bool   // it came to the address that no rule lets through
	tls    bool
	hello  bool // a ClientHello came, whatever became of it
	raw    []byte
	n      int // of the case, -1 unknown
}

const (
	keepRaw      = 1 << 20 // bytes kept of a connection
	upstreamIdle = 20 * time.Second
)

// startUpstream listens on one port of both addresses.
func startUpstream(good tls.Certificate) (*upstream, error) {
	u := &upstream{good: good, number: newCaseNumber(), cases: map[int]caseOf{}, bad: map[int]*tls.Config{}, protocol: []string{"http/1.1"}}
	for range 20 { // the other address may have the port taken
		out, err := net.Listen("tcp4", outsideAddr+":0")
		if err != nil {
			return nil, err
		}
		port := out.Addr().(*net.TCPAddr).Port
		in, err := net.Listen("tcp4", net.JoinHostPort(insideAddr, strconv.Itoa(port)))
		if err != nil {
			_ = out.Close()
			continue
		}
		u.port, u.lns = port, []net.Listener{out, in}
		for i, ln := range u.lns {
			go u.accept(ln, i == 1)
		}
		return u, nil
	}
	return nil, fmt.Errorf("no port is free on both %s and %s", outsideAddr, insideAddr)
}

func (u *upstream) close() {
	for _, ln := range u.lns {
		_ = ln.Close()
	}
}

// expect forgets what came and takes the cases of the next proxy.
func (u *upstream) expect(cases []caseOf, bad map[int]*tls.Config) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conns, u.bad = nil, bad
	u.cases = make(map[int]caseOf, len(cases))
	for _, c := range cases {
		u.cases[c.n] = c
	}
}

// seen is what came, by case; what belongs to none is under -1.
func (u *upstream) seen() map[int][]captured {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := map[int][]captured{}
	for _, c := range u.conns {
		n := c.n
		if found, ok := u.number.of(c.raw); n < 0 && ok {
			n = found
		}
		kept := *c
		kept.raw = bytes.Clone(c.raw)
		all[n] = append(all[n], kept)
	}
	return all
}

// settle waits until no byte has come for a second: the last client may be done
// before what it sent is here.
func (u *upstream) settle(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for before := -1; ; {
		u.mu.Lock()
		now := len(u.conns)
		for _, c := range u.conns {
			now += len(c.raw)
		}
		u.mu.Unlock()
		if now == before {
			return
		}
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (u *upstream) accept(ln net.Listener, inside bool) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go u.serve(c, inside)
	}
}

// first is a connection whose first bytes were looked at.
type first struct {
	net.Conn
	r *bufio.Reader
}

func (f *first) Read(p []byte) (int, error) { return f.r.Read(p) }

func (u *upstream) serve(c net.Conn, inside bool) {
	defer c.Close()
	seen := &captured{n: -1, inside: inside}
	u.mu.Lock()
	u.conns = append(u.conns, seen)
	u.mu.Unlock()
	_ = c.SetDeadline(time.Now().Add(upstreamIdle))
	f := &first{c, bufio.NewReader(c)}
	kind, err := f.r.Peek(1)
	if err != nil {
		return
	}
	if kind[0] != 22 { // no TLS handshake
		u.talk(&dialogue{Conn: f, tcp: c, u: u, cap: seen})
		return
	}
	u.mu.Lock()
	seen.hello = true
	u.mu.Unlock()
	tc := tls.Server(f, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		seen.name = h.ServerName
		if n, ok := u.number.of([]byte(h.ServerName)); ok {
			seen.n = n
		}
		if bad := u.bad[seen.n]; bad != nil {
			return bad, nil
		}
		return &tls.Config{Certificates: []tls.Certificate{u.good}, NextProtos: u.protocol, CurvePreferences: []tls.CurveID{tls.X25519}}, nil
	}})
	if tc.Handshake() != nil {
		return
	}
	u.mu.Lock()
	seen.tls = true
	u.mu.Unlock()
	u.talk(&dialogue{Conn: tc, tcp: c, u: u, cap: seen})
}

// dialogue is the naive origin on one connection.
type dialogue struct {
	net.Conn          // TLS or not
	tcp      net.Conn // below it
	u        *upstream
	cap      *captured
	at       int  // bytes of cap.raw that were answered
	waited   bool // 100 Continue was sent for the request at at
}

func (u *upstream) talk(d *dialogue) {
	buf := make([]byte, 32<<10)
	for {
		n, err := d.Read(buf)
		u.mu.Lock()
		if room := keepRaw - len(d.cap.raw); room > 0 {
			d.cap.raw = append(d.cap.raw, buf[:min(n, room)]...)
		}
		raw := d.cap.raw
		if len(u.cases) == 0 { // nobody will judge: a flood's upstream keeps what is not answered
			raw = raw[d.at:]
			d.cap.raw, d.at = raw, 0
		}
		u.mu.Unlock()
		for err == nil {
			size := d.whole(raw[d.at:])
			if size == 0 {
				break
			}
			head := raw[d.at : d.at+size]
			d.at, d.waited = d.at+size, false
			err = d.reply(head)
		}
		if err != nil {
			return
		}
	}
}

// whole is how long the first request of raw is, 0 if it is not all there. It
// reads as leniently as it can: what it takes for a request is no verdict.
func (d *dialogue) whole(raw []byte) int {
	end := bytes.Index(raw, []byte("\r\n\r\n"))
	if end < 0 {
		return 0
	}
	head, body := strings.ToLower(string(raw[:end])), raw[end+4:]
	if strings.Contains(head, "\r\nexpect:") && !d.waited {
		d.waited = true
		_, _ = d.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	if _, coding, ok := strings.Cut(head, "\r\ntransfer-encoding:"); ok && strings.Contains(coding, "chunked") {
		i := bytes.Index(body, []byte("0\r\n\r\n"))
		if m := lastChunk().FindIndex(body); m != nil {
			return end + 4 + m[1]
		}
		if i < 0 {
			return 0
		}
		return end + 4 + i + 5
	}
	if _, length, ok := strings.Cut(head, "\r\ncontent-length:"); ok {
		length, _, _ = strings.Cut(length, "\r\n")
		n, _ := strconv.Atoi(strings.TrimSpace(length))
		if n < 0 || len(body) < n {
			return 0
		}
		return end + 4 + n
	}
	return end + 4
}

// lastChunk matches a body's chunks with their end, trailers included.
func lastChunk() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^(?:.*?\r\n)?0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n`)
}

const plainAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

var errDone = errors.New("the dialogue is over")

func (d *dialogue) reply(head []byte) error {
	d.u.mu.Lock()
	n := d.cap.n
	if found, ok := d.u.number.of(head); n < 0 && ok {
		n = found
	}
	c, known := d.u.cases[n]
	d.u.mu.Unlock()
	answer := plainAnswer
	if known && c.answer != "" && !bytes.Contains(head, []byte("/files/honest")) {
		answer = c.expand(c.answer)
	}
	if _, err := d.Write([]byte(answer)); err != nil {
		return err
	}
	if c.spoken != "" {
		if _, err := d.Write([]byte(c.spoken)); err != nil {
			return err
		}
	}
	if c.cut && answer != plainAnswer {
		_ = d.tcp.Close() // under TLS's feet
		return errDone
	}
	return nil
}
