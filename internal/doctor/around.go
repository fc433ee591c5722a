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

// fixOlder is for what earlier rules let through.
const fixOlder = "apply the rules by the aegrail-init of this version; " + fixRules

// aroundChecks are of sockets that are bound to what is not theirs, and of
// those that no rule sees.
func (p *patient) aroundChecks() []check {
	return []check{
		{"E2", "an answer to an address that is elsewhere", fixOlder, func(context.Context) outcome { return elsewhere() }},
		{"E2", "what is redirected, out of an interface", fixOlder, func(context.Context) outcome { return byInterface() }},
		{"E3", "sockets to the hypervisor", "set seccompProfile: {type: RuntimeDefault}, as injection does, with a runtime whose default refuses AF_VSOCK (containerd 1.7, CRI-O 1.26)",
			func(context.Context) outcome { return hypervisor() }},
	}
}

// withSocket calls fn with a socket for messages, and closes it.
func withSocket(family int, fn func(fd int) error) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost
	return fn(fd)
}

// elsewhere asks this pod from an address that is not its own, and answers.
func elsewhere() outcome {
	var own netip.Addr
	for _, addr := range ownAddresses() {
		if addr.Is6() && !addr.IsLoopback() {
			own = addr
		}
	}
	if !own.IsValid() {
		return held("there is no IPv6 here")
	}
	away := &unix.SockaddrInet6{Port: 7000, Addr: nobody6().As16()}
	asked := false
	err := withSocket(unix.AF_INET6, func(answers int) error {
		if err := unix.Bind(answers, &unix.SockaddrInet6{Addr: own.As16()}); err != nil {
			return err
		}
		here, err := unix.Getsockname(answers)
		if err != nil {
			return err
		}
		if err := withSocket(unix.AF_INET6, func(asks int) error {
			return errors.Join(unix.SetsockoptInt(asks, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1), unix.Bind(asks, away), unix.Sendto(asks, []byte("aegrail-engine doctor"), 0, here))
		}); err != nil {
			return err
		}
		asked = true
		return unix.Sendto(answers, []byte("aegrail-engine doctor"), 0, away)
	})
	switch {
	case err == nil:
		return open("what answers a message from %s, which was sent here, has left for it", nobody6())
	case !asked:
		return held("no message can be sent from an address that is elsewhere (%v)", err)
	case errors.Is(err, syscall.EPERM):
		return held("the kernel refuses the answer")
	default:
		return open("%v", err)
	}
}

// byInterface sends DNS, which is redirected to loopback, by sockets that are
// bound to each interface.
func byInterface() outcome {
	interfaces, err := net.Interfaces()
	if err != nil {
		return open("%v", err)
	}
	tried := 0
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		tried++
		for family, to := range map[int]unix.Sockaddr{
			unix.AF_INET:  &unix.SockaddrInet4{Port: dnsPort, Addr: [4]byte{192, 0, 2, 53}},
			unix.AF_INET6: &unix.SockaddrInet6{Port: dnsPort, Addr: nobody6().As16()},
		} {
			err := withSocket(family, func(fd int) error {
				if err := unix.BindToDevice(fd, i.Name); err != nil {
					return err
				}
				return unix.Sendto(fd, []byte("aegrail-engine doctor"), 0, to)
			})
			if err == nil {
				return open("a message has left by %s", i.Name)
			}
		}
	}
	if tried == 0 {
		return held("there is no interface but loopback")
	}
	return held("the kernel refuses to send it")
}

const dnsPort = 53

// hypervisor opens a socket of AF_VSOCK, which no rule of a network namespace
// sees. Nothing is sent.
func hypervisor() outcome {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return held("there are none (%v)", err)
	}
	_ = unix.Close(fd)
	return open("a socket to the hypervisor can be opened")
}
