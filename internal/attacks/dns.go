package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// lookups is the DNS of a proxy that can be told to use one: it answers as
// addresses does and writes each name that was asked for into a file. It
// implements upstream.Resolver.
type lookups struct {
	mu    sync.Mutex
	asked map[string]int
	file  *os.File
	port  string // the upstream's, which stands for 443 where a proxy wants that
}

const lookupsFile = "lookups"

func newLookups(dir string) (*lookups, error) {
	f, err := os.Create(filepath.Join(dir, lookupsFile))
	return &lookups{asked: map[string]int{}, file: f}, err
}

// LookupNetIP resolves host; network is "ip", "ip4" or "ip6".
func (l *lookups) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	host = strings.TrimSuffix(host, ".")
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.file, host); err != nil {
		return nil, err
	}
	found := addresses(host, l.asked[host])
	l.asked[host]++
	if len(found) == 0 || network == "ip6" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return found, nil
}

// dial is a dialler for proxies that take one.
func (l *lookups) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	if port == "443" {
		port = l.port
	}
	found, err := l.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(found[len(found)-1].String(), port))
}
