package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Times of a client. They bound a hanging proxy and measure nothing.
const (
	patience = 3 * time.Second        // for the first byte of an answer
	quiet    = 300 * time.Millisecond // without a byte after the first: it was all
	slowWait = 14 * time.Second       // for the end of a request that never ends; the engine's head takes 10 s
)

// got is what a client got, in which the judge hardly believes.
type got struct {
	connect   string // CONNECT's answer, its first line
	handshake error
	alpn      string
	answer    []byte // what came in the tunnel
	closed    bool   // the proxy ended the connection
	clean     bool   // … as an end should: FIN, and close_notify in TLS
	end       error  // what reading ended with
}

func (g got) String() string {
	line, _, _ := strings.Cut(string(g.answer), "\r\n")
	switch {
	case g.handshake != nil:
		return "no handshake: " + g.handshake.Error()
	case line == "" && g.connect != "" && !strings.Contains(g.connect, " 200"):
		return fmt.Sprintf("CONNECT: %.60q", g.connect)
	case line == "":
		return fmt.Sprintf("no answer (%v)", g.end)
	}
	return fmt.Sprintf("%.60q", line)
}

// client makes the attacks on one proxy.
type client struct {
	addr    string
	connect bool // the proxy wants a CONNECT; else TLS at once
}

// run makes one attack, and what comes again after it.
func (a client) run(c caseOf) (got, error) {
	if !a.connect {
		a.prime(c)
	}
	g, err := a.once(c, c.in)
	if err != nil || c.again == "" {
		return g, err
	}
	return a.once(c, c.again)
}

// prime makes handshakes that come to nothing: HAProxy drops the first
// connection for a name, for which it then has a certificate.
func (a client) prime(c caseOf) {
	for range 2 {
		conn, err := net.DialTimeout("tcp", a.addr, patience)
		if err != nil {
			return // the attack itself will say so
		}
		if tc, err := a.shake(conn, c); err == nil {
			_ = tc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			_, _ = tc.Read(make([]byte, 1))
		}
		_ = conn.Close()
	}
}

// once makes one connection and sends in on it.
func (a client) once(c caseOf, in string) (g got, err error) {
	conn, err := net.DialTimeout("tcp", a.addr, patience)
	if err != nil {
		return g, fmt.Errorf("connecting to the proxy: %w", err)
	}
	defer conn.Close()
	if c.way == atPort {
		return a.exchange(conn, c, in, g), nil
	}
	if a.connect {
		var ok bool
		if g.connect, ok = a.tunnel(conn, c); !ok {
			return g, nil
		}
	}
	switch c.way {
	case inTheOpen:
		return a.exchange(conn, c, in, g), nil
	case byHello:
		return a.exchange(conn, c, c.hello(c.name(), c.expand("{deniedname}")), g), nil
	}
	tc, err := a.shake(conn, c)
	if err != nil {
		g.handshake = err
		return g, nil
	}
	g.alpn = tc.ConnectionState().NegotiatedProtocol
	if c.way != byHTTP2 {
		return a.exchange(tc, c, in, g), nil
	}
	if g.alpn != "h2" {
		return g, errNoHTTP2
	}
	h := newH2(tc)
	if c.frames != nil {
		c.frames(h, c)
	}
	for _, s := range c.streams {
		h.request(c, s)
	}
	g.answer, g.closed = h.drain(), h.gone
	return g, nil
}

var errNoHTTP2 = errors.New("the proxy does not choose h2")

