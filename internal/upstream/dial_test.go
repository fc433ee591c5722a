package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestD01AddressesThatAreJudged(t *testing.T) {
	g, err := newGuard(prefixes("5.6.0.0/16"), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("[::]:9090")})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		addr    string
		allowed []netip.Prefix
		ok      bool
	}{
		{"1.1.1.1:443", nil, true},
		{"[2606:4700::1111]:443", nil, true},
		{"127.0.0.1:443", nil, false},
		{"127.9.9.9:443", nil, false},
		{"[::1]:443", nil, false},
		{"[::]:443", nil, false},
		{"0.0.0.0:443", nil, false},
		{"10.1.2.3:443", nil, false},
		{"172.31.0.1:443", nil, false},
		{"192.168.1.1:443", nil, false},
		{"169.254.169.254:80", nil, false},
		{"[fd00:ec2::254]:80", nil, false},
		{"100.100.100.200:80", nil, false},
		{"168.63.129.16:80", nil, false},
		{"[fe80::1]:443", nil, false},
		{"[fec0::1]:443", nil, false},
		{"[64:ff9b::7f00:1]:443", nil, false},
		{"[64:ff9b:1::1]:443", nil, false},
		{"[2002:7f00:1::]:443", nil, false},
		{"[2001::1]:443", nil, false},
		{"[ff02::1]:443", nil, false},
		{"[::ffff:10.0.0.1]:443", nil, false},
		{"[::ffff:1.1.1.1]:443", nil, true},
		{"[::127.0.0.1]:443", nil, false},
		{"224.0.0.1:443", nil, false},
		{"255.255.255.255:443", nil, false},
		{"5.6.7.8:443", nil, false},
		{"5.6.7.8:443", prefixes("5.6.7.0/24"), true},
		{"10.1.2.3:443", prefixes("10.1.0.0/16"), true},
		{"[::ffff:10.1.2.3]:443", prefixes("10.1.0.0/16"), true},
		{"10.2.2.3:443", prefixes("10.1.0.0/16"), false},
		{"127.0.0.1:443", prefixes("127.0.0.0/8"), true},
		{"127.0.0.1:8080", prefixes("127.0.0.0/8"), false}, // A18
		{"127.0.0.1:8080", prefixes("127.0.0.1/32"), true},
		{"127.0.0.1:9090", prefixes("127.0.0.0/8"), false},
		{"[::1]:9090", prefixes("::1/128"), true},
		{"1.1.1.1:9090", nil, true},
	} {
		err := g.judge(netip.MustParseAddrPort(row.addr), row.allowed)
		if (err == nil) != row.ok {
			t.Errorf("%s with %v: %v", row.addr, row.allowed, err)
		}
		if err != nil {
			wantReason(t, err, "address_denied 403")
		}
	}
	if g.judge(netip.AddrPort{}, nil) == nil || g.judge(netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth0"), 1), prefixes("fe80::/10")) == nil {
		t.Error("what is no address, or has a zone, passed")
	}
}

func TestD02MixedAnswersAreRefused(t *testing.T) {
	o := listen(t, nil, script(reply("no")))
	for _, answer := range [][]string{{"127.0.0.1", "10.0.0.1"}, {"10.0.0.1", "127.0.0.1"}, {"1.1.1.1", "::ffff:169.254.169.254"}, {"10.0.0.1"}} {
		n := &names{answers: map[string][]string{originName: answer}}
		w := newWorld(t, nil, func(c *Config) { c.Resolver = n })
		_, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
		wantReason(t, err, "address_denied 403")
	}
	if o.conns.Load() != 0 {
		t.Error("dialled")
	}
}

// rebinding answers with the next of its answers at each lookup.
type rebinding struct{ answers []string }

func (r *rebinding) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	a := netip.MustParseAddr(r.answers[0])
	r.answers = r.answers[1:]
	return []netip.Addr{a}, nil
}

func TestD02Rebinding(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	w := newWorld(t, nil, func(c *Config) { c.Resolver = &rebinding{[]string{"127.0.0.1", "10.0.0.1"}} })
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "")
	_, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "address_denied 403")
}

func TestD01TheSocketJudgesAgain(t *testing.T) {
	o := listen(t, nil, script(reply("no")))
	w := newWorld(t, nil, nil)
	judged := 0
	_, _, err := w.c.race(context.Background(), []netip.AddrPort{o.addr}, func(ap netip.AddrPort) error {
		judged++
		return w.c.guard.judge(ap, nil)
	})
	wantReason(t, err, "address_denied 403")
	if judged != 1 || o.conns.Load() != 0 {
		t.Error("connected")
	}
}

