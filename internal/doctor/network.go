//go:build linux

package doctor

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"github.com/arpitcoder/aegrail-engine/internal/resolver"
)

const (
	fixRules  = "run `aegrail-init serve` as the pod's first sidecar (inject the pod, enforcement: transparent); under exec, see why it says NOT ISOLATED"
	fixDNS    = fixRules + "; and let the engine listen with --dns-listen"
	fixAdmin  = "name the port in `aegrail-init serve --protect`"
	fixByHand = "is it the engine that listens there? Let it be started with --transparent-listen, and nothing else take its port"
)

// unlikely is a name that no policy but one for every host allows, new each time.
func unlikely() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // it does not fail (crypto/rand)
	return "doctor-" + hex.EncodeToString(b[:]) + ".aegrail.invalid"
}

func (p *patient) networkChecks() []check {
	all := []check{
		{"E1", "TCP to an IPv4 address", fixRules, func(ctx context.Context) outcome { return p.tcp(ctx, nobody4(), 443, 22, 853, 8443) }},
		{"E1", "TCP to an IPv6 address", fixRules, func(ctx context.Context) outcome { return p.tcp(ctx, nobody6(), 443, 22, 853, 8443) }},
		{"E2", "DNS over UDP at a server of one's own", fixDNS, func(ctx context.Context) outcome { return p.otherDNS(ctx, "udp") }},
		{"E2", "DNS over TCP at a server of one's own", fixDNS, func(ctx context.Context) outcome { return p.otherDNS(ctx, "tcp") }},
		{"E2", "a name outside the policy at the configured resolver", fixDNS, p.configuredDNS},
		{"E4", "the transparent port by hand", fixByHand, p.transparentByHand},
		{"E4", "the DNS port by hand", fixByHand, p.dnsByHand},
	}
	if p.Admin != 0 {
		all = append(all, check{"E4", "the engine's metrics and administration", fixAdmin, p.admin})
	}
	if p.Forward != 0 {
		all = append(all, check{"E4", "the forward proxy", "let the engine listen there alone; or protect the port", p.forward})
	}
	return all
}

// tcp dials ports of an address that nobody has.
func (p *patient) tcp(ctx context.Context, addr netip.Addr, ports ...uint16) outcome {
	var all []outcome
	for _, port := range ports {
		o := p.tcpOnce(ctx, netip.AddrPortFrom(addr, port))
		if all = append(all, o); !o.held {
			break
		}
	}
	return worst(all...)
}

func (p *patient) tcpOnce(ctx context.Context, to netip.AddrPort) outcome {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return p.undialled(to, err)
	}
	defer conn.Close()
	landed := p.landed(addrOf(conn.LocalAddr()))
	answer, byEngine := engineAnswers(ctx, conn)
	switch {
	case landed:
		return held("%s leads to the engine, %s", to, answer)
	case byEngine:
		return held("the engine answers for %s: %s", to, answer)
	default:
		return open("a connection to %s was made, and the engine is not at its end", to)
	}
}

// engineAnswers asks for a host that no policy names. Only an engine refuses it
// by that alert, or has a certificate for a name below .invalid.
func engineAnswers(ctx context.Context, conn net.Conn) (what string, yes bool) {
	name := unlikely()
	client := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // nothing is sent; the certificate is only looked at
	err := client.HandshakeContext(ctx)
	switch {
	case err == nil && client.ConnectionState().PeerCertificates[0].VerifyHostname(name) == nil:
		return "which inspects a host that no policy should name", true
	case err != nil && strings.HasSuffix(err.Error(), "tls: unrecognized name"): // crypto/tls has no type for an alert that was received
		return "which refuses the host", true
	default:
		return "which says nothing of the host", false
	}
}

