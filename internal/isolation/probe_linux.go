package isolation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// sockets are the engine's, while they are still the child's.
type sockets struct {
	transparent []*net.TCPListener
	packet      []*net.UDPConn

	kinds []socket
	all   []filer // of each of kinds
}

type filer interface{ File() (*os.File, error) }

// openSockets opens the engine's ports. What has no IPv6 gets none.
func openSockets() (*sockets, error) {
	s := new(sockets)
	for _, addr := range []netip.Addr{loopback4(), netip.IPv6Loopback()} {
		if err := s.open(addr); err != nil && addr.Is4() {
			return nil, fmt.Errorf("opening the engine's ports: %w", err)
		}
	}
	return s, nil
}

// open opens the ports of one address. Nothing is taken of an address where
// one of them fails.
func (s *sockets) open(addr netip.Addr) error {
	transparent, err := listenTCP(addr, transparentPort)
	if err != nil {
		return err
	}
	stream, err := listenTCP(addr, dnsPort)
	if err != nil {
		return errors.Join(err, transparent.Close())
	}
	packet, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, dnsPort)))
	if err != nil {
		return errors.Join(err, transparent.Close(), stream.Close())
	}
	if addr.Is4() {
		forward, err := listenTCP(addr, forwardPort)
		if err != nil {
			return err
		}
		s.kinds, s.all = append(s.kinds, forwardSocket), append(s.all, forward)
	}
	s.transparent, s.packet = append(s.transparent, transparent), append(s.packet, packet)
	s.kinds = append(s.kinds, transparentSocket, streamSocket, packetSocket)
	s.all = append(s.all, transparent, stream, packet)
	return nil
}

// listenTCP is without Multipath TCP: the kernel does not say where such a
// connection was redirected from. A client that offers it goes on by TCP.
func listenTCP(addr netip.Addr, port uint16) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listening on %s: it is no TCP", ln.Addr()), ln.Close())
	}
	return tcp, nil
}

// handOver gives the sockets to the engine. They are blocking from then on:
// what a deadline is needed for has to come before.
func (s *sockets) handOver(c control) error {
	var files []*os.File
	var fds []int
	for _, from := range s.all {
		f, err := from.File()
		if err != nil {
			return fmt.Errorf("handing out a socket: %w", err)
		}
		files, fds = append(files, f), append(fds, int(f.Fd()))
	}
	err := c.send(message{Sockets: s.kinds}, fds...)
	runtime.KeepAlive(files) // their end would be the descriptors'
	return err
}

// Addresses that nobody has (RFC 5737, RFC 3849).
func nobody4() netip.AddrPort { return netip.MustParseAddrPort("192.0.2.77:7777") }
func nobody6() netip.AddrPort { return netip.MustParseAddrPort("[2001:db8::77]:7777") }

// probe does what a command would do that knows no proxy, and fails unless the
// engine's sockets get it all.
func (s *sockets) probe() error {
	if err := onlyLoopback(); err != nil {
		return err
	}
	targets := []netip.AddrPort{nobody4(), nobody6()}
	for i, ln := range s.transparent {
		if err := probeTCP(ln, targets[i]); err != nil {
			return err
		}
		if err := probeDNS(s.packet[i], netip.AddrPortFrom(targets[i].Addr(), 53)); err != nil {
			return err
		}
	}
	for _, target := range targets {
		if err := probeUDP(target); err != nil {
			return err
		}
	}
	if len(s.transparent) == 1 { // IPv6 may not lead anywhere where the engine has no socket for it
		if conn, err := dial("tcp", nobody6()); err == nil {
			conn.Close()
			return errors.New("a connection by IPv6 went through, and not to the engine")
		}
	}
	return nil
}

// probePatience is for what stays on this machine.
const probePatience = 5 * time.Second

func dial(network string, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probePatience)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, network, to.String())
}

func probeTCP(ln *net.TCPListener, to netip.AddrPort) error {
	client, err := dial("tcp", to)
	if err != nil {
		return fmt.Errorf("a connection to %s did not reach the engine's port: %w", to, err)
	}
	defer client.Close()
	_ = ln.SetDeadline(time.Now().Add(probePatience))
	defer func() { _ = ln.SetDeadline(time.Time{}) }()
	server, err := ln.AcceptTCP()
	if err != nil {
		return fmt.Errorf("a connection to %s went somewhere else than to the engine: %w", to, err)
	}
	defer func() { _ = server.Close() }()
	dst, err := intake.OriginalDst(server)
	if err != nil || dst != to {
		return fmt.Errorf("a connection to %s came in as one to %s: %w", to, dst, err)
	}
	return nil
}

func probeDNS(conn *net.UDPConn, to netip.AddrPort) error {
	client, err := dial("udp", to)
	if err != nil {
		return fmt.Errorf("asking %s: %w", to, err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("probe")); err != nil {
		return fmt.Errorf("asking %s: %w", to, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(probePatience))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	buf := make([]byte, 16)
	n, _, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "probe" {
		return fmt.Errorf("a query to %s did not reach the resolver: %q, %w", to, buf[:n], err)
	}
	return nil
}

// probeUDP sends a datagram, which must fail: it is dropped on its way out.
func probeUDP(to netip.AddrPort) error {
	client, err := dial("udp", to)
	if err != nil {
		return nil // no route: there is no way out
	}
	defer client.Close()
	if _, err := client.Write([]byte("probe")); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("a datagram to %s was not dropped: %w", to, err)
	}
	return nil
}
