package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

func TestResolveFailures(t *testing.T) {
	for name, row := range map[string]struct {
		r    *names
		want string
	}{
		"no such name": {&names{}, "resolve_failed 502"},
		"no address":   {&names{answers: map[string][]string{originName: {}}}, "resolve_failed 502"},
		"too many":     {&names{answers: map[string][]string{originName: strings.Fields(strings.Repeat("127.0.0.1 ", 65))}}, "resolve_failed 502"},
		"timeout":      {&names{err: &net.DNSError{Err: "timed out", IsTimeout: true}}, "resolve_failed 504"},
	} {
		w := newWorld(t, nil, func(c *Config) { c.Resolver = row.r })
		_, err := w.sendTo(context.Background(), "https://"+originName, "GET / HTTP/1.1", nil)
		if err == nil {
			t.Fatalf("%s: sent", name)
		}
		if got := reason(t, err); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	w := newWorld(t, nil, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := w.sendTo(ctx, "https://"+originName, "GET / HTTP/1.1", nil)
	wantReason(t, err, "canceled 502")
}

func TestRaceTriesTheNextAddress(t *testing.T) {
	o := listen(t, nil, script(reply("ok")))
	n := &names{answers: map[string][]string{originName: {"127.0.0.2", "127.0.0.3", "127.0.0.1"}}}
	w := newWorld(t, nil, func(c *Config) { c.Resolver = n })
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if res = w.expect(res, err, "ok"); res.Addr != o.addr {
		t.Error(res.Addr)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, answer := range [][]string{{"127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}} {
		n.answers[originName] = answer
		_, err = w.sendTo(context.Background(), "http://"+originName+":"+url.PathEscape(strings.Split(closed.Addr().String(), ":")[1]), "GET / HTTP/1.1", nil)
		wantReason(t, err, "dial_failed 502")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = w.c.race(ctx, []netip.AddrPort{o.addr, o.addr}, func(netip.AddrPort) error { return nil })
	wantReason(t, err, "canceled 502")
}

func TestDialGivesTheSocket(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) { _, _ = io.WriteString(conn, "hello") })
	w := newWorld(t, nil, nil)
	a, err := canon.ParseAuthority(strings.TrimPrefix(o.url("https"), "https://"), 0)
	if err != nil {
		t.Fatal(err)
	}
	tunnel := func(a canon.Authority, r rule) (net.Conn, error) {
		req := new(canon.Request)
		req.FromTunnel(w.ids.Add(1), a)
		return w.c.Dial(context.Background(), tunnelPermit(t, req, r), w.receipt(req), req)
	}
	conn, err := tunnel(a, w.rule)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.(*net.TCPConn); !ok {
		t.Errorf("%T does not splice", conn)
	}
	if b, _ := io.ReadAll(conn); string(b) != "hello" {
		t.Error(b)
	}
	_ = conn.Close()
	_, err = tunnel(a, rule{})
	wantReason(t, err, "address_denied 403")
	req := new(canon.Request)
	req.FromTunnel(w.ids.Add(1), a)
	_, err = w.c.Send(context.Background(), tunnelPermit(t, req, w.rule), w.receipt(req), req, nil)
	wantReason(t, err, "upstream_unsendable 500")
}

func TestSystemResolverTakesNamesAsAbsolute(t *testing.T) {
	r := systemResolver(nil)
	var asked atomic.Int32
	r.dns.Dial = func(context.Context, string, string) (net.Conn, error) {
		asked.Add(1)
		return nil, errors.New("no network")
	}
	for _, name := range []string{"name.test", "no-such-name"} {
		asked.Store(0)
		if _, err := r.LookupNetIP(context.Background(), "ip", name); err == nil || !strings.Contains(err.Error(), name+".") {
			t.Errorf("%s: %v", name, err)
		}
		if asked.Load() == 0 {
			t.Errorf("%s: DNS was not asked", name)
		}
	}
}

// TestNamesOfOneLabelAreFoundInTheHostsFile takes the names of the machine it
// runs on: a container has its own in /etc/hosts.
func TestNamesOfOneLabelAreFoundInTheHostsFile(t *testing.T) {
	data, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	r := systemResolver(nil)
	r.dns.Dial = func(context.Context, string, string) (net.Conn, error) {
		t.Error("DNS was asked")
		return nil, errors.New("no network")
	}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		want, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, name := range f[1:] {
			if strings.Contains(name, ".") || name == "localhost" {
				continue
			}
			if got, err := r.LookupNetIP(context.Background(), "ip", name); err != nil || !slices.ContainsFunc(got, func(a netip.Addr) bool { return a.Unmap() == want }) {
				t.Errorf("%s: %v %v, want %v among them", name, got, err, want)
			}
		}
	}
}
