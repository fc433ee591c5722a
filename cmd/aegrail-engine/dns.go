package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/resolver"
)

// dnsListener is one address where DNS is answered, over UDP and TCP.
type dnsListener struct {
	packet *net.UDPConn
	stream net.Listener
}

// listenDNS takes addr, and where it is of loopback both addresses of it, as
// listenTransparent does.
func listenDNS(flag, addr string) ([]*dnsListener, error) {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			return nil, badInput(fmt.Errorf("%s %s: name one address, like 127.0.0.1:5353: an answer has to come from the address that was asked", flag, addr))
		}
	}
	all, err := bothLoopbacks(addr, listenOneDNS, (*dnsListener).close)
	if err != nil {
		return nil, explainListen(flag, addr, err)
	}
	return all, nil
}

// listenOneDNS takes addr for UDP and TCP, the same port where addr leaves it open.
func listenOneDNS(addr string) (*dnsListener, netip.AddrPort, error) {
	stream, at, err := listenTCP(addr)
	if err != nil {
		return nil, at, err
	}
	packet, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		stream.Close()
		return nil, at, err
	}
	return &dnsListener{packet: packet, stream: stream}, at, nil
}

func (l *dnsListener) close() {
	_ = l.packet.Close()
	_ = l.stream.Close()
}

// newResolver returns the resolver of the engine's agent.
func (e *engine) newResolver(ipv6 bool) (*resolver.Resolver, error) {
	return resolver.New(resolver.Config{
		Policy: e.policy, Agent: e.agent, Log: e.log, NoIPv6: !ipv6, Observe: e.metrics.Observe, Logger: e.logger, Now: time.Now,
	})
}

// serveDNS answers on all of the sockets until ctx ends or one of them fails.
func serveDNS(ctx context.Context, r *resolver.Resolver, packets []*net.UDPConn, streams []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, len(packets)+len(streams))
	for _, c := range packets {
		go func() { done <- r.ServePacket(ctx, c) }()
	}
	for _, ln := range streams {
		go func() { done <- r.ServeStream(ctx, ln) }()
	}
	var err error
	for range cap(done) {
		err = errors.Join(err, <-done)
		cancel() // one without the other would leave some clients without an answer
	}
	return err
}

// hasIPv6 reports whether this machine has an IPv6 address that leads
// anywhere. Without one an answer with IPv6 addresses only costs time.
func hasIPv6() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().Is6() && ip.IsGlobalUnicast() {
				return true
			}
		}
	}
	return false
}
