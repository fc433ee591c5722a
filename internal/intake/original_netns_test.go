//go:build netns

package intake

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// accepted is the server's end of a connection to dial.
func accepted(t *testing.T, listen, dial string) *net.TCPConn {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if dial == "" {
		dial = ln.Addr().String()
	}
	client, err := net.Dial("tcp", dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func TestOriginalDstOfARedirectedConnection(t *testing.T) {
	for _, c := range []struct{ listen, dial string }{
		{"127.0.0.1:15001", "127.0.0.9:443"},
		{"[::1]:15001", "[::1]:443"},
		{"[::]:15001", "127.0.0.7:443"},
	} {
		t.Run(c.dial, func(t *testing.T) {
			want := netip.MustParseAddrPort(c.dial)
			netns.Redirect(t, want, 15001)
			got, err := OriginalDst(accepted(t, c.listen, c.dial))
			if err != nil || got != want {
				t.Errorf("got %v, %v; want %s", got, err, want)
			}
		})
	}
}

func TestE04APortDialledByHandIsNoWayIn(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		if dst, err := OriginalDst(accepted(t, addr, "")); err == nil {
			t.Errorf("%s: dialled by hand, taken for redirected to %s", addr, dst)
		}
	}
}
