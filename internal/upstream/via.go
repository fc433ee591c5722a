package upstream

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// maxTunnels is how many of a target's addresses are tried through a proxy.
const maxTunnels = 3

// checkProxy refuses what connectVia could not dial.
func checkProxy(u *url.URL) error {
	if u == nil {
		return nil
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("upstream: proxy %q: write it as http://host:port or https://host:port", u.Redacted())
	}
	return nil
}

func (c *Client) proxied(t target) bool {
	return c.conf.Proxy != nil && !bypassed(c.conf.ProxyBypass, t)
}

// connectVia opens a tunnel to t through the upstream proxy (RFC 9110 section
// 9.3.6). We resolve and judge the target and ask for the judged address.
//
// BUG: with Config.ProxyResolves the proxy chooses the address and the address
// guard does not see it. TLS verification of the name is what is left.
func (c *Client) connectVia(ctx context.Context, t target) (net.Conn, netip.AddrPort, error) {
	if c.conf.ProxyResolves && !t.addr.IsValid() {
		conn, err := c.tunnel(ctx, t.String())
		return conn, netip.AddrPort{}, err
	}
	addrs, err := c.resolve(ctx, t)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	var conn net.Conn
	for _, ap := range addrs[:min(len(addrs), maxTunnels)] {
		if conn, err = c.tunnel(ctx, ap.String()); err == nil {
			return conn, ap, nil
		}
	}
	return nil, netip.AddrPort{}, err
}

// tunnel dials the proxy, whose address is the operator's and is not judged,
// and has it connect to authority.
func (c *Client) tunnel(ctx context.Context, authority string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.conf.ConnectTimeout+c.conf.HandshakeTimeout)
	defer cancel()
	conn, err := c.dialProxy(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = c.askProxy(conn, authority)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = dialError(ctx, ctx.Err())
		}
		return nil, err
	}
	return conn, nil
}

func (c *Client) dialProxy(ctx context.Context) (net.Conn, error) {
	u := c.conf.Proxy
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	d := net.Dialer{Timeout: c.conf.ConnectTimeout, ControlContext: c.conf.Control, Resolver: control(c.conf.Control).resolver()}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		e := dialError(ctx, err)
		e.Detail = "upstream proxy: " + e.Detail
		return nil, e
	}
	if u.Scheme == "http" {
		return conn, nil
	}
	tc := tls.Client(&proxyWire{Conn: conn}, &tls.Config{
		ServerName: u.Hostname(),
		RootCAs:    c.conf.Roots,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		Time:       c.conf.Now,
	})
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			return nil, dialError(ctx, ctx.Err())
		}
		return nil, fail(ReasonProxyFailed, http.StatusBadGateway, "TLS to the upstream proxy: "+err.Error(), err)
	}
	return tc, nil
}

// askProxy sends the CONNECT and reads its answer.
func (c *Client) askProxy(conn net.Conn, authority string) error {
	w := http1.AppendRequestLine(nil, []byte("CONNECT"), []byte(authority))
	w = http1.AppendField(w, []byte("Host"), []byte(authority))
	if u := c.conf.Proxy.User; u != nil {
		password, _ := u.Password()
		w = append(w, "Proxy-Authorization: Basic "...)
		w = base64.StdEncoding.AppendEncode(w, []byte(u.Username()+":"+password))
		w = append(w, "\r\n"...)
	}
	w = append(w, "\r\n"...)
	if _, err := conn.Write(w); err != nil {
		return gateway(ReasonProxyFailed, err)
	}
	var head http1.ResponseHead
	r := http1.NewReader(conn)
	defer r.Release()
	if err := r.ReadResponse(&head, []byte("CONNECT")); err != nil {
		return gateway(ReasonProxyFailed, err)
	}
	switch {
	case head.Status/100 != 2:
		return fail(ReasonProxyRefused, http.StatusBadGateway, fmt.Sprintf("the upstream proxy answered %d to CONNECT %s", head.Status, authority), nil)
	case len(r.Buffered()) > 0:
		// A tunnel's first word is ours; bytes before it were not sent by the target.
		return fail(ReasonProxyFailed, http.StatusBadGateway, "the upstream proxy sent bytes after its answer to CONNECT", nil)
	}
	return nil
}
