package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Authority returns host with the port of its origin, for a URL, a CONNECT or
// a Host field. A host that has a port already, or no origin, stays as it is.
func (e *Engine) Authority(host string) string {
	if o := e.origins[host]; o != nil {
		return fmt.Sprintf("%s:%d", host, o.Addr.Port())
	}
	return host
}

// URL returns the address of path at host's origin: "https://host:port/path".
func (e *Engine) URL(host, path string) string {
	scheme := "https"
	if o := e.origins[host]; o != nil && !o.tls {
		scheme = "http"
	}
	return scheme + "://" + e.Authority(host) + path
}

// Client returns a client that goes through the engine, trusts its authority
// alone, speaks HTTP/1.1, follows no redirect and decodes nothing.
func (e *Engine) Client(tb testing.TB) *http.Client {
	tb.Helper()
	return e.client(tb, new(http.Protocols), "")
}

// ClientH2 is Client over HTTP/2, and HTTP/1.1 where the engine offers no
// HTTP/2.
func (e *Engine) ClientH2(tb testing.TB) *http.Client {
	tb.Helper()
	return e.ClientH2As(tb, "")
}

// ClientAs is Client for a proxy that asks who is there: name goes into
// Proxy-Authorization, where Options.Agents looks for it.
func (e *Engine) ClientAs(tb testing.TB, name string) *http.Client {
	tb.Helper()
	return e.client(tb, new(http.Protocols), name)
}

// ClientH2As is ClientH2 with a name.
func (e *Engine) ClientH2As(tb testing.TB, name string) *http.Client {
	tb.Helper()
	p := new(http.Protocols)
	p.SetHTTP2(true)
	return e.client(tb, p, name)
}

func (e *Engine) client(tb testing.TB, p *http.Protocols, name string) *http.Client {
	tb.Helper()
	p.SetHTTP1(true)
	proxy := &url.URL{Scheme: "http", Host: e.Addr}
	if name != "" {
		proxy.User = url.UserPassword(name, "")
	}
	transport := &http.Transport{
		Proxy:              http.ProxyURL(proxy),
		TLSClientConfig:    &tls.Config{RootCAs: e.CAPool},
		Protocols:          p,
		DisableCompression: true,
	}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Reply is a response, read whole.
type Reply struct {
	Status  int
	Proto   string
	Header  http.Header
	Body    string
	Trailer http.Header
	Close   bool // it says that the connection ends with it
}

// Reason returns the reason code of a refusal, "" of anything else.
func (r *Reply) Reason() string { return r.Header.Get("X-Aegrail-Reason") }

// Do makes one request through the engine with c and reads the answer whole.
// path may have a query. Fields are "Name: value".
func (e *Engine) Do(tb testing.TB, c *http.Client, method, host, path, body string, fields ...string) *Reply {
	tb.Helper()
	r, err := e.Try(tb, c, method, host, path, body, fields...)
	if err != nil {
		tb.Fatalf("%s %s: %v\nthe log is:\n%s", method, e.URL(host, path), err, e.Dump(tb))
	}
	return r
}

// Try is Do for requests that may come to nothing.
func (e *Engine) Try(tb testing.TB, c *http.Client, method, host, path, body string, fields ...string) (*Reply, error) {
	tb.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, e.URL(host, path), content)
	if err != nil {
		tb.Fatalf("the test's request: %v", err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	return readReply(resp)
}

func readReply(resp *http.Response) (*Reply, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &Reply{Status: resp.StatusCode, Proto: resp.Proto, Header: resp.Header, Body: string(body), Trailer: resp.Trailer, Close: resp.Close}, err
}

// Conn is a client's connection in a test's own hands: what is written goes out
// byte for byte. Nothing waits on it for longer than the test's patience.
type Conn struct {
	net.Conn // TCP, or TLS within it
	tcp      net.Conn
	r        *bufio.Reader
	tb       testing.TB
	engine   *Engine
}

// RawProxy returns a TCP connection to the proxy port.
func (e *Engine) RawProxy(tb testing.TB) *Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", e.Addr)
	if err != nil {
		tb.Fatalf("connecting to the engine: %v", err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &Conn{Conn: conn, tcp: conn, r: bufio.NewReader(conn), tb: tb, engine: e}
}

// RawConnect returns a tunnel to host that has no TLS in it yet. host may have
// a port; else its origin's is taken.
func (e *Engine) RawConnect(tb testing.TB, host string) *Conn {
	tb.Helper()
	return e.RawConnectAs(tb, "", host)
}

// RawConnectAs is RawConnect with a name, "" for none.
func (e *Engine) RawConnectAs(tb testing.TB, name, host string) *Conn {
	tb.Helper()
	c := e.RawProxy(tb)
	target, credentials := e.Authority(host), ""
	if name != "" {
		credentials = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":")) + "\r\n"
	}
	c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + credentials + "\r\n")
	if r := c.Reply("CONNECT"); r.Status != 200 {
		tb.Fatalf("CONNECT %s: %d %s %s", target, r.Status, r.Reason(), r.Body)
	}
	return c
}

