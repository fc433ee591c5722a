//go:build netns

package passage

import (
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// kernels is a pair that marks as the kernel has it.
func kernels(t testing.TB) *pair {
	p := pairOf(t, new(notes), &Server{EngineUID: own()})
	p.marked = isMarked
	return p
}

func TestTheKernelHasTheMark(t *testing.T) {
	p := kernels(t)
	for _, network := range []string{"tcp", "udp"} {
		conn, err := p.DialContext(t.Context(), network, echo(t, "tcp4", "127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); got != Mark || err != nil {
				t.Errorf("%s: the mark is %#x, %v", network, got, err)
			}
		})
		conn.Close()
	}
}

// A connection over loopback, with and without the question before it.
func BenchmarkDial(b *testing.B) {
	to := echo(b, "tcp4", "127.0.0.1:0")
	p := kernels(b)
	dial := func(b *testing.B, d func() error) {
		b.ReportAllocs()
		for b.Loop() {
			if err := d(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("marked", func(b *testing.B) {
		dial(b, func() error {
			conn, err := p.DialContext(b.Context(), "tcp", to)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
	})
	b.Run("plain", func(b *testing.B) {
		dial(b, func() error {
			conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", to)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
	})
}
