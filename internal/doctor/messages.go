//go:build linux

package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const fixMessages = fixRules + "; other UDP and ICMP are dropped there"

// messageChecks are of protocols that the engine does not speak.
func (p *patient) messageChecks() []check {
	return []check{
		{"E2", "ICMP over IPv4", fixMessages, func(context.Context) outcome { return p.icmp4() }},
		{"E2", "ICMP over IPv6", fixMessages, func(context.Context) outcome { return p.icmp6() }},
		{"E2", "UDP and QUIC over IPv4", fixMessages, func(ctx context.Context) outcome { return p.udp(ctx, nobody4()) }},
		{"E2", "UDP and QUIC over IPv6", fixMessages, func(ctx context.Context) outcome { return p.udp(ctx, nobody6()) }},
	}
}

// udp sends to ports of an address that nobody has. The kernel says at once
// whether it does.
func (p *patient) udp(ctx context.Context, addr netip.Addr) outcome {
	if o, ok := unreachable(addr); ok {
		return o
	}
	for _, port := range []uint16{443, 80, 123, 4789, 51820} {
		to := netip.AddrPortFrom(addr, port)
		conn, err := new(net.Dialer).DialContext(ctx, "udp", to.String())
		if err == nil {
			_, err = conn.Write([]byte("aegrail-engine doctor"))
			conn.Close()
		}
		switch {
		case err == nil:
			return open("a message to %s has left", to)
		case !errors.Is(err, syscall.EPERM):
			return open("a message to %s: %v", to, short(err))
		}
	}
	return held("the kernel refuses to send to %s", addr)
}

// echo is an echo request; the kernel fills in the rest.
func echo(kind byte) []byte { return []byte{kind, 0, 0, 0, 0, 0, 0, 1, 'd', 'o', 'c', 't', 'o', 'r'} }

// ping sends an echo request by the sockets that there are for it. sent is false
// where there is none.
func ping(family, protocol int, kind byte, to unix.Sockaddr) (sent bool, err error) {
	for _, socket := range []int{unix.SOCK_DGRAM, unix.SOCK_RAW} {
		fd, serr := unix.Socket(family, socket|unix.SOCK_CLOEXEC, protocol)
		if serr != nil {
			err = serr
			continue
		}
		err = unix.Sendto(fd, echo(kind), 0, to)
		_ = unix.Close(fd)
		return true, err
	}
	return false, err
}

func (p *patient) icmp4() outcome {
	if o, ok := unreachable(nobody4()); ok {
		return o
	}
	sent, err := ping(unix.AF_INET, unix.IPPROTO_ICMP, 8, &unix.SockaddrInet4{Addr: nobody4().As4()})
	switch {
	case !sent:
		return held("there is no socket for ICMP (%v)", err)
	case err == nil:
		return open("an echo request to %s has left", nobody4())
	case errors.Is(err, syscall.EPERM):
		return held("the kernel refuses to send to %s", nobody4())
	default:
		return open("an echo request to %s: %v", nobody4(), err)
	}
}

// icmp6 goes by a counter: the kernel does not tell the sender of an ICMPv6
// message that it was dropped.
func (p *patient) icmp6() outcome {
	if o, ok := unreachable(nobody6()); ok {
		return o
	}
	const times = 3
	before, err := p.dropped6()
	if err != nil {
		return open("what becomes of an echo request cannot be seen: %v", err)
	}
	for range times {
		sent, err := ping(unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, &unix.SockaddrInet6{Addr: nobody6().As16()})
		if !sent {
			return held("there is no socket for ICMPv6 (%v)", err)
		}
		if err != nil && !errors.Is(err, syscall.EPERM) {
			return open("an echo request to %s: %v", nobody6(), err)
		}
	}
	after, err := p.dropped6()
	if err != nil || after-before < times {
		return open("echo requests to %s have left", nobody6())
	}
	return held("the kernel drops what is sent to %s", nobody6())
}