// undialled is what an error of connecting to an address that nobody has means.
func (p *patient) undialled(to netip.AddrPort, err error) outcome {
	if o, ok := unreachable(to.Addr()); ok {
		return o
	}
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return held("the kernel refuses to connect to %s", to)
	case errors.Is(err, syscall.ECONNREFUSED):
		if _, ok := p.listener(p.Transparent); !ok {
			return open("%s is refused, and nobody listens on the engine's port %d: who refused cannot be told", to, p.Transparent)
		}
		return open("%s is refused by somebody else than the engine", to)
	default:
		return open("nothing answers for %s: what was sent has left, or is lost where it cannot be seen (%v)", to, short(err))
	}
}

// unreachable is held where this namespace has no address of addr's family that
// leads anywhere, so that nothing of it can leave. It asks the kernel, and sends
// nothing. ok is false where addr has a route.
func unreachable(addr netip.Addr) (o outcome, ok bool) {
	conn, err := new(net.Dialer).DialContext(context.Background(), "udp", netip.AddrPortFrom(addr, 9).String())
	if err == nil {
		conn.Close()
		return o, false
	}
	if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT) {
		return o, false
	}
	for _, own := range ownAddresses() {
		if !own.IsLoopback() && own.Is4() == addr.Is4() {
			return open("there is no route to %s, but %s may have others, which is not seen here", addr, own), true
		}
	}
	return held("there is no %s here", map[bool]string{true: "IPv4", false: "IPv6"}[addr.Is4()]), true
}

// short is an error without what is known anyway.
func short(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func addrOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case *net.UDPAddr:
		return a.AddrPort()
	default:
		return netip.AddrPort{}
	}
}

// otherDNS asks servers that are none.
func (p *patient) otherDNS(ctx context.Context, network string) outcome {
	var all []outcome
	for _, server := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 53}), netip.MustParseAddr("2001:db8::53")} {
		if o, ok := unreachable(server); ok {
			all = append(all, o)
			continue
		}
		all = append(all, p.ask(ctx, network, netip.AddrPortFrom(server, 53)))
	}
	return worst(all...)
}

// configuredDNS asks the servers of resolv.conf, as every program does.
func (p *patient) configuredDNS(ctx context.Context) outcome {
	conf, err := dns.ClientConfigFromFile(p.path("etc/resolv.conf"))
	if err != nil || len(conf.Servers) == 0 {
		return held("no resolver is configured")
	}
	var all []outcome
	for _, server := range conf.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil {
			continue
		}
		all = append(all, p.ask(ctx, "udp", netip.AddrPortFrom(addr, 53)), p.ask(ctx, "tcp", netip.AddrPortFrom(addr, 53)))
	}
	if len(all) == 0 {
		return held("no resolver is configured")
	}
	return worst(all...)
}

// ask looks up a name that no policy names. The engine's resolver says that it
// was filtered, or makes an address up from the name.
func (p *patient) ask(ctx context.Context, network string, server netip.AddrPort) outcome {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	name := unlikely()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	query.SetEdns0(1232, false)
	reply, _, err := (&dns.Client{Net: network, Timeout: p.Patience}).ExchangeContext(ctx, query, server.String())
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return held("the kernel refuses to send to %s over %s", server, network)
	case err != nil:
		return open("nothing that is the engine's answers for %s over %s (%v)", server, network, short(err))
	case byResolver(reply, name):
		return held("the engine answers for %s over %s, and no name outside the policy is looked up", server, network)
	default:
		return open("somebody else than the engine answers for %s over %s: %s", server, network, dns.RcodeToString[reply.Rcode])
	}
}

func byResolver(reply *dns.Msg, name string) bool {
	if opt := reply.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok && ede.InfoCode == dns.ExtendedErrorCodeFiltered && ede.ExtraText == resolver.ReasonName {
				return true
			}
		}
	}
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok && a.A.Equal(resolver.Address4(name).AsSlice()) {
			return true
		}
	}
	return false
}

func loopbacks() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

