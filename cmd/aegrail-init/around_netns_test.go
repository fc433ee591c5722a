//go:build netns

package main

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

// sockets are an agent's, in the pod's namespace.
type sockets struct{ t *testing.T }

func (s sockets) open(family, kind int) int {
	s.t.Helper()
	return as(agentUID, func() int {
		fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	})
}

func (s sockets) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

// nothingLeft fails if a packet has left before this, over IPv4 or IPv6.
func nothingLeft(t *testing.T, p *held, capture *netns.Capture) {
	t.Helper()
	// By IPv6 too and first: what waits for the neighbour's address goes before it.
	for _, to := range []string{"[fd77::1]:7000", "10.77.0.1:7000"} {
		want(t, p.engine("udp", to), to+": world")
	}
	for range 2 {
		if left := capture.Until(t, engineAsks); len(left) > 0 {
			t.Errorf("left the pod: %q", left)
		}
	}
}

// A socket may have an address that is not this machine's, and send from there
// to the pod itself. What answers it goes to whoever has the address.
func TestE03NobodyAnswersForAnAddressThatIsElsewhere(t *testing.T) {
	p := pod(t, "--free", "10.77.0.2,fd77::2")
	capture := p.Capture(t)
	elsewhere := &unix.SockaddrInet6{Port: 7000, Addr: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}}
	here := &unix.SockaddrInet6{Port: 9999, Addr: p.Pod6.As16()}
	p.Do(func() {
		s := sockets{t}
		answers, asks := s.open(unix.AF_INET6, unix.SOCK_DGRAM), s.open(unix.AF_INET6, unix.SOCK_DGRAM)
		s.must(unix.Bind(answers, here))
		s.must(unix.SetsockoptInt(asks, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
		s.must(unix.Bind(asks, elsewhere))
		s.must(unix.Sendto(asks, []byte("a question from elsewhere"), 0, here))
		if err := unix.Sendto(answers, []byte("an answer"), 0, elsewhere); !errors.Is(err, syscall.EPERM) {
			t.Errorf("the answer: %v", err)
		}
		// The same by TCP: the second packet of the handshake would leave.
		listens, dials := s.open(unix.AF_INET6, unix.SOCK_STREAM), s.open(unix.AF_INET6, unix.SOCK_STREAM)
		s.must(unix.Bind(listens, here))
		s.must(unix.Listen(listens, 1))
		s.must(unix.SetsockoptInt(dials, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
		s.must(unix.Bind(dials, elsewhere))
		if err := unix.Connect(dials, here); !errors.Is(err, syscall.EINPROGRESS) {
			t.Errorf("dialling: %v", err)
		}
	})
	nothingLeft(t, p, capture)
}

// The engine's resolver answers whoever asks, and its answer has the question in
// it: to somebody elsewhere that would be a message.
func TestE03TheEnginesAnswersStayInThePod(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	p.Do(func() {
		s := sockets{t}
		for i, to := range []*unix.SockaddrInet6{{Port: 53, Addr: [16]byte{15: 1}}, {Port: 53, Addr: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 9}}} {
			messages, dials := s.open(unix.AF_INET6, unix.SOCK_DGRAM), s.open(unix.AF_INET6, unix.SOCK_STREAM)
			for _, fd := range []int{messages, dials} {
				s.must(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
				s.must(unix.Bind(fd, &unix.SockaddrInet6{Port: 7000 + i, Addr: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}}))
			}
			s.must(unix.Sendto(messages, []byte("what was stolen"), 0, to))
			if err := unix.Connect(dials, to); !errors.Is(err, syscall.EINPROGRESS) {
				t.Errorf("dialling: %v", err)
			}
		}
	})
	nothingLeft(t, p, capture)
}

// A socket that is bound to an interface sends there what is for loopback, and
// what is redirected to it: a node may take that for its own.
func TestE03NothingForLoopbackLeavesByAnInterface(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	loop4, loop6 := [4]byte{127, 0, 0, 1}, [16]byte{15: 1}
	p.Do(func() {
		s := sockets{t}
		for _, to := range []unix.Sockaddr{
			&unix.SockaddrInet4{Port: 7000, Addr: loop4}, &unix.SockaddrInet4{Port: 53, Addr: loop4}, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{192, 0, 2, 53}},
			&unix.SockaddrInet4{Port: 443, Addr: [4]byte{192, 0, 2, 1}},
			&unix.SockaddrInet6{Port: 7000, Addr: loop6}, &unix.SockaddrInet6{Port: 53, Addr: loop6}, &unix.SockaddrInet6{Port: 443, Addr: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}},
		} {
			family := unix.AF_INET
			if _, six := to.(*unix.SockaddrInet6); six {
				family = unix.AF_INET6
			}
			messages, dials := s.open(family, unix.SOCK_DGRAM), s.open(family, unix.SOCK_STREAM)
			s.must(unix.BindToDevice(messages, "eth0"))
			s.must(unix.BindToDevice(dials, "eth0"))
			if err := unix.Sendto(messages, []byte("for this machine"), 0, to); !errors.Is(err, syscall.EPERM) {
				t.Errorf("a message to %+v: %v", to, err)
			}
			if err := unix.Connect(dials, to); err == nil {
				t.Errorf("connected to %+v", to)
			}
		}
	})
	nothingLeft(t, p, capture)
}

