package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// bothLoopbacks calls listen for addr and, where that is of loopback, for the
// same port of the other family's loopback address: the kernel redirects IPv4
// to 127.0.0.1 and IPv6 to ::1. A machine without IPv6 has the first alone.
func bothLoopbacks[L any](addr string, listen func(addr string) (L, netip.AddrPort, error), closeOne func(L)) ([]L, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "localhost" && host != "127.0.0.1" && host != "::1" {
		one, _, err := listen(addr)
		if err != nil {
			return nil, err
		}
		return []L{one}, nil
	}
	for attempt := 1; ; attempt++ {
		all, err := loopbacksOnce(port, listen, closeOne)
		// A port that the kernel chose for one socket may be taken for another.
		if err == nil || port != "0" || attempt == 20 || !errors.Is(err, syscall.EADDRINUSE) {
			return all, err
		}
	}
}

func loopbacksOnce[L any](port string, listen func(addr string) (L, netip.AddrPort, error), closeOne func(L)) ([]L, error) {
	four, at, err := listen(net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, err
	}
	six, _, err := listen(net.JoinHostPort("::1", strconv.Itoa(int(at.Port()))))
	switch {
	case err == nil:
		return []L{four, six}, nil
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return []L{four}, nil
	default:
		closeOne(four)
		return nil, err
	}
}
