package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// The floor is what a proxy in Go cannot do without: CONNECT, TLS on both
// sides by crypto/tls, a head copied through, both bodies hashed, upstream
// connections pooled. It has no rules, no log and no strictness, reads bodies
// with a Content-Length alone and is no proxy that anybody should run. What the
// engine costs above it is ours.

const floorName = "floor"

func serveFloor(in, out *tls.Config, addr, origin string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	out = out.Clone()
	out.ServerName = host
	pool := &floorPool{origin: origin, conf: out}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = floorConn(c, in, pool) // ends with its client
		}()
	}
}

// floorSide is a connection on either side.
type floorSide struct {
	c   *tls.Conn
	r   *bufio.Reader
	m   message
	out []byte
}

func newFloorSide(c *tls.Conn) *floorSide {
	return &floorSide{c: c, r: bufio.NewReaderSize(c, 8<<10), out: make([]byte, 0, 8<<10)}
}

type floorPool struct {
	origin string
	conf   *tls.Config
	mu     sync.Mutex
	idle   []*floorSide
}

func (p *floorPool) get() (*floorSide, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	c, err := net.Dial("tcp", p.origin)
	if err != nil {
		return nil, err
	}
	return newFloorSide(tls.Client(c, p.conf)), nil
}

func (p *floorPool) put(s *floorSide) {
	p.mu.Lock()
	p.idle = append(p.idle, s)
	p.mu.Unlock()
}

func floorConn(c net.Conn, in *tls.Config, pool *floorPool) error {
	r := bufio.NewReader(c)
	var connect message
	if err := connect.read(r); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return err
	}
	in = in.Clone()
	in.NextProtos = []string{"http/1.1"}
	client := newFloorSide(tls.Server(c, in))
	for {
		if err := client.gather(); err != nil {
			return err
		}
		up, err := pool.get()
		if err != nil {
			return err
		}
		if _, err := up.c.Write(client.out); err != nil {
			return err
		}
		if err := up.gather(); err != nil {
			return err
		}
		if _, err := client.c.Write(up.out); err != nil {
			return err
		}
		pool.put(up)
	}
}

// gather reads one message, head and body, into s.out.
func (s *floorSide) gather() error {
	s.out = s.out[:0]
	for first := true; ; first = false {
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		s.out = append(s.out, line...)
		if first {
			s.m.length = 0
		} else if n, ok := floorLength(line); ok {
			s.m.length = n
		}
		if len(line) <= 2 {
			break
		}
	}
	if s.m.length > medium {
		return errors.New("the floor carries small bodies")
	}
	start := len(s.out)
	need := start + int(s.m.length)
	if cap(s.out) < need {
		s.out = append(make([]byte, 0, need), s.out...)
	}
	s.out = s.out[:need]
	if _, err := io.ReadFull(s.r, s.out[start:]); err != nil {
		return err
	}
	_ = sha256.Sum256(s.out[start:])
	return nil
}

func floorLength(line []byte) (n int64, ok bool) {
	const name = "Content-Length: "
	if len(line) < len(name) || string(line[:len(name)]) != name {
		return 0, false
	}
	for _, c := range line[len(name):] {
		if c >= '0' && c <= '9' {
			n = 10*n + int64(c-'0')
		}
	}
	return n, true
}
