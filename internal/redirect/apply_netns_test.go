//go:build netns

package redirect

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// cleanNamespace leaves the namespace without rules, before and after.
func cleanNamespace(t *testing.T) *nftables.Conn {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	empty := func() {
		c.FlushRuleset()
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	}
	empty()
	t.Cleanup(empty)
	return c
}

func apply(t *testing.T, r Rules) {
	t.Helper()
	if err := r.Apply(); err != nil {
		t.Fatal(err)
	}
}

// The golden files are what the kernel says, not what we meant to say.
func TestTheKernelListsWhatWasApplied(t *testing.T) {
	for name, r := range map[string]Rules{"namespace.txt": namespaceRules(), "pod.txt": podRules()} {
		t.Run(name, func(t *testing.T) {
			cleanNamespace(t)
			for range 2 { // to apply twice is to apply once
				apply(t, r)
				got, err := List()
				if err != nil || got != golden(t, name) {
					t.Errorf("%v, listed:\n%s", err, got)
				}
				if err := r.Check(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestApplyReplacesWhatWasThere(t *testing.T) {
	c := cleanNamespace(t)
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "others"})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	apply(t, podRules())
	apply(t, namespaceRules())
	if err := namespaceRules().Check(); err != nil {
		t.Error(err)
	}
	tables, err := c.ListTables()
	if err != nil || len(tables) != 2 {
		t.Errorf("%d tables, %v; another's table was not to be touched", len(tables), err)
	}
}

func TestCheckNamesWhatDiffers(t *testing.T) {
	ours := func(c *nftables.Conn, name string) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: table()}
	}
	for name, change := range map[string]struct {
		do   func(*nftables.Conn)
		says string
	}{
		"the table is gone": {func(c *nftables.Conn) { c.DelTable(table()) }, "missing: table inet aegrail {"},
		"a chain is empty":  {func(c *nftables.Conn) { c.FlushChain(ours(c, "divert")) }, "missing: meta l4proto tcp redirect to :14443"},
		"a hole in front": {func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: table(), Chain: ours(c, "confine"), Exprs: rule(marked(1000), verdict(expr.VerdictAccept))})
		}, "not ours: meta mark 0x3e8 accept"},
		"a policy that accepts": {func(c *nftables.Conn) {
			accept := nftables.ChainPolicyAccept
			chain := namespaceRules()
			ch := chain.chains(table())[1].Chain
			ch.Policy = &accept
			c.AddChain(ch)
		}, "missing: type filter hook output priority 0; policy drop;"},
		"an expression that we never use": {func(c *nftables.Conn) {
			c.AddRule(&nftables.Rule{Table: table(), Chain: ours(c, "confine"), Exprs: rule([]expr.Any{&expr.Counter{}}, verdict(expr.VerdictAccept))})
		}, "not ours: *expr.Counter"},
		"a chain beside ours": {func(c *nftables.Conn) { c.AddChain(ours(c, "more")) }, "not ours: chain more {"},
		"another order": {func(c *nftables.Conn) {
			r := namespaceRules()
			ch := r.chains(table())[0]
			c.FlushChain(ch.Chain)
			for i := range ch.rules {
				c.InsertRule(&nftables.Rule{Table: table(), Chain: ch.Chain, Exprs: ch.rules[i]})
			}
		}, "the same lines in another order"},
	} {
		t.Run(name, func(t *testing.T) {
			c := cleanNamespace(t)
			apply(t, namespaceRules())
			change.do(c)
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := namespaceRules().Check(); err == nil || !strings.Contains(err.Error(), change.says) {
				t.Errorf("got %v, want %q", err, change.says)
			}
		})
	}
}

// carrying is a dialler of sockets with a mark.
func carrying(mark int) *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }), err)
	}}
}

// answered asks for DNS at 127.0.0.1 by a socket with a mark, where every one is
// diverted but the engine's.
func answered(t *testing.T, r Rules, mark int) bool {
	t.Helper()
	cleanNamespace(t)
	apply(t, r)
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(r.DNS)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := carrying(mark).Dial("udp4", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(time.Minute))
	go func() {
		_, from, err := server.ReadFrom(make([]byte, 16))
		if err == nil {
			_, _ = server.WriteTo([]byte("!"), from)
		}
	}()
	_, err = client.Read(make([]byte, 16))
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	return err == nil
}

func TestOnlyTheEnginesMarkIsNotDiverted(t *testing.T) {
	rules := Rules{Transparent: 1, DNS: 15053, Mark: 0x306e}
	// Every bit of it counts, and what others set does not.
	for _, mark := range []int{0, 1, 0x306f, 0x2306e, 0x306e << 16, 0xae6, 0x4000} {
		if !answered(t, rules, mark) {
			t.Errorf("a socket with the mark %#x went by the resolver", mark)
		}
	}
	if answered(t, rules, 0x306e) {
		t.Error("the engine's socket was diverted")
	}
	if rules.Mark = 0; !answered(t, rules, 0) || !answered(t, rules, 0x306e) {
		t.Error("where no mark is let out, one is")
	}
}

func TestE04AProtectedPortIsClosedAndOthersOfLoopbackAreNot(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	dial := func(r Rules, mark int) error {
		cleanNamespace(t)
		apply(t, r)
		conn, err := carrying(mark).Dial("tcp", ln.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(Rules{Transparent: 1, DNS: 2, Protected: []uint16{port}}, 0); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a protected port: %v", err)
	}
	if err := dial(Rules{Transparent: 1, DNS: 2, Protected: []uint16{port}, Mark: 7}, 0); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a protected port beside the engine: %v", err)
	}
	if err := dial(Rules{Transparent: 1, DNS: 2}, 0); err != nil {
		t.Errorf("an open port: %v", err)
	}
}