// TunnelOptions say how the TLS in a tunnel is spoken. The zero value is an
// honest HTTP/1.1 client.
type TunnelOptions struct {
	ServerName string      // "": the target's host
	ALPN       []string    // nil: http/1.1; empty: none
	Config     *tls.Config // for what else there is; ServerName and ALPN above go into a copy
}

// RawTunnel returns a TLS connection to the engine in a tunnel to host. o may
// be nil.
func (e *Engine) RawTunnel(tb testing.TB, host string, o *TunnelOptions) *Conn {
	tb.Helper()
	c := e.RawConnect(tb, host)
	if err := c.StartTLS(host, o); err != nil {
		tb.Fatalf("TLS in the tunnel to %s: %v\nthe log is:\n%s", host, err, e.Dump(tb))
	}
	return c
}

// StartTLS makes the handshake on c. The error is the engine's alert or the
// client's own.
func (c *Conn) StartTLS(host string, o *TunnelOptions) error {
	if o == nil {
		o = new(TunnelOptions)
	}
	cfg := &tls.Config{RootCAs: c.engine.CAPool}
	if o.Config != nil {
		cfg = o.Config.Clone()
	}
	if cfg.ServerName = o.ServerName; cfg.ServerName == "" {
		name, _, err := net.SplitHostPort(host)
		if err != nil {
			name = host
		}
		cfg.ServerName = name
	}
	if cfg.NextProtos = o.ALPN; o.ALPN == nil {
		cfg.NextProtos = []string{"http/1.1"}
	}
	conn := tls.Client(c.tcp, cfg)
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.Conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

// Send writes raw as it is. An engine that has closed the connection already
// is noticed where the answer is read.
func (c *Conn) Send(raw string) { _, _ = io.WriteString(c.Conn, raw) }

// Read reads what the engine sent, after what was read as replies.
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Reply reads a response to a request of the given method, interim ones
// included. It fails the test if none comes.
func (c *Conn) Reply(method string) *Reply {
	c.tb.Helper()
	r, err := c.TryReply(method)
	if err != nil {
		c.tb.Fatalf("reading the reply to a %s: %v\nthe log is:\n%s", method, err, c.engine.Dump(c.tb))
	}
	return r
}

// TryReply is Reply where none may come.
func (c *Conn) TryReply(method string) (*Reply, error) {
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols || method == "CONNECT" && resp.StatusCode == http.StatusOK {
		return &Reply{Status: resp.StatusCode, Proto: resp.Proto, Header: resp.Header}, nil
	}
	return readReply(resp)
}

// WantClosed fails the test unless the engine closes the connection without
// another byte.
func (c *Conn) WantClosed() {
	c.tb.Helper()
	rest, err := io.ReadAll(c.r)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		c.tb.Errorf("the connection was not closed; the log is:\n%s", c.engine.Dump(c.tb))
	case len(bytes.TrimSpace(rest)) > 0:
		c.tb.Errorf("%d bytes came before the connection was closed: %.200q", len(rest), rest)
	}
}

// WantOpen fails the test unless the connection still carries a request, which
// it makes: GET path, answered 200.
func (c *Conn) WantOpen(host, path string) {
	c.tb.Helper()
	c.Send("GET " + path + " HTTP/1.1\r\nHost: " + c.engine.Authority(host) + "\r\n\r\n")
	if r := c.Reply("GET"); r.Status != 200 {
		c.tb.Errorf("the next request on the connection: %d %s", r.Status, r.Reason())
	}
}

// State is what the TLS handshake came to; the zero value without TLS.
func (c *Conn) State() tls.ConnectionState {
	if conn, ok := c.Conn.(*tls.Conn); ok {
		return conn.ConnectionState()
	}
	return tls.ConnectionState{}
}