func TestD08AConnectionIsNotUsedForAnotherRule(t *testing.T) {
	o := listen(t, nil, script(reply("ok"), reply("ok")))
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "ok")
	was := w.rule
	w.rule.addresses = nil
	_, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "address_denied 403")
	w.rule.addresses = []string{"127.0.0.1/32"}
	res, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	if res = w.expect(res, err, "ok"); res.Reused {
		t.Error("used for another rule")
	}
	w.rule = was
	res, err = w.sendPlain(o, "GET / HTTP/1.1", &SendOptions{Principal: "another"})
	if res = w.expect(res, err, "ok"); res.Reused {
		t.Error("used for another principal")
	}
}

func TestD10NothingHappensWithoutPermitAndReceipt(t *testing.T) {
	n := loopback()
	o := listen(t, nil, script(reply("no")))
	w := newWorld(t, nil, func(c *Config) { c.Resolver = n })
	req := w.request(o.url("http"), "GET / HTTP/1.1")
	other := w.request(o.url("http"), "GET / HTTP/1.1")
	ctx, opts := context.Background(), &SendOptions{}
	good := permit(t, req, w.rule)
	for name, send := range map[string]func() error{
		"no request":              func() error { _, err := w.c.Send(ctx, good, audit.Receipt{}, nil, opts); return err },
		"no permit":               func() error { _, err := w.c.Send(ctx, policy.Permit{}, w.receipt(req), req, opts); return err },
		"no receipt":              func() error { _, err := w.c.Send(ctx, good, audit.Receipt{}, req, opts); return err },
		"a permit for another":    func() error { _, err := w.c.Send(ctx, permit(t, other, w.rule), w.receipt(req), req, opts); return err },
		"a receipt for another":   func() error { _, err := w.c.Send(ctx, good, w.receipt(other), req, opts); return err },
		"Dial without permit":     func() error { _, err := w.c.Dial(ctx, policy.Permit{}, w.receipt(req), req); return err },
		"Dial for a mere request": func() error { _, err := w.c.Dial(ctx, good, w.receipt(req), req); return err },
	} {
		if err := send(); err == nil {
			t.Errorf("%s: sent", name)
		} else if r := reason(t, err); r != "upstream_not_permitted 500" {
			t.Errorf("%s: %s", name, r)
		}
	}
	if n.count() != 0 || o.conns.Load() != 0 {
		t.Error("resolved or dialled")
	}
}

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

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{
		{Proxy: &url.URL{Scheme: "socks5", Host: "p:1"}},
		{Proxy: &url.URL{Scheme: "http"}},
		{DenyCIDRs: []netip.Prefix{{}}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	w := newWorld(t, nil, nil)
	w.c.Close()
	_, err = w.sendTo(context.Background(), "https://"+originName, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_client_closed 503")
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

// corporate is a proxy that connects wherever it is asked to.
func corporate(t *testing.T, conf *tls.Config, answer string, asked chan<- string) *origin {
	return listen(t, conf, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		asked <- req.Method + " " + req.RequestURI + " " + req.Header.Get("Proxy-Authorization")
		if _, err := io.WriteString(conn, answer); err != nil || !strings.Contains(answer, "200") {
			return
		}
		host := req.RequestURI
		if h, p, _ := net.SplitHostPort(host); h == originName {
			host = "127.0.0.1:" + p
		}
		to, err := net.Dial("tcp", host)
		if err != nil {
			return
		}
		defer to.Close()
		done := make(chan struct{})
		go func() { _, _ = io.Copy(to, br); _ = to.(*net.TCPConn).CloseWrite(); close(done) }()
		_, _ = io.Copy(conn, to)
		_ = conn.Close()
		<-done
	})
}

func TestUpstreamProxy(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	const established = "HTTP/1.1 200 Connection established\r\n\r\n"
	for _, scheme := range []string{"http", "https"} {
		o := listen(t, conf, script(reply("1"), reply("2")))
		asked := make(chan string, 4)
		var pconf *tls.Config
		if scheme == "https" {
			pconf = conf
		}
		p := corporate(t, pconf, established, asked)
		u := &url.URL{Scheme: scheme, Host: p.addr.String(), User: url.UserPassword("user", "pass")}
		w := newWorld(t, ca, func(c *Config) { c.Proxy = u })
		w.get(o, "1")
		if res := w.get(o, "2"); !res.Reused || res.Addr != o.addr {
			t.Errorf("%+v", res)
		}
		if got := <-asked; got != "CONNECT "+o.addr.String()+" Basic dXNlcjpwYXNz" {
			t.Errorf("the proxy was asked for %q", got)
		}
		w.rule.addresses = nil
		_, err := w.send(o, "GET / HTTP/1.1", nil)
		wantReason(t, err, "address_denied 403") // the proxy's own address is not judged, the target's is
		w.rule.addresses = []string{"127.0.0.0/8"}

		w = newWorld(t, ca, func(c *Config) { c.Proxy, c.ProxyBypass = u, []string{originName} })
		w.get(o, "1")
		n := loopback()
		w = newWorld(t, ca, func(c *Config) { c.Proxy, c.ProxyResolves, c.Resolver = u, true, n })
		w.get(o, "1")
		if got := <-asked; !strings.HasPrefix(got, "CONNECT "+originName+":") || n.count() != 0 {
			t.Errorf("%q after %d lookups", got, n.count())
		}
	}
}

// held keeps what is written until let, so that it is one segment.
type held struct {
	net.Conn
	hold bool
	kept []byte
}

func (h *held) Write(p []byte) (int, error) {
	if h.hold {
		h.kept = append(h.kept, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func (h *held) let() {
	h.hold = false
	_, _ = h.Conn.Write(h.kept)
}

func TestS19SurplusInTheTLSToAnUpstreamProxyIsNeverReused(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	for _, scheme := range []string{"http", "https"} {
		p := listen(t, nil, func(tcp net.Conn) {
			h := &held{Conn: tcp}
			var conn net.Conn = tls.Server(h, conf)
			if _, err := readHead(bufio.NewReader(conn)); err != nil {
				return
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
				return
			}
			if scheme == "https" {
				conn = tls.Server(conn, conf)
			}
			br := bufio.NewReader(conn)
			if _, err := readHead(br); err != nil {
				return
			}
			h.hold = true // two records of the proxy's, which arrive together
			_, _ = io.WriteString(conn, reply("ok"))
			_, _ = io.WriteString(conn, reply("poison"))
			h.let()
			_, _ = io.Copy(io.Discard, br)
		})
		w := newWorld(t, ca, func(c *Config) { c.Proxy = &url.URL{Scheme: "https", Host: p.addr.String()} })
		for range 2 {
			res, err := w.sendTo(t.Context(), p.url(scheme), "GET / HTTP/1.1", nil)
			w.expect(res, err, "ok")
		}
		if n := p.conns.Load(); n != 2 {
			t.Errorf("%s: %d connections, want one for each request", scheme, n)
		}
	}
}

func TestUpstreamProxyThatFails(t *testing.T) {
	ca := newAuthority(t)
	o := listen(t, nil, script(reply("no")))
	for answer, want := range map[string]string{
		"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n": "upstream_proxy_refused 502",
		"HTTP/1.1 200 OK\r\n\r\nsurplus 200":                 "upstream_proxy_failed 502",
		"garbage\r\n\r\n":                                    "upstream_proxy_failed 502",
		"":                                                   "upstream_proxy_failed 502",
	} {
		p := corporate(t, nil, answer, make(chan string, 4))
		w := newWorld(t, ca, func(c *Config) { c.Proxy = &url.URL{Scheme: "http", Host: p.addr.String()} })
		_, err := w.send(o, "GET / HTTP/1.1", nil)
		if err == nil {
			t.Fatalf("%q: sent", answer)
		}
		if got := reason(t, err); got != want {
			t.Errorf("%q: %s, want %s", answer, got, want)
		}
	}
	plain := listen(t, nil, func(conn net.Conn) { _, _ = io.WriteString(conn, "this is not TLS\r\n") })
	w := newWorld(t, ca, func(c *Config) { c.Proxy = &url.URL{Scheme: "https", Host: plain.addr.String()} })
	_, err := w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_proxy_failed 502") // it speaks no TLS
	stop := make(chan struct{})
	defer close(stop)
	silent := listen(t, nil, func(net.Conn) { <-stop })
	w = newWorld(t, ca, func(c *Config) {
		c.Proxy, c.ConnectTimeout, c.HandshakeTimeout = &url.URL{Scheme: "http", Host: silent.addr.String()}, 10*time.Millisecond, 10*time.Millisecond
	})
	_, err = w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_timeout 504")
	w = newWorld(t, ca, func(c *Config) { c.Proxy = &url.URL{Scheme: "http", Host: "127.0.0.1:1"} })
	_, err = w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "dial_failed 502")
}

func TestBypass(t *testing.T) {
	name := func(s string) target { return target{host: s} }
	literal := func(s string) target { return target{host: s, addr: netip.MustParseAddr(s)} }
	for _, row := range []struct {
		pattern string
		to      target
		want    bool
	}{
		{"a.test", name("a.test"), true},
		{"a.test", name("b.a.test"), false},
		{".a.test", name("b.a.test"), true},
		{"*.a.test", name("b.a.test"), true},
		{"*.a.test", name("a.test"), false},
		{".a.test", name("evila.test"), false},
		{"*", name("x"), true},
		{"10.0.0.0/8", literal("10.1.1.1"), true},
		{"10.0.0.0/8", literal("11.1.1.1"), false},
	} {
		if got := bypassed([]string{row.pattern}, row.to); got != row.want {
			t.Errorf("%s by %s: %v", row.to.host, row.pattern, got)
		}
	}
}
