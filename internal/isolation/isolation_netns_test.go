//go:build netns

package isolation

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// The child of these tests is the test binary.
const childArg = "isolated-child"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childArg {
		code, err := Child(os.Args[2], os.Environ())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	if len(os.Args) == 4 && os.Args[1] == faultArg {
		if err := faultyChild(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	if len(os.Args) == 3 && os.Args[1] == "mute" {
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func begin(t *testing.T) *Namespace {
	t.Helper()
	n, err := Start([]string{"test", childArg})
	if err != nil {
		t.Fatalf("this machine does not let this user have namespaces: %v", err)
	}
	t.Cleanup(n.Close)
	return n
}

func prepared(t *testing.T) (*Namespace, *Listeners) {
	t.Helper()
	n := begin(t)
	l, err := n.Prepare(Files{ResolvConf: resolvConf(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return n, l
}

func resolvConf(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(name, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The original destination of a connection is asked of the socket's namespace,
// whichever the asker is in.
func TestARedirectedConnectionIsReadFromOutside(t *testing.T) {
	n, l := prepared(t)
	bash := "exec 3<>/dev/tcp/203.0.113.9/8443; echo hello >&3; read line <&3; [ \"$line\" = back ]"
	if err := n.Run(Command{Path: "/bin/bash", Args: []string{"bash", "-c", bash}, Env: []string{"PATH=/bin:/usr/bin"}}); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Transparent[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dst, err := intake.OriginalDst(conn.(*net.TCPConn))
	if want := netip.MustParseAddrPort("203.0.113.9:8443"); err != nil || dst != want {
		t.Errorf("meant for %v, %v; want %v", dst, err, want)
	}
	buf := make([]byte, 16)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "hello\n" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if _, err := conn.Write([]byte("back\n")); err != nil {
		t.Error(err)
	}
	if code, err := n.Wait(); code != 0 || err != nil {
		t.Errorf("ended with %d, %v", code, err)
	}
}

func TestWhatTheEngineGets(t *testing.T) {
	_, l := prepared(t)
	want := "[127.0.0.1:14128 127.0.0.1:14443 [::1]:14443 127.0.0.1:14053 [::1]:14053]"
	if got := fmt.Sprint(l.Addresses()); got != want || !l.IPv6() || len(l.DNSPacket) != 2 {
		t.Errorf("%s, %d for DNS over UDP", got, len(l.DNSPacket))
	}
	if got := l.Forward.Addr().String(); got != ForwardAddr().String() {
		t.Errorf("the forward proxy is at %s", got)
	}
	// The ports are free here: they are of another network.
	ln, err := net.Listen("tcp", ForwardAddr().String())
	if err != nil {
		t.Errorf("the port is taken out here: %v", err)
	} else {
		ln.Close()
	}
}

func TestWhatCannotBeMadeIsNoIsolation(t *testing.T) {
	for name, c := range map[string]struct {
		files Files
		says  string
	}{
		"a directory cannot be hidden": {Files{Hidden: []string{"/"}}, "hiding /: "},
		"a key that is not there":      {Files{Hidden: []string{"/no/such/key"}}, "hiding /no/such/key: "},
		"a policy that is not there":   {Files{ReadOnly: []string{"/no/such/policy"}}, "making /no/such/policy read-only: "},
		"no resolv.conf":               {Files{ResolvConf: "/dev"}, "replacing /etc/resolv.conf: "},
	} {
		t.Run(name, func(t *testing.T) {
			n := begin(t)
			l, err := n.Prepare(c.files)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, %v; want %q", l, err, c.says)
			}
			if err := n.child.Process.Signal(syscall.Signal(0)); err == nil {
				t.Error("the child lives on")
			}
			if err := n.Run(Command{Path: "/bin/true"}); err == nil {
				t.Error("a command was started")
			}
		})
	}
}

func TestAChildThatSaysNothingIsNoIsolation(t *testing.T) {
	n, err := Start([]string{"test", "mute"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Prepare(Files{}); err == nil {
		t.Error("taken for isolated")
	}
}

func TestAProgramThatCannotRunIsSaid(t *testing.T) {
	n, _ := prepared(t)
	if err := n.Run(Command{Path: "/no/such/program", Args: []string{"x"}}); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("got %v", err)
	}
	n.Close()
	n.Close() // twice is once
}

// A child that is let go ends by itself.
func TestTheChildEndsWithTheControlSocket(t *testing.T) {
	for name, get := range map[string]func(*testing.T) *Namespace{
		"before": begin,
		"after":  func(t *testing.T) *Namespace { n, _ := prepared(t); return n },
	} {
		t.Run(name, func(t *testing.T) {
			n := get(t)
			_ = n.control.conn.Close()
			n.waited = true
			_ = n.child.Wait() // or the test hangs
		})
	}
}
