package main

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
)

// bound calls bothLoopbacks with a machine that answers each address with the
// errors of faults in turn, and returns what it was left with.
func bound(addr string, faults map[string][]error) (open []string, err error) {
	held := map[string]bool{}
	got, err := bothLoopbacks(addr, func(addr string) (string, netip.AddrPort, error) {
		at, perr := netip.ParseAddrPort(addr)
		if perr != nil {
			return addr, at, perr
		}
		if queue := faults[addr]; len(queue) > 0 {
			faults[addr] = queue[1:]
			if queue[0] != nil {
				return "", at, &net.OpError{Op: "listen", Err: queue[0]}
			}
		}
		held[addr] = true
		return addr, netip.AddrPortFrom(at.Addr(), max(at.Port(), 7)), nil
	}, func(addr string) { delete(held, addr) })
	if len(held) != len(got) {
		return nil, errors.Join(err, errors.New("a socket is left open"))
	}
	return got, err
}

func TestALoopbackListenerIsOfBothFamilies(t *testing.T) {
	busy, none := []error{syscall.EADDRINUSE}, []error{syscall.EADDRNOTAVAIL}
	for name, c := range map[string]struct {
		addr   string
		faults map[string][]error
		want   []string
		fails  error
	}{
		"IPv4's":                     {"127.0.0.1:9", nil, []string{"127.0.0.1:9", "[::1]:9"}, nil},
		"IPv6's":                     {"[::1]:9", nil, []string{"127.0.0.1:9", "[::1]:9"}, nil},
		"by name":                    {"localhost:0", nil, []string{"127.0.0.1:0", "[::1]:7"}, nil},
		"another address":            {"10.1.2.3:9", nil, []string{"10.1.2.3:9"}, nil},
		"another of loopback":        {"127.0.0.2:9", nil, []string{"127.0.0.2:9"}, nil},
		"every address":              {"[::]:9", nil, []string{"[::]:9"}, nil},
		"no IPv6":                    {"127.0.0.1:9", map[string][]error{"[::1]:9": none}, []string{"127.0.0.1:9"}, nil},
		"a kernel without IPv6":      {"127.0.0.1:9", map[string][]error{"[::1]:9": {syscall.EAFNOSUPPORT}}, []string{"127.0.0.1:9"}, nil},
		"taken in IPv6":              {"127.0.0.1:9", map[string][]error{"[::1]:9": busy}, nil, syscall.EADDRINUSE},
		"taken":                      {"127.0.0.1:9", map[string][]error{"127.0.0.1:9": busy}, nil, syscall.EADDRINUSE},
		"any port, taken at first":   {"127.0.0.1:0", map[string][]error{"[::1]:7": busy}, []string{"127.0.0.1:0", "[::1]:7"}, nil},
		"any port, never free":       {"127.0.0.1:0", map[string][]error{"[::1]:7": slices.Repeat(busy, 20)}, nil, syscall.EADDRINUSE},
		"another address, not there": {"10.1.2.3:9", map[string][]error{"10.1.2.3:9": none}, nil, syscall.EADDRNOTAVAIL},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := bound(c.addr, c.faults); !slices.Equal(got, c.want) || !errors.Is(err, c.fails) {
				t.Errorf("%q, %v; want %q, %v", got, err, c.want, c.fails)
			}
		})
	}
}
