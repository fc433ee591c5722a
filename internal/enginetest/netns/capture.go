//go:build netns

package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Capture sees every packet that comes out of a pod.
type Capture struct{ fd int }

// captureLimit is how long a capture waits for a packet that must come.
const captureLimit = 20 * time.Second

// Capture begins to look at what leaves the pod.
func (p *Pod) Capture(tb testing.TB) *Capture {
	tb.Helper()
	c := &Capture{fd: -1}
	p.Cluster.Do(func() {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}
		if err == nil {
			all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
			wait := unix.NsecToTimeval(int64(captureLimit))
			err = errors.Join(unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: eth0.Index}),
				unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
		}
		if err != nil {
			tb.Errorf("capturing: %v", err)
		}
	})
	tb.Cleanup(func() { _ = unix.Close(c.fd) })
	return c
}

// Until returns what left the pod before a packet that holds mark, each packet
// as "protocol destination". Neighbour discovery, which is the kernel's own, is
// not among it.
func (c *Capture) Until(tb testing.TB, mark string) []string {
	tb.Helper()
	var seen []string
	buf := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if err != nil {
			tb.Fatalf("capturing until %q: %v, after %q", mark, err, seen)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue // the cluster's
		}
		packet := buf[:n]
		if bytes.Contains(packet, []byte(mark)) {
			return seen
		}
		if what := describe(packet); what != "" {
			seen = append(seen, what)
		}
	}
}

// describe is "" for what only finds neighbours.
func describe(packet []byte) string {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return fmt.Sprintf("%d %s", packet[9], netip.AddrFrom4([4]byte(packet[16:20])))
	case len(packet) > 40 && packet[0]>>4 == 6:
		next, rest := packet[6], packet[40:]
		if next == unix.IPPROTO_HOPOPTS && len(rest) > 8 { // MLD's router alert
			next, rest = rest[0], rest[8:]
		}
		if next == unix.IPPROTO_ICMPV6 && rest[0] >= 130 {
			return ""
		}
		return fmt.Sprintf("%d %s", next, netip.AddrFrom16([16]byte(packet[24:40])))
	default:
		return "" // ARP
	}
}
