package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// client is one connection of the load: TLS to the origin's name, through a
// proxy or not.
type client struct {
	c *tls.Conn
	r *bufio.Reader
	m message
}

// ioTimeout ends a run whose proxy hangs.
const ioTimeout = 30 * time.Second

// dial opens a connection to a place through p and shakes hands in full.
func (l *lab) dial(p *running, to place, alpn string) (*client, error) {
	addr := p.addr[to.service]
	if p.cmd == nil {
		addr = l.origin.addr[to.port()]
	}
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(ioTimeout))
	if p.connect {
		if err := connect(raw, l.authority(to)); err != nil {
			raw.Close()
			return nil, err
		}
	}
	tc := tls.Client(raw, l.clientTLS(to.host, alpn))
	if err := tc.Handshake(); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if got := negotiated(tc.ConnectionState()); got != expected {
		tc.Close()
		return nil, fmt.Errorf("the proxy negotiated %s with the client, all others %s", got, expected)
	}
	if got := tc.ConnectionState().NegotiatedProtocol; got != alpn && alpn == "h2" {
		tc.Close()
		return nil, fmt.Errorf("the proxy negotiated protocol %q, not %q", got, alpn)
	}
	_ = raw.SetDeadline(time.Time{})
	return &client{c: tc, r: bufio.NewReaderSize(tc, originRead)}, nil
}

func connect(raw net.Conn, authority string) error {
	if _, err := io.WriteString(raw, "CONNECT "+authority+" HTTP/1.1\r\nHost: "+authority+"\r\nUser-Agent: bench/1\r\n\r\n"); err != nil {
		return err
	}
	// The server side of TLS waits for us: what can be read is the answer alone.
	var buf [1024]byte
	n := 0
	for !strings.HasSuffix(string(buf[:n]), "\r\n\r\n") {
		m, err := raw.Read(buf[n:])
		if err != nil {
			return fmt.Errorf("CONNECT: %w", err)
		}
		if n += m; n == len(buf) {
			return io.ErrShortBuffer
		}
	}
	if !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") && !strings.HasPrefix(string(buf[:n]), "HTTP/1.0 200") {
		return fmt.Errorf("CONNECT was answered with %q", buf[:n])
	}
	return nil
}

func (l *lab) clientTLS(name, alpn string) *tls.Config {
	return &tls.Config{
		ServerName: name, RootCAs: l.roots, MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		CurvePreferences: []tls.CurveID{tls.X25519}, DynamicRecordSizingDisabled: true,
	}
}

// request is a head with as many fields as a real client sends, and the body
// if it is small enough to leave with it.
func (l *lab) request(to place, method, target string, body int64) []byte {
	head := method + " " + target + " HTTP/1.1\r\n" +
		"Host: " + l.authority(to) + "\r\n" +
		"User-Agent: bench/1\r\n" +
		"Accept: application/json\r\n" +
		"Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n" +
		"Content-Type: application/json\r\n"
	if method != "GET" {
		head += contentLength(body) + "\r\n"
	}
	out := []byte(head + "\r\n")
	if body <= medium {
		out = append(out, filler(int(body))...)
	}
	return out
}

// exchange sends a request and reads its answer, which must be 200 and want
// bytes long.
func (c *client) exchange(request []byte, want int64, progress func(int)) error {
	if _, err := c.c.Write(request); err != nil {
		return err
	}
	return c.answer(want, progress)
}

func (c *client) answer(want int64, progress func(int)) error {
	if err := c.m.read(c.r); err != nil {
		return err
	}
	if c.m.status() != 200 {
		why, _ := c.r.Peek(min(c.r.Buffered(), 512))
		return fmt.Errorf("the answer was %q: %q", c.m.line, why)
	}
	n, err := c.m.discardBody(c.r, progress)
	switch {
	case err != nil:
		return err
	case n != want:
		return fmt.Errorf("the answer has %d bytes, want %d", n, want)
	}
	return nil
}

// upload sends a request whose body is n bytes.
func (c *client) upload(head []byte, n int64, progress func(int)) error {
	if _, err := c.c.Write(head); err != nil {
		return err
	}
	piece := filler(bulkPiece)
	for n > 0 {
		w, err := c.c.Write(piece[:min(n, bulkPiece)])
		if err != nil {
			return err
		}
		progress(w)
		n -= int64(w)
	}
	return c.answer(2, ignore)
}

func (c *client) close() { c.c.Close() }
