package intake

import (
	"net"
	"net/netip"
)

// NewFlow starts a Flow with the two ends of conn.
func NewFlow(conn net.Conn) Flow {
	return Flow{Client: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr())}
}

// addrPort is the address of a TCP end, IPv4 in its own form.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
