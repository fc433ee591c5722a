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
	"strings"
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
		DialContext:  dialOrigin,
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
	calls := &http.Transport{TLSClientConfig: transport.TLSClientConfig.Clone(), DisableCompression: true, ForceAttemptHTTP2: true, DialContext: dialOrigin}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", r.In.Host, r.In.Host
		},
		Transport:  byProtocol{transport, calls},
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
		if strings.HasPrefix(r.Host, pinnedHost) {
			tunnel(c, r.Host)
			return
		}
		tunnels.conns <- tls.Server(c, in)
	})
}

// dialOrigin knows all names: they are the origin's.
func dialOrigin(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

// byProtocol sends gRPC over HTTP/2 and all else over HTTP/1.1, as the origin's
// ports want it.
type byProtocol struct{ http1, http2 http.RoundTripper }

func (b byProtocol) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Content-Type") == "application/grpc" {
		return b.http2.RoundTrip(r)
	}
	return b.http1.RoundTrip(r)
}

// tunnel copies both ways until one ends, by the kernel.
func tunnel(c net.Conn, addr string) {
	defer c.Close()
	up, err := dialOrigin(context.Background(), "tcp", addr)
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{up, c}, {c, up}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
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
		if strings.HasPrefix(host, pinnedHost) {
			return goproxy.OkConnect, host
		}
		return mitm, host
	}))
	return p
}
