package upstream

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

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
