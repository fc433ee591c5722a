//go:build netns

package main

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// socketsProgram sends by sockets that are neither TCP nor UDP.
func socketsProgram(args []string) {
	to4, to6 := netip.MustParseAddr(args[0]).As4(), netip.MustParseAddr(args[1]).As16()
	echo4, echo6 := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, []byte{128, 0, 0, 0, 0, 0, 0, 0}
	for _, s := range []struct {
		what                   string
		family, kind, protocol int
		to                     unix.Sockaddr
		data                   []byte
	}{
		{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: to4}, echo4},
		{"ping6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: to6}, echo6},
		{"raw icmp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: to4}, echo4},
		{"raw ip", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, &unix.SockaddrInet4{Addr: to4}, echo4},
		{"raw icmp6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: to6}, echo6},
		{"packet", unix.AF_PACKET, unix.SOCK_DGRAM, 0, nil, nil},
		{"udplite", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, &unix.SockaddrInet4{Addr: to4, Port: 7000}, echo4},
		{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, &unix.SockaddrInet4{Addr: to4, Port: 7000}, nil},
	} {
		fd, err := unix.Socket(s.family, s.kind, s.protocol)
		if err == nil && s.data != nil {
			err = unix.Sendto(fd, s.data, 0, s.to)
		} else if err == nil && s.to != nil {
			err = unix.Connect(fd, s.to)
		}
		_ = unix.Close(fd)
		say(s.what, err)
	}
}

func TestE01EveryUsersTCPLandsInTheEngine(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			want(t, run1(t, p.Pod, c, "tcp", "192.0.2.1:443", "[2001:db8::1]:443", "10.77.0.1:7000", "[fd77::1]:7000", "10.77.0.2:8080", "[fd77::2]:15001"),
				"192.0.2.1:443: engine, for 192.0.2.1:443", "[2001:db8::1]:443: engine, for [2001:db8::1]:443",
				"10.77.0.1:7000: engine, for 10.77.0.1:7000", "[fd77::1]:7000: engine, for [fd77::1]:7000",
				"10.77.0.2:8080: engine, for 10.77.0.2:8080", "[fd77::2]:15001: engine, for [fd77::2]:15001")
			want(t, run1(t, p.Pod, c, "tcp", "127.0.0.1:8080", "[::1]:8080"), "127.0.0.1:8080: app", "[::1]:8080: app")
		})
	}
	want(t, p.engine("tcp", "192.0.2.1:443", "[2001:db8::1]:443", "127.0.0.1:15020"),
		"192.0.2.1:443: world", "[2001:db8::1]:443: world", "127.0.0.1:15020: engine's port")
}

func TestE02WhatIsNeitherTCPNorDNSIsDropped(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			want(t, run1(t, p.Pod, c, "udp", "192.0.2.1:443", "[2001:db8::1]:443", "10.77.0.1:7000", "[fd77::1]:7000", "10.77.0.2:8080"),
				"192.0.2.1:443: EPERM", "[2001:db8::1]:443: EPERM", "10.77.0.1:7000: EPERM", "[fd77::1]:7000: EPERM", "10.77.0.2:8080: EPERM")
			want(t, run1(t, p.Pod, c, "udp", "127.0.0.1:8080", "[::1]:8080"), "127.0.0.1:8080: app", "[::1]:8080: app")
		})
	}
	want(t, p.engine("udp", "10.77.0.1:443"), "10.77.0.1:443: world")
	if left := capture.Until(t, engineAsks); len(left) > 0 {
		t.Errorf("left the pod: %q", left)
	}
}

func TestE02DNSGoesToTheResolverWhoeverIsAsked(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			servers := []string{"192.0.2.53:53", "[2001:db8::53]:53", "10.77.0.1:53", "127.0.0.1:53", "[::1]:53"}
			var udp, tcp []string
			for _, s := range servers {
				udp, tcp = append(udp, s+": resolver"), append(tcp, s+": resolver, for "+s)
			}
			want(t, run1(t, p.Pod, c, "udp", servers...), udp...)
			want(t, run1(t, p.Pod, c, "tcp", servers...), tcp...)
		})
	}
	want(t, p.engine("udp", "10.77.0.1:53"), "10.77.0.1:53: world")
}

func TestTheEngineIsAnsweredOnAPortThatAnAgentHasAskedFrom(t *testing.T) {
	p := pod(t)
	server := &unix.SockaddrInet4{Port: 53, Addr: p.Cluster4.As4()}
	own := &unix.SockaddrInet4{Port: 40053, Addr: p.Pod4.As4()}
	ask := func(engine bool) (got string) {
		p.Do(func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			defer unix.Close(fd)
			if engine {
				err = mark(fd)
			}
			wait := unix.NsecToTimeval(int64(patience))
			err = errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait), unix.Bind(fd, own), unix.Connect(fd, server))
			if _, werr := unix.Write(fd, []byte("question")); err != nil || werr != nil {
				t.Error(err, werr)
			}
			buf := make([]byte, 100)
			n, err := unix.Read(fd, buf)
			got = string(buf[:max(n, 0)])
			if err != nil {
				got = err.Error()
			}
		})
		return got
	}
	for range 2 { // and the other way round
		want(t, ask(false), "resolver")
		want(t, ask(true), "world")
	}
}

func TestE02OtherSocketsLeadNowhere(t *testing.T) {
	p := pod(t)
	p.Do(func() {
		// As runtimes have it: everybody may ping, so that the rules alone hold it.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o600); err != nil {
			t.Error(err)
		}
	})
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			capture := p.Capture(t)
			got := run1(t, p.Pod, c, "sockets", "192.0.2.1", "2001:db8::1")
			// The kernel does not say what became of an ICMPv6 message.
			want(t, strings.ReplaceAll(got, "EPROTONOSUPPORT", "EPERM"), "ping: EPERM", "ping6: WORKED", "raw icmp: EPERM", "raw ip: EPERM",
				"raw icmp6: EPERM", "packet: EPERM", "udplite: EPERM", "sctp: EPERM")
			if got := p.engine("udp", "10.77.0.1:7000"); got != "10.77.0.1:7000: world\n" {
				t.Error(got)
			}
			if left := capture.Until(t, engineAsks); len(left) > 0 {
				t.Errorf("left the pod: %q", left)
			}
		})
	}
}