// ownAddresses are those of this namespace, loopback first.
func ownAddresses() []netip.Addr {
	all := loopbacks()
	addrs, _ := net.InterfaceAddrs() // none of them is checked where they cannot be listed; loopback is
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && !ip.Unmap().IsLoopback() && !ip.IsLinkLocalUnicast() {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all
}

// transparentByHand expects to be hung up on: there is no destination.
func (p *patient) transparentByHand(ctx context.Context) outcome {
	var all []outcome
	for _, addr := range loopbacks() {
		to := netip.AddrPortFrom(addr, p.Transparent)
		all = append(all, p.byHand(ctx, to))
	}
	return worst(all...)
}

func (p *patient) byHand(ctx context.Context, to netip.AddrPort) outcome {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return held("%s is refused", to)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+unlikely()+"\r\n\r\n") // what cannot be written is not answered
	if n, err := conn.Read(make([]byte, 1)); n > 0 {
		return open("%s serves a connection that nobody redirected", to)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		return open("%s keeps a connection that nobody redirected", to)
	}
	return held("%s hangs up on a connection that nobody redirected", to)
}

func (p *patient) dnsByHand(ctx context.Context) outcome {
	if _, ok := p.listener(p.DNS); !ok {
		return held("nobody listens on port %d", p.DNS)
	}
	to := netip.AddrPortFrom(loopbacks()[0], p.DNS)
	return worst(p.ask(ctx, "udp", to), p.ask(ctx, "tcp", to))
}

// admin looks for the metrics on every address of the pod.
func (p *patient) admin(ctx context.Context) outcome {
	for _, addr := range ownAddresses() {
		to := netip.AddrPortFrom(addr, p.Admin)
		for _, path := range []string{"/metrics", "/readyz"} {
			if status := p.answers(ctx, to, path); status != 0 {
				return open("http://%s%s answers %d", to, path, status)
			}
		}
	}
	return held("port %d answers on no address of this pod", p.Admin)
}

// answers is the status of an answer that is no refusal of the engine's, which
// is what a redirected request gets; 0: there is none.
func (p *patient) answers(ctx context.Context, to netip.AddrPort, path string) int {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	conn, resp, err := p.send(ctx, to, "GET "+path+" HTTP/1.1\r\nHost: "+to.String()+"\r\nConnection: close\r\n\r\n")
	if conn != nil {
		defer conn.Close()
	}
	if err != nil || judged(resp) {
		return 0
	}
	return resp.StatusCode
}

// judged reports an answer that is the engine's own.
func judged(resp *http.Response) bool { return resp.Header.Get("X-Aegrail-Decision") != "" }

// send sends one request and returns the head of its answer. Whoever dialled to
// closes the connection, which holds what comes after.
func (p *patient) send(ctx context.Context, to netip.AddrPort, request string) (net.Conn, *http.Response, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, request); err != nil {
		return conn, nil, err
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), &http.Request{Method: method}) // 64 KiB: a head
	if err != nil {
		return conn, nil, err
	}
	return conn, resp, resp.Body.Close()
}

// forward asks the forward proxy for what no policy allows.
func (p *patient) forward(ctx context.Context) outcome {
	to := netip.AddrPortFrom(loopbacks()[0], p.Forward)
	if _, ok := p.listener(p.Forward); !ok && !p.Advisory {
		return held("nobody listens on port %d", p.Forward)
	}
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	name := unlikely()
	conn, resp, err := p.send(ctx, to, fmt.Sprintf("CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", name, name))
	if conn != nil {
		defer conn.Close()
	}
	switch {
	case err != nil && p.Advisory:
		return open("%s does not answer, and the proxy variables lead there (%v)", to, short(err))
	case errors.Is(err, syscall.ECONNREFUSED):
		return held("%s is refused", to)
	case err != nil:
		return open("%s: %v", to, short(err))
	case judged(resp):
		return held("%s judges what is sent there like everything else", to)
	case resp.StatusCode == http.StatusOK:
		if what, yes := engineAnswers(ctx, conn); yes {
			return held("%s leads to the engine, %s", to, what)
		}
	}
	return open("%s answers %d to what no policy allows", to, resp.StatusCode)
}
