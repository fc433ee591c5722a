package isolation

import (
	"net"
	"net/netip"
)

// The engine's ports inside. Nothing else can have taken them: the namespace is
// new. They are below the range of which the kernel picks ports.
const (
	forwardPort     = 14128
	transparentPort = 14443
	dnsPort         = 14053
)

// ForwardAddr is where the forward proxy is, as the command sees it.
func ForwardAddr() netip.AddrPort { return netip.AddrPortFrom(loopback4(), forwardPort) }

// Ports are the engine's inside: the forward proxy's, and those that
// connections and DNS are redirected to.
func Ports() (forward, transparent, dns uint16) { return forwardPort, transparentPort, dnsPort }

func loopback4() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// Files says what of the file system the command sees otherwise.
type Files struct {
	ResolvConf string   // bound over /etc/resolv.conf
	Hidden     []string // files that are empty to the command: keys
	ReadOnly   []string // files that it can read and not write
	Sockets    []string // unix sockets of other programs; Prepare fills it
}

// Listeners are the engine's sockets inside the namespace. They are the
// caller's to serve and close.
type Listeners struct {
	Forward     net.Listener
	Transparent []net.Listener // of each address family there is
	DNSPacket   []*net.UDPConn
	DNSStream   []net.Listener
}

// IPv6 reports whether the namespace has IPv6.
func (l *Listeners) IPv6() bool { return len(l.Transparent) > 1 }

// Close closes all of them.
func (l *Listeners) Close() {
	for _, ln := range append(append([]net.Listener{l.Forward}, l.Transparent...), l.DNSStream...) {
		if ln != nil {
			_ = ln.Close()
		}
	}
	for _, c := range l.DNSPacket {
		_ = c.Close()
	}
}

// Addresses are the sockets' addresses, as the command sees them.
func (l *Listeners) Addresses() []netip.AddrPort {
	var all []netip.AddrPort
	for _, ln := range append(append([]net.Listener{l.Forward}, l.Transparent...), l.DNSStream...) {
		if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
			all = append(all, tcp.AddrPort())
		}
	}
	return all
}

// Command is what runs inside.
type Command struct {
	Path string   // of the program, not looked up
	Args []string // with its name
	Env  []string
}
