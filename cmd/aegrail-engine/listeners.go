package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/arpitcoder/aegrail-engine/internal/digest"
)

// listeners are the ports of serve; nil where one is off.
type listeners struct {
	forward, tls, admin net.Listener
	transparent         []net.Listener // one of each family where it is on loopback
	dns                 []*dnsListener // likewise
	profiles            *profiles
}

// bind opens every port, or none.
func bind(s settings) (_ *listeners, err error) {
	l := new(listeners)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, p := range []struct {
		flag, addr string
		ln         *net.Listener
	}{
		{"--listen", s.listen, &l.forward},
		{"--listen-tls", s.listenTLS, &l.tls},
		{"--admin-listen", s.admin, &l.admin},
	} {
		if p.addr == "" {
			continue
		}
		if *p.ln, err = listen(p.flag, p.addr); err != nil {
			return nil, err
		}
	}
	if s.transparent != "" {
		if l.transparent, err = listenTransparent("--transparent-listen", s.transparent); err != nil {
			return nil, err
		}
	}
	if s.dns != "" {
		if l.dns, err = listenDNS("--dns-listen", s.dns); err != nil {
			return nil, err
		}
	}
	if s.pprof != "" {
		if l.profiles, err = listenProfiles(s.pprof); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func listen(flag, addr string) (net.Listener, error) {
	ln, _, err := listenTCP(addr)
	if err != nil {
		return nil, explainListen(flag, addr, err)
	}
	return ln, nil
}

func listenTCP(addr string) (net.Listener, netip.AddrPort, error) {
	var lc net.ListenConfig
	// The kernel does not say where a connection of Multipath TCP was redirected
	// from. Without it a client that offers it goes on by TCP.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return ln, portOf(ln), nil
}

// listenTransparent takes addr, and where it is of loopback both addresses of
// it: connections that the kernel redirects end at either.
func listenTransparent(flag, addr string) ([]net.Listener, error) {
	all, err := bothLoopbacks(addr, listenTCP, func(ln net.Listener) { ln.Close() })
	if err != nil {
		return nil, explainListen(flag, addr, err)
	}
	return all, nil
}

// portOf is where ln listens.
func portOf(ln net.Listener) netip.AddrPort {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// explainListen says why flag's addr could not be taken, and what to do.
func explainListen(flag, addr string, err error) error {
	var bad *net.AddrError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s %s: the port is in use; stop what holds it, or choose another (port 0 takes any)", flag, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s %s: the address is not this machine's", flag, addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s %s: not permitted; ports below 1024 need CAP_NET_BIND_SERVICE", flag, addr)
	case errors.As(err, &bad), errors.As(err, &dns):
		return badInput(fmt.Errorf("%s %q: want HOST:PORT or :PORT, like 127.0.0.1:8080: %w", flag, addr, err))
	default:
		return fmt.Errorf("%s %s: %w", flag, addr, err)
	}
}

// all are the listeners for connections.
func (l *listeners) all() []net.Listener {
	var all []net.Listener
	for _, ln := range append([]net.Listener{l.forward, l.tls, l.admin}, l.transparent...) {
		if ln != nil {
			all = append(all, ln)
		}
	}
	for _, d := range l.dns {
		all = append(all, d.stream)
	}
	return all
}

// addresses are our own ends, which no request may be sent to.
func (l *listeners) addresses() []netip.AddrPort {
	var own []netip.AddrPort
	for _, ln := range l.all() {
		if at := portOf(ln); at.IsValid() {
			own = append(own, at)
		}
	}
	return own
}

func (l *listeners) close() {
	for _, ln := range l.all() {
		ln.Close()
	}
	for _, d := range l.dns {
		d.close()
	}
	if l.profiles != nil {
		l.profiles.close()
	}
}

// readDigestKey takes the bytes of file as they are, but for one newline at
// the end, which an editor or `openssl rand -hex 32` adds.
func readDigestKey(file string) (digest.Keyed, error) {
	data, err := readFile("digest key", file)
	if err != nil {
		return digest.Keyed{}, badInput(err)
	}
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	// The prefix keeps the id from being the digest of anything else.
	id := sha256.Sum256(append([]byte("aegrail digest key id\n"), data...))
	k := digest.Keyed{KeyID: hex.EncodeToString(id[:8]), Key: data}
	if err := k.Check(); err != nil {
		return digest.Keyed{}, badInput(fmt.Errorf("--audit-digest-key %s: %w; make one with `openssl rand -hex 32`", file, err))
	}
	return k, nil
}