// tunnel makes the CONNECT and reports whether the tunnel is open.
func (a client) tunnel(conn net.Conn, c caseOf) (line string, ok bool) {
	target := c.connect
	if target == "" {
		target = "{name}:{port}"
	}
	head := c.head
	if head == "" {
		head = "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n"
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(conn, c.expand(head)); err != nil {
		return err.Error(), false
	}
	var all []byte
	one := make([]byte, 1) // not a byte of what follows the head
	for !strings.HasSuffix(string(all), "\r\n\r\n") && len(all) < 16<<10 {
		n, err := conn.Read(one)
		all = append(all, one[:n]...)
		if err != nil {
			break
		}
	}
	line, _, _ = strings.Cut(string(all), "\r\n")
	return line, strings.HasPrefix(line, "HTTP/1.") && strings.Contains(line, " 200")
}

// shake makes the TLS handshake. Whose certificate comes is not the question
// here, so none is verified.
func (a client) shake(conn net.Conn, c caseOf) (*tls.Conn, error) {
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: c.expand(c.sni), NextProtos: []string{"http/1.1"}, CurvePreferences: []tls.CurveID{tls.X25519}}
	switch c.sni {
	case "":
		cfg.ServerName = c.name()
	case "-":
		cfg.ServerName = ""
	}
	switch {
	case c.way == byHTTP2:
		cfg.NextProtos = []string{"h2"}
	case c.alpn == "-":
		cfg.NextProtos = nil
	case c.alpn != "":
		cfg.NextProtos = strings.Split(c.alpn, ",")
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	switch c.pace {
	case "pieces":
		conn = &inPieces{Conn: conn, cut: everyByte}
	case "segments":
		conn = &inPieces{Conn: conn, cut: c.inSegments}
	case "records":
		conn = &inPieces{Conn: conn, cut: c.inRecords}
	}
	tc := tls.Client(conn, cfg)
	return tc, tc.Handshake()
}

// inPieces sends its first write, the ClientHello, as cut says.
type inPieces struct {
	net.Conn
	cut  func(hello []byte) [][]byte
	sent bool
}

func (p *inPieces) Write(b []byte) (int, error) {
	if p.sent {
		return p.Conn.Write(b)
	}
	p.sent = true
	for _, piece := range p.cut(b) {
		if _, err := p.Conn.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func everyByte(hello []byte) (all [][]byte) {
	for i := range hello {
		all = append(all, hello[i:i+1])
	}
	return all
}

// inSegments cuts the record at c.at.
func (c caseOf) inSegments(hello []byte) [][]byte {
	at := min(c.at, len(hello))
	return [][]byte{hello[:at], hello[at:]}
}

// inRecords cuts the handshake message at c.at and puts each half into a record.
func (c caseOf) inRecords(hello []byte) [][]byte {
	const header = 5
	message := hello[header:]
	at := min(c.at, len(message)-1) // a record without content is refused by rule
	out := append(append([]byte{}, hello[:3]...), with16(message[:at])...)
	out = append(append(out, hello[:3]...), with16(message[at:])...)
	return [][]byte{out}
}

// exchange sends in, and c.then when an answer is in, and takes what comes.
func (a client) exchange(conn net.Conn, c caseOf, in string, g got) got {
	r := bufio.NewReader(conn)
	wait := patience
	if c.pace == "slow" {
		wait = slowWait
		go drip(conn, c.expand(in))
	} else {
		_ = conn.SetWriteDeadline(time.Now().Add(2 * patience))
		// A proxy that has closed already is noticed where the answer is read.
		_, _ = io.WriteString(conn, c.expand(in))
	}
	switch c.ending {
	case "fin":
		endWrites(conn)
	case "gone":
		a.take(conn, r, &g, quiet)
		_ = conn.Close()
		return g
	}
	a.take(conn, r, &g, wait)
	if c.then != "" && !g.closed {
		_, _ = io.WriteString(conn, c.expand(c.then))
		a.take(conn, r, &g, wait)
	}
	return g
}

// drip sends text a byte at a time, without its last byte, until the proxy has
// had enough.
func drip(conn net.Conn, text string) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	over := time.After(slowWait)
	for i := 0; ; i++ {
		piece := "x"
		if i < len(text) {
			piece = text[i : i+1]
		}
		if _, err := io.WriteString(conn, piece); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			return
		}
	}
}

func endWrites(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// take reads until the proxy closes, or is quiet. first is how long the first
// byte may take.
func (a client) take(conn net.Conn, r io.Reader, g *got, first time.Duration) {
	buf := make([]byte, 16<<10)
	for wait := first; len(g.answer) < keepRaw; wait = quiet {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		n, err := r.Read(buf)
		g.answer = append(g.answer, buf[:n]...)
		if err != nil {
			var late net.Error
			g.end = err
			g.closed = !errors.As(err, &late) || !late.Timeout()
			g.clean = errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
			return
		}
	}
}
