package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/AdguardTeam/gomitmproxy"
	gomitm "github.com/AdguardTeam/gomitmproxy/mitm"
	"github.com/AdguardTeam/gomitmproxy/proxyutil"
	"github.com/elazarl/goproxy"
	"github.com/google/martian/v3"
	"github.com/google/martian/v3/httpspec"
	martianlog "github.com/google/martian/v3/log"
	martianmitm "github.com/google/martian/v3/mitm"
	martianutil "github.com/google/martian/v3/proxyutil"
)

// What this program is when it is started with -role: a peer that is a Go
// library, put to use as its documentation says.

const (
	goproxyName     = "goproxy"
	martianName     = "martian"
	gomitmproxyName = "gomitmproxy"
)

// goPeer is a peer that this program is.
func goPeer(name, module string, lacks need, port int, how string) find {
	return func(_ context.Context, wanted func(string) bool) (proxy, error) {
		if !wanted(name) {
			return proxy{}, errNotWanted
		}
		return proxy{name: name, version: moduleVersion(module), lacks: lacks, how: how, port: port, command: func(l *lab, dir, addr string) (*exec.Cmd, error) {
			cmd := l.role(name, dir, addr)
			cmd.Args = append(cmd.Args, "-upstream", strconv.Itoa(l.up.port))
			return cmd, l.hostsFiles(dir)
		}}, nil
	}
}

// goRules is what an operator writes in Go: names from a list, methods and paths
// as net/http hands them over.
type goRules struct {
	class map[string]class
	port  string // that tunnels may lead to
}

func readGoRules(dir, port string) (goRules, error) {
	g := goRules{map[string]class{}, port}
	for _, c := range classes() {
		data, err := os.ReadFile(filepath.Join(dir, "hosts-"+string(c)))
		if err != nil {
			return g, err
		}
		for name := range strings.FieldsSeq(string(data)) {
			g.class[name] = c
		}
	}
	return g, nil
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.ToLower(host)
}

// connects reports whether a tunnel to target may be opened.
func (g goRules) connects(target string) bool {
	return g.class[hostOf(target)] != "" && portOf(target) == g.port
}

// allows reports whether r may be forwarded.
func (g goRules) allows(r *http.Request) bool {
	if r.URL.Scheme != "https" || r.URL.Host != "" && !strings.EqualFold(r.URL.Host, r.Host) {
		return false
	}
	if r.TLS != nil && !strings.EqualFold(r.TLS.ServerName, hostOf(r.Host)) {
		return false
	}
	if path.Clean(r.URL.Path) != r.URL.Path {
		return false
	}
	chat := r.Method == http.MethodPost && r.URL.Path == chatPath
	files := r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/files/")
	switch g.class[hostOf(r.Host)] {
	case api, inside, mixed, rebind:
		return chat || files
	case socket:
		return r.Method == http.MethodGet && r.URL.Path == "/socket"
	case judged:
		return chat && goodModel(r)
	default:
		return false
	}
}

const judgedLimit = 4 << 10 // bytes

// goodModel reads the body and puts it back.
func goodModel(r *http.Request) bool {
	body, err := io.ReadAll(io.LimitReader(r.Body, judgedLimit+1))
	if err != nil || len(body) > judgedLimit {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var chat struct {
		Model string `json:"model"`
	}
	return json.Unmarshal(body, &chat) == nil && chat.Model == "good"
}

// goParts is what every Go peer is made of.
type goParts struct {
	rules     goRules
	ca        tls.Certificate
	dns       *lookups
	transport *http.Transport
}

func newGoParts(o options) (p goParts, err error) {
	port := o.upstream
	if o.role == gomitmproxyName {
		port = "443"
	}
	if p.rules, err = readGoRules(o.dir, port); err != nil {
		return p, err
	}
	pair := filepath.Join(o.keys, caPairFile)
	if o.role == goproxyName {
		pair = filepath.Join(o.keys, ecPairFile)
	}
	if p.ca, err = tls.LoadX509KeyPair(pair, pair); err != nil {
		return p, err
	}
	if p.dns, err = newLookups(o.dir); err != nil {
		return p, err
	}
	p.dns.port = o.upstream
	roots, err := rootsOf(o.keys)
	p.transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: p.dns.dial, ExpectContinueTimeout: time.Second,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	return p, err
}

func serveGoproxy(o options) error {
	parts, err := newGoParts(o)
	if err != nil {
		return err
	}
	p := goproxy.NewProxyHttpServer()
	p.Logger = log.New(io.Discard, "", 0)
	p.Tr = parts.transport
	p.ConnectDial = func(network, addr string) (net.Conn, error) {
		return parts.dns.dial(context.Background(), network, addr)
	}
	mitm := &goproxy.ConnectAction{Action: goproxy.ConnectMitm, TLSConfig: goproxy.TLSConfigFromCA(&parts.ca)}
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		switch {
		case !parts.rules.connects(host):
			return goproxy.RejectConnect, host
		case parts.rules.class[hostOf(host)] == pinned:
			return goproxy.OkConnect, host
		}
		return mitm, host
	})
	p.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		if parts.rules.allows(r) {
			return r, nil
		}
		return r, goproxy.NewResponse(r, goproxy.ContentTypeText, http.StatusForbidden, "denied")
	})
	ln, err := net.Listen("tcp4", o.listen)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}).Serve(ln)
}

