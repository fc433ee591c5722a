package isolation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/redirect"
)

// own4 and own6 are the namespace's addresses besides loopback, which many
// programs do not count: without one of a family glibc's AI_ADDRCONFIG finds
// no address of that family. They are of ranges that are routed nowhere.
func own4() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, 1}) }
func own6() netip.Addr { return netip.MustParseAddr("fdae:6a11:5e9:1::1") }

// rules are those of a namespace that is the command's alone.
func rules() redirect.Rules {
	return redirect.Rules{
		Transparent: transparentPort, DNS: dnsPort,
		Free: []netip.Prefix{netip.PrefixFrom(own4(), 32), netip.PrefixFrom(own6(), 128)},
	}
}

// makeNetwork brings up lo, gives it addresses, and leads everything to it. A
// kernel without IPv6 has no way out by it either.
func makeNetwork() error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("looking for lo: %w", err)
	}
	r, err := dialRoute()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.linkUp(lo.Index); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	for _, a := range []netip.Addr{own4(), own6()} {
		err := r.addAddress(lo.Index, a)
		if err == nil {
			err = r.addDefaultRoute(lo.Index, a)
		}
		if err != nil && a.Is4() {
			return fmt.Errorf("giving lo the address %s and the default route: %w", a, err)
		}
	}
	return nil
}

// onlyLoopback fails if there is any other interface.
func onlyLoopback() error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	for _, i := range all {
		// Kernels with tunnel drivers built in give every namespace tunl0, sit0 and
		// their like; down, and to bring them up takes a capability.
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			return fmt.Errorf("the namespace has the interface %s, which leads somewhere", i.Name)
		}
	}
	return nil
}

// route is a netlink socket for addresses and routes (rtnetlink(7)). They are
// few and fixed, so that the messages are written out here.
type route struct{ fd int }

func dialRoute() (*route, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a routing socket: %w", err)
	}
	return &route{fd}, nil
}

func (r *route) close() { _ = unix.Close(r.fd) }

func (r *route) linkUp(index int) error {
	return r.do(unix.RTM_NEWLINK, 0, bytesOf(&unix.IfInfomsg{Index: int32(index), Flags: unix.IFF_UP, Change: unix.IFF_UP}))
}

func (r *route) addAddress(index int, a netip.Addr) error {
	head := unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: uint8(a.BitLen()), Index: uint32(index)}
	if a.Is6() {
		head.Family, head.Flags = unix.AF_INET6, unix.IFA_F_NODAD // it is there at once
	}
	return r.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		bytesOf(&head), attribute(unix.IFA_LOCAL, a.AsSlice()), attribute(unix.IFA_ADDRESS, a.AsSlice()))
}

// addDefaultRoute leads everything of a's family to the interface, with a as
// the source.
func (r *route) addDefaultRoute(index int, a netip.Addr) error {
	head := unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST}
	if a.Is6() {
		head.Family, head.Scope = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
	}
	return r.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, bytesOf(&head),
		attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index))), attribute(unix.RTA_PREFSRC, a.AsSlice()))
}

// do sends one request and waits for the kernel's acknowledgement.
func (r *route) do(kind, flags uint16, parts ...[]byte) error {
	head := unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1}
	for _, p := range parts {
		head.Len += uint32(len(p))
	}
	request := slices.Concat(append([][]byte{bytesOf(&head)}, parts...)...)
	if err := unix.Sendto(r.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(r.fd, answer, 0)
	if err != nil {
		return err
	}
	// An acknowledgement is an error message with the number 0.
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("not an acknowledgement")
	}
	if number := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); number != 0 {
		return unix.Errno(-number)
	}
	return nil
}

// attribute is a netlink attribute, padded to four bytes.
func attribute(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	return append(b, make([]byte, -len(b)&3)...)
}

// bytesOf is a kernel structure as the kernel wants it.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
