package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"

	"github.com/elazarl/goproxy"
)

// What this program is when it is started with -role: one of the peers that
// are Go libraries, put to use as their documentation says, with buffers pooled
// and idle connections kept.

// serveRole forwards everything to origin, whatever the name.
func serveRole(role, dir, addr, origin string) error {
	in, err := serverTLS(dir)
	if err != nil {
		return err
	}
	out, err := upstreamTLS(dir)
	if err != nil {
		return err
	}
	if role == floorName {
		return serveFloor(in, out, addr, origin)
	}
	transport := &http.Transport{
		TLSClientConfig: out, MaxIdleConnsPerHost: 1024, DisableCompression: true,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, // the origin speaks HTTP/1.1
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, origin)
		},
	}
	var h http.Handler
	switch role {
	case reverseName:
		h = reverseProxy(in, transport)
	case goproxyName:
		h = goproxyHandler(in, transport)
	default:
		return errors.New("-role: no such role")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: h, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}).Serve(ln)
}

// reverseProxy hijacks CONNECT and serves what is in the tunnel by a second
// http.Server with httputil.ReverseProxy.
func reverseProxy(in *tls.Config, transport *http.Transport) http.Handler {
	tunnels := &handedOver{conns: make(chan net.Conn)}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", r.In.Host, r.In.Host
		},
		Transport:  transport,
		BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 32<<10) }}},
		ErrorLog:   log.New(io.Discard, "", 0), // clients that go away
	}
	quiet := log.New(io.Discard, "", 0)
	go func() { log.Fatal((&http.Server{Handler: proxy, ErrorLog: quiet}).Serve(tunnels)) }()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			c.Close()
			return
		}
		tunnels.conns <- tls.Server(c, in)
	})
}

// handedOver is a listener of connections that were accepted elsewhere.
type handedOver struct{ conns chan net.Conn }

func (h *handedOver) Accept() (net.Conn, error) { return <-h.conns, nil }
func (h *handedOver) Close() error              { return nil }
func (h *handedOver) Addr() net.Addr            { return &net.TCPAddr{} }

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(p) } //nolint:staticcheck // the interface has slices

// goproxyHandler intercepts every CONNECT with goproxy's own machinery, but for
// the certificates, which are cached like everybody's.
func goproxyHandler(in *tls.Config, transport *http.Transport) http.Handler {
	p := goproxy.NewProxyHttpServer()
	p.Logger = log.New(io.Discard, "", 0)
	p.Tr = transport
	mitm := &goproxy.ConnectAction{
		Action:    goproxy.ConnectMitm,
		TLSConfig: func(string, *goproxy.ProxyCtx) (*tls.Config, error) { return in, nil },
	}
	p.OnRequest().HandleConnect(goproxy.FuncHttpsHandler(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return mitm, host
	}))
	return p
}