// martianRules are the policy as a martian modifier, which can refuse by not
// making the round trip, and a CONNECT by taking the connection.
type martianRules struct{ goRules }

func (m martianRules) ModifyRequest(r *http.Request) error {
	ctx := martian.NewContext(r)
	if r.Method == http.MethodConnect {
		if m.connects(r.Host) {
			return nil
		}
		conn, _, err := ctx.Session().Hijack()
		if err != nil {
			return err
		}
		_, err = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return errors.Join(err, conn.Close())
	}
	if !m.allows(r) {
		ctx.SkipRoundTrip()
		ctx.Set("denied", true)
	}
	return nil
}

func (m martianRules) ModifyResponse(r *http.Response) error {
	if _, denied := martian.NewContext(r.Request).Get("denied"); denied {
		*r = *martianutil.NewResponse(http.StatusForbidden, nil, r.Request)
		r.Close = true
	}
	return nil
}

func serveMartian(o options) error {
	parts, err := newGoParts(o)
	if err != nil {
		return err
	}
	martianlog.SetLevel(martianlog.Silent)
	p := martian.NewProxy()
	p.SetDial(func(network, addr string) (net.Conn, error) {
		return parts.dns.dial(context.Background(), network, addr)
	})
	parts.transport.DialContext = nil // martian sets Dial
	p.SetRoundTripper(parts.transport)
	mc, err := martianmitm.NewConfig(parts.ca.Leaf, parts.ca.PrivateKey)
	if err != nil {
		return err
	}
	p.SetMITM(mc)
	stack, rules := httpspec.NewStack("martian")
	rules.AddRequestModifier(martianRules{parts.rules})
	rules.AddResponseModifier(martianRules{parts.rules})
	p.SetRequestModifier(stack)
	p.SetResponseModifier(stack)
	ln, err := net.Listen("tcp4", o.listen)
	if err != nil {
		return err
	}
	return p.Serve(ln)
}

// serveGomitmproxy is the rival under the GPL. Its transport cannot be told a
// dialler or roots: the system's roots are set by SSL_CERT_FILE, and names are
// reached through a forwarder that HTTPS_PROXY names.
func serveGomitmproxy(o options) error {
	parts, err := newGoParts(o)
	if err != nil {
		return err
	}
	forwarder, err := forward(parts.dns)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"HTTPS_PROXY": "http://" + forwarder, "HTTP_PROXY": "http://" + forwarder, "SSL_CERT_FILE": filepath.Join(o.keys, rootFile)} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	key, ok := parts.ca.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return errors.New("gomitmproxy takes an RSA key alone")
	}
	mc, err := gomitm.NewConfig(parts.ca.Leaf, key, nil)
	if err != nil {
		return err
	}
	addr, err := net.ResolveTCPAddr("tcp4", o.listen)
	if err != nil {
		return err
	}
	var exceptions []string
	for name, c := range parts.rules.class {
		if c == pinned {
			exceptions = append(exceptions, name)
		}
	}
	p := gomitmproxy.NewProxy(gomitmproxy.Config{
		ListenAddr: addr, MITMConfig: mc, MITMExceptions: exceptions,
		OnConnect: func(_ *gomitmproxy.Session, network, addr string) net.Conn {
			conn, err := parts.dns.dial(context.Background(), network, addr)
			if err != nil {
				return nil
			}
			return conn
		},
		OnRequest: func(s *gomitmproxy.Session) (*http.Request, *http.Response) {
			r := s.Request()
			if r.Method == http.MethodConnect && parts.rules.connects(r.Host) || r.Method != http.MethodConnect && parts.rules.allows(r) {
				return nil, nil
			}
			res := proxyutil.NewResponse(http.StatusForbidden, nil, r)
			res.Close = true
			return nil, res
		},
	})
	if err := p.Start(); err != nil {
		return err
	}
	select {} // until it is killed
}

// forward serves a CONNECT proxy that asks dns, and returns its address.
func forward(dns *lookups) (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway) // plain http is allowed by no rule
			return
		}
		out, err := dns.dial(r.Context(), "tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer out.Close()
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		if _, err := io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(out, in) // either side's end is the tunnel's
			endWrites(out)
		}()
		_, _ = io.Copy(in, out)
	})}
	go func() { _ = srv.Serve(ln) }()
	return ln.Addr().String(), nil
}
