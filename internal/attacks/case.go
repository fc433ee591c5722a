package main

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// row is one attack: what a client sends, and what may come of it. Everything
// in it that is text may hold
//
//	{host}    the name and port of the row's host, as a client writes them
//	{name}    the name alone          {port}    the port alone
//	{denied}  name and port of a host that no rule allows
//	{other}   name and port of another host that the rules allow
//	{at}      http://{host}, for absolute-form
type row struct {
	id   string // in the catalogue
	what string // reads as a sentence behind the id

	class   class                            // which rules apply to the host; "": api
	way     way                              // how it is sent; 0: in a TLS tunnel
	connect string                           // CONNECT's target; "": {host}
	head    string                           // a whole CONNECT, where a target alone does not do
	sni     string                           // "": {name}; "-": none
	alpn    string                           // "": http/1.1; "-": none; with commas
	in      string                           // bytes inside the tunnel, or at the proxy port
	hello   func(name, denied string) string // a ClientHello of our own making, in place of TLS
	streams []h2req                          // HTTP/2, one after the other
	frames  func(*h2conn, caseOf)

	again  string // bytes on a second connection afterwards, when the first is over
	then   string // bytes on the same connection, when the first answer is in
	pace   string // "pieces", "segments", "records": the ClientHello in many, in two; "slow": in is sent byte by byte and never ends
	at     int    // with "segments" and "records": the byte at which the ClientHello is cut
	ending string // "fin": the client says that it has sent all; "gone": it closes

	answer string // upstream's, byte for byte; "": 200 with two bytes
	cut    bool   // upstream closes after the answer; without close_notify
	spoken string // upstream's, after a 101

	want outcome
	may  []string // complete requests that may reach the upstream: "POST /v1/chat/completions"
	sent int      // of a generated case: the requests in it
	body bool     // of a generated case: a head may arrive without its end
	need need     // what a proxy must be able to do for the row to mean anything
}

// outcome is what a row requires.
type outcome int

const (
	nothing    outcome = iota // not one byte of it upstream
	unfinished                // its head may be upstream, its end never
	atMost                    // nothing else than may, in this order
	exactly                   // may, and nothing else
	either                    // nothing, or what was sent, clean and allowed: generated cases
	guarded                   // upstream's answer does not reach the client as it is
)

// way is how a row comes to the proxy.
type way int

const (
	inTunnel  way = iota // CONNECT, TLS, bytes
	inTheOpen            // CONNECT, bytes: no TLS
	atPort               // bytes at the proxy port
	byHello              // CONNECT, a ClientHello of our own making
	byHTTP2              // CONNECT, TLS, HTTP/2
)

// need is a set of abilities. A row that needs what a proxy has not is n/a.
type need uint

const (
	needConnect   need = 1 << iota // it takes CONNECT
	needHTTP2                      // it speaks HTTP/2 to clients
	needBody                       // its rules can read a JSON body
	needLookup                     // it resolves names itself
	needGuard                      // its rules can refuse addresses by what a name resolves to
	needPin                        // a host can be left undecrypted by rule
	needRuleGuard                  // addresses are a rule's, not a configuration's
	needPort                       // it is a forward proxy for http too
	needWatch                      // its lookups can be watched
)

func (n need) String() string {
	words := []struct {
		bit  need
		text string
	}{
		{needConnect, "takes no CONNECT"}, {needHTTP2, "no HTTP/2 to clients before an upstream that has none"}, {needBody, "its rules cannot read a body"},
		{needLookup, "resolves no names"}, {needGuard, "no rules about resolved addresses"}, {needPin, "no passthrough"},
		{needRuleGuard, "no addresses by rule"}, {needPort, "no plain proxy"}, {needWatch, "its lookups cannot be watched"},
	}
	var all []string
	for _, w := range words {
		if n&w.bit != 0 {
			all = append(all, w.text)
		}
	}
	return strings.Join(all, ", ")
}

