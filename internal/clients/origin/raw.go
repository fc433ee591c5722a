package origin

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
)

// RawAnswer is what raw.test sends for every request, byte by byte.
const RawAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Mixed-Case: Kept\r\nContent-Length: 4\r\n\r\nraw\n"

// rawServer keeps the bytes of each request. HTTP/1.1 only.
type rawServer struct {
	mu       sync.Mutex
	captured []string // guarded by mu
}

func (s *Servers) startRaw() error {
	leaf, err := s.ca.leaf(Raw)
	if err != nil {
		return err
	}
	ln, err := tls.Listen("tcp", net.JoinHostPort(address(Raw), "443"),
		&tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return err
	}
	s.raw = &rawServer{}
	s.closers = append(s.closers, ln.Close)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serveRaw(conn)
		}
	}()
	return nil
}

// serveRaw answers the requests of one connection. net/http only finds where
// each of them ends; what is kept are the bytes.
func (s *Servers) serveRaw(conn net.Conn) {
	defer conn.Close()
	var wire bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &wire))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		s.raw.mu.Lock()
		s.raw.captured = append(s.raw.captured, wire.String())
		s.raw.mu.Unlock()
		wire.Reset()
		s.saw(Request{Scheme: "https", Method: r.Method, Host: Raw, Path: r.URL.EscapedPath(), Status: 200, Proto: r.Proto})
		if _, err := io.WriteString(conn, RawAnswer); err != nil {
			return
		}
	}
}

// Captured returns the bytes of each request to raw.test since the last call.
func (s *Servers) Captured() []string {
	s.raw.mu.Lock()
	defer s.raw.mu.Unlock()
	out := s.raw.captured
	s.raw.captured = nil
	return out
}