// The engine takes what comes from the cluster's resolver for its answer, and a
// socket may have that address although it is elsewhere.
func TestD02NobodyInThePodAnswersForTheClustersResolver(t *testing.T) {
	p := pod(t, "--free", "10.77.0.2,fd77::2")
	resolver := &unix.SockaddrInet6{Port: 53, Addr: p.Cluster6.As16()}
	here := &unix.SockaddrInet6{Port: 40053, Addr: p.Pod6.As16()}
	p.Do(func() {
		s := sockets{t}
		asks, forges := s.open(unix.AF_INET6, unix.SOCK_DGRAM), s.open(unix.AF_INET6, unix.SOCK_DGRAM)
		wait := unix.NsecToTimeval(int64(patience))
		s.must(errors.Join(mark(asks), unix.SetNonblock(asks, false), unix.SetsockoptTimeval(asks, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)))
		s.must(errors.Join(unix.Bind(asks, here), unix.Connect(asks, resolver)))
		s.must(errors.Join(unix.SetsockoptInt(forges, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1), unix.Bind(forges, resolver)))
		// Before there is a question, and while it is under way.
		for range 2 {
			if err := unix.Sendto(forges, []byte("forged"), 0, here); !errors.Is(err, syscall.EPERM) {
				t.Errorf("answering for the resolver: %v", err)
			}
			_, err := unix.Write(asks, []byte("question"))
			s.must(err)
			buf := make([]byte, 100)
			n, err := unix.Read(asks, buf)
			if got := string(buf[:max(n, 0)]); got != "world\n" {
				t.Errorf("the engine was answered %q, %v", got, err)
			}
		}
	})
}

// A packet may say by which machines it goes (a segment routing header), and
// name this one first: that is where the rules see it going. What a node of such
// a network is told by sysctls has it go on from here.
func TestE03NothingGoesOnFromHere(t *testing.T) {
	p := pod(t, "--free", "10.77.0.2,fd77::2")
	capture := p.Capture(t)
	p.Do(func() {
		s := sockets{t}
		for _, name := range []string{"all/forwarding", "all/seg6_enabled", "lo/seg6_enabled"} {
			s.must(os.WriteFile("/proc/sys/net/ipv6/conf/"+name, []byte("1"), 0o600))
		}
		for _, first := range [][16]byte{{15: 1}, p.Pod6.As16()} {
			// RFC 8754 section 2: one segment left of two, the last of which is the destination.
			header := append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, make([]byte, 16)...)
			header = append(header, first[:]...)
			fd := s.open(unix.AF_INET6, unix.SOCK_DGRAM)
			s.must(unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_RTHDR, string(header)))
			s.must(unix.Sendto(fd, []byte("what was stolen"), 0, &unix.SockaddrInet6{Port: 7000, Addr: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 9}}))
		}
	})
	nothingLeft(t, p, capture)
}
