//go:build !linux

package intake

import (
	"errors"
	"net"
	"net/netip"
)

// OriginalDst is only to be had on Linux, where the redirect rules are.
func OriginalDst(*net.TCPConn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.New("transparent connections need Linux (SO_ORIGINAL_DST)")
}
