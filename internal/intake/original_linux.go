package intake

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ip6tOriginalDst is IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h.
const ip6tOriginalDst = 80

// OriginalDst asks the kernel where a redirected connection was going
// (SO_ORIGINAL_DST, IPv4 and IPv6). A connection that was not redirected is an
// error: dialling the transparent port by hand is no way in (ATTACKS E4).
func OriginalDst(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", err)
	}
	local := addrPort(conn.LocalAddr())
	var dst netip.AddrPort
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		if local.Addr().Unmap().Is4() {
			dst, sockErr = originalDst4(int(fd))
			return
		}
		dst, sockErr = originalDst6(int(fd))
	}); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", err)
	}
	if sockErr != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", sockErr)
	}
	if dst == netip.AddrPortFrom(local.Addr().Unmap(), local.Port()) {
		return netip.AddrPort{}, fmt.Errorf("the connection was made to %s itself and not redirected", local)
	}
	return dst, nil
}

func originalDst4(fd int) (netip.AddrPort, error) {
	// The option returns a sockaddr_in of 16 bytes; IPv6Mreq is 20 bytes wide
	// and the usual way to receive it without an unsafe call of our own.
	mreq, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := mreq.Multiaddr
	port := binary.BigEndian.Uint16(b[2:4])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
}

func originalDst6(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IPV6, ip6tOriginalDst,
		uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port), nil
}
