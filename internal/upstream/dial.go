package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const (
	maxAnswer    = 64 // addresses in a DNS answer that are looked at; more is refused
	maxAddresses = 8  // of those, how many are tried

	// fallbackDelay is how long one address gets before the next is tried
	// beside it (RFC 8305 section 5 recommends 250 ms).
	fallbackDelay = 250 * time.Millisecond
)

// Resolver finds a name's addresses. host is canonical: a lower-case A-label
// name without a trailing dot. Implementations are called concurrently and
// return soon after ctx is done. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// absolute resolves through the system's configuration, but takes each name as
// absolute: in a pod the search list would ask for api.openai.com.ns.svc.cluster.local
// first, and who may create a Service there would choose the address.
//
// /etc/hosts is read first for every name. Package net finds a name of one label
// there only as it is written, without the dot that makes it absolute; so such
// a name is asked for twice, at first of a resolver that cannot reach DNS.
type absolute struct{ files, dns *net.Resolver }

// systemResolver is the system's configuration, without its search list.
func systemResolver(control control) absolute {
	return absolute{
		files: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errNoDNS }},
		dns:   control.resolver(),
	}
}

// control is a net.Dialer's ControlContext; nil is none.
type control func(ctx context.Context, network, address string, socket syscall.RawConn) error

// resolver is the system's, by sockets that control has seen.
func (c control) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: (&net.Dialer{ControlContext: c}).DialContext}
}

var errNoDNS = errors.New("only /etc/hosts is asked for a name that is not absolute")

func (a absolute) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		// RFC 6761 section 6.3: always loopback, and never asked of DNS.
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	if !strings.Contains(host, ".") {
		if addrs, err := a.files.LookupNetIP(ctx, network, host); err == nil {
			return addrs, nil
		}
	}
	return a.dns.LookupNetIP(ctx, network, host+".")
}

// target is where a request goes, as it was judged.
type target struct {
	host   string     // canonical name, or an address's text
	addr   netip.Addr // valid if host is an address
	port   uint16
	egress *policy.Egress
}

func targetOf(req *canon.Request, eg *policy.Egress) target {
	return target{host: req.Host, addr: req.Addr, port: req.Port, egress: eg}
}

func (t target) String() string { return net.JoinHostPort(t.host, fmt.Sprint(t.port)) }

// resolve returns the addresses of t, every one of them judged.
func (c *Client) resolve(ctx context.Context, t target) ([]netip.AddrPort, error) {
	addrs := []netip.Addr{t.addr}
	if !t.addr.IsValid() {
		ctx, cancel := context.WithTimeout(ctx, c.conf.ResolveTimeout)
		defer cancel()
		var err error
		if addrs, err = c.conf.Resolver.LookupNetIP(ctx, "ip", t.host); err != nil {
			return nil, resolveError(ctx, t.host, err)
		}
	}
	switch {
	case len(addrs) == 0:
		return nil, fail(ReasonResolveFailed, http.StatusBadGateway, "no address for "+t.host, nil)
	case len(addrs) > maxAnswer:
		return nil, fail(ReasonResolveFailed, http.StatusBadGateway,
			fmt.Sprintf("%s has %d addresses; %d are looked at", t.host, len(addrs), maxAnswer), nil)
	}
	out := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.Unmap(), t.port)
		if err := c.guard.judge(ap, t.egress.Addresses); err != nil {
			return nil, err
		}
		out = append(out, ap)
	}
	return out[:min(len(out), maxAddresses)], nil
}

func resolveError(ctx context.Context, host string, err error) *Error {
	var dns *net.DNSError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return gateway(ReasonCanceled, ctx.Err())
	case timedOut(err) || errors.As(err, &dns) && dns.IsTimeout:
		return fail(ReasonResolveFailed, http.StatusGatewayTimeout, "resolving "+host+": timed out", err)
	default:
		return fail(ReasonResolveFailed, http.StatusBadGateway, "resolving "+host+": "+err.Error(), err)
	}
}

// connect opens a connection to t: TCP to one of its judged addresses, or a
// tunnel to one through the upstream proxy.
func (c *Client) connect(ctx context.Context, t target) (net.Conn, netip.AddrPort, error) {
	if c.proxied(t) {
		return c.connectVia(ctx, t)
	}
	addrs, err := c.resolve(ctx, t)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	conn, ap, err := c.race(ctx, addrs, func(ap netip.AddrPort) error { return c.guard.judge(ap, t.egress.Addresses) })
	if err != nil {
		return nil, netip.AddrPort{}, err // not conn: a nil *net.TCPConn is not a nil net.Conn
	}
	return conn, ap, nil
}

type attempt struct {
	conn *net.TCPConn
	addr netip.AddrPort
	err  error
}

// race tries the addresses in their order, each a fallbackDelay after the one
// before or as soon as that failed, and keeps the first that connects.
func (c *Client) race(ctx context.Context, addrs []netip.AddrPort, judge func(netip.AddrPort) error) (*net.TCPConn, netip.AddrPort, error) {
	if len(addrs) == 1 {
		conn, err := c.dialOne(ctx, addrs[0], judge)
		if err != nil {
			return nil, addrs[0], dialError(ctx, err)
		}
		return conn, addrs[0], nil
	}
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt)
	try := func(ap netip.AddrPort) {
		conn, err := c.dialOne(ctx, ap, judge)
		select {
		case results <- attempt{conn, ap, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	delay := time.NewTimer(0)
	defer delay.Stop()
	var first error
	for next, running := 0, 0; ; {
		select {
		case <-delay.C:
			if next < len(addrs) {
				go try(addrs[next])
				next++
				running++
				delay.Reset(fallbackDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, r.addr, nil
			}
			running--
			if first == nil {
				first = r.err
			}
			if next == len(addrs) && running == 0 {
				return nil, r.addr, dialError(parent, first)
			}
			delay.Reset(0)
		case <-ctx.Done():
			return nil, addrs[0], dialError(parent, ctx.Err())
		}
	}
}

// dialOne connects to one address. The socket's own target is judged again
// just before connect(2).
func (c *Client) dialOne(ctx context.Context, ap netip.AddrPort, judge func(netip.AddrPort) error) (*net.TCPConn, error) {
	d := net.Dialer{
		Timeout: c.conf.ConnectTimeout,
		ControlContext: func(ctx context.Context, network, address string, socket syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fail(ReasonAddressDenied, http.StatusForbidden, "the address that is about to be dialled cannot be read", err)
			}
			if err := judge(at); err != nil || c.conf.Control == nil {
				return err
			}
			return c.conf.Control(ctx, network, address, socket)
		},
	}
	conn, err := d.DialContext(ctx, "tcp", ap.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// bypassed reports whether host is one of the patterns: a name, a suffix that
// begins with a dot or "*.", "*", or an address range.
func bypassed(patterns []string, t target) bool {
	for _, p := range patterns {
		if t.addr.IsValid() {
			if pre, err := netip.ParsePrefix(p); err == nil && pre.Contains(t.addr.Unmap()) {
				return true
			}
		}
		suffix := strings.TrimPrefix(p, "*")
		switch {
		case p == "*", p == t.host:
			return true
		case strings.HasPrefix(suffix, ".") && strings.HasSuffix(t.host, suffix):
			return true
		}
	}
	return false
}