// h2req is one HTTP/2 request: fields "name: value" in order, and a body.
type h2req struct {
	fields []string
	body   string // "": END_STREAM is on the HEADERS frame
}

// class is the part of a host's name that says which rules apply.
type class string

const (
	api    class = "api"    // POST /v1/chat/completions, GET /files/**
	judged class = "judged" // POST /v1/chat/completions where the body's model is "good"
	socket class = "socket" // GET /socket, which may become a WebSocket
	inside class = "inside" // as api; its name points inside the network
	mixed  class = "mixed"  // as api; its name points inside and outside
	rebind class = "rebind" // as api; its name points outside once, then inside
	split  class = "split"  // GET /files/** may go inside, POST /v1/chat/completions may not; it points inside
	pinned class = "pinned" // as api, undecrypted
	denied class = "denied" // nothing
)

func classes() []class { return []class{api, judged, socket, inside, mixed, rebind, split, pinned} }

// hostName is the host of case n. A host of its own for each case is what lets
// the upstream tell their bytes apart.
func hostName(n int, c class) string { return fmt.Sprintf("c%d.%s.test", n, c) }

// Addresses of the upstream. The second stands for the inside of a network,
// where no rule lets a request go.
const (
	outsideAddr = "127.0.0.1"
	insideAddr  = "127.0.0.2"
)

// addresses is the DNS of a run: what name resolves to when it is asked for the
// time after the asked-th.
func addresses(name string, asked int) []netip.Addr {
	out, in := netip.MustParseAddr(outsideAddr), netip.MustParseAddr(insideAddr)
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if name == "localhost" {
		return []netip.Addr{netip.MustParseAddr(h2specAddr)}
	}
	label, ok := strings.CutSuffix(name, ".test")
	if !ok {
		return nil
	}
	switch c := class(label[strings.LastIndexByte(label, '.')+1:]); {
	case c == inside, c == split, c == rebind && asked > 0:
		return []netip.Addr{in}
	case c == mixed:
		return []netip.Addr{out, in}
	}
	return []netip.Addr{out}
}

// caseOf is a row that is about to run, with its number.
type caseOf struct {
	row
	n    int
	port int    // the upstream's
	self string // the proxy's own address
}

func (c caseOf) rules() class {
	if c.class == "" {
		return api
	}
	return c.class
}

func (c caseOf) name() string { return hostName(c.n, c.rules()) }

// host is what an honest client writes into Host.
func (c caseOf) host() string { return authority(c.name(), c.port) }

func authority(name string, port int) string {
	if port == 443 {
		return name
	}
	return net.JoinHostPort(name, strconv.Itoa(port))
}

func (c caseOf) expand(text string) string {
	port := strconv.Itoa(c.port)
	return strings.NewReplacer(
		"{host}", c.host(), "{name}", c.name(), "{NAME}", strings.ToUpper(c.name()), "{port}", port, "{at}", "http://"+c.host(),
		"{denied}", authority(hostName(c.n, denied), c.port), "{deniedname}", hostName(c.n, denied), "{other}", authority(hostName(c.n, "other.api"), c.port),
		"{othername}", hostName(c.n, "other.api"), "{self}", c.self,
	).Replace(text)
}

// numbered are the rows as cases, of which each proxy gets all.
func numbered(rows []row, port int) []caseOf {
	all := make([]caseOf, len(rows))
	for i, r := range rows {
		all[i] = caseOf{row: r, n: i, port: port}
	}
	return all
}

// caseNumber finds whose a name, or any other text with a name in it, is.
type caseNumber struct{ re *regexp.Regexp }

func newCaseNumber() caseNumber {
	return caseNumber{regexp.MustCompile(`(?i)\bc(\d+)\.(?:other\.)?[a-z]+\.test`)}
}

func (c caseNumber) of(text []byte) (n int, ok bool) {
	m := c.re.FindSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(string(m[1]))
	return n, err == nil
}
