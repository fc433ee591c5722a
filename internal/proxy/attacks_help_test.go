package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// The rows of the catalogue of attacks, each made against a whole engine with
// real clients and origins: the bytes go in raw, and what is asserted is what
// the client got, what the origin saw, and what the log says. That the log
// verifies and that the origins saw what it says is checked by the harness when
// each test ends. The letters of the test names are those of the catalogue:
// S framing, P paths, A authority, U upgrades, T the origin's TLS.

// attackPolicy lets the agent do nearly everything at one host over TLS and at
// one without, so that what is refused is refused for its form.
const attackPolicy = `
- name: over-tls
  {{to "allowed.test"}}
  methods: [GET, HEAD, POST, PUT, OPTIONS]
  paths: ["/**"]
- name: without-tls
  {{to "plain.test"}}
  methods: [GET, HEAD, POST, PUT, OPTIONS]
  paths: ["/**"]
`

// attacked starts an engine for rows of one request each. Every refusal is a
// record of its own.
func attacked(t *testing.T, o enginetest.Options) *enginetest.Engine {
	t.Helper()
	if o.Policy == "" {
		o.Policy = attackPolicy
	}
	if o.Hosts == nil {
		o.Hosts = map[string]enginetest.Host{"allowed.test": {}, "plain.test": {Plain: true}, "denied.test": {}}
	}
	o.Log = func(c *audit.Config) { c.Refusals = audit.RefusalLimits{First: 100_000, Rate: 100_000, Burst: 100_000} }
	return enginetest.Start(t, &o)
}

// way is how a request comes to the engine: in a TLS tunnel, or in
// absolute-form at the proxy port.
type way struct {
	name, host string
	e          *enginetest.Engine
	prefix     string // of a target's path
	dial       func(t *testing.T) *enginetest.Conn
}

func tunnelWay(e *enginetest.Engine) way {
	return way{"in a tunnel", "allowed.test", e, "", func(t *testing.T) *enginetest.Conn {
		t.Helper()
		return e.RawTunnel(t, "allowed.test", nil)
	}}
}

func plainWay(e *enginetest.Engine) way {
	return way{"at the proxy port", "plain.test", e, e.URL("plain.test", ""), func(t *testing.T) *enginetest.Conn {
		t.Helper()
		return e.RawProxy(t)
	}}
}

func bothWays(e *enginetest.Engine) []way { return []way{tunnelWay(e), plainWay(e)} }

// raw fills in a request: {at} stands before each path, {host} for the
// authority.
func (w way) raw(text string) string {
	return strings.NewReplacer("{at}", w.prefix, "{host}", w.e.Authority(w.host)).Replace(text)
}

// head is the beginning of a request for /x with the lines given after Host.
func head(method string, lines ...string) string {
	return method + " {at}/x HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// smuggled is what stands behind every denied request and must go nowhere.
const smuggled = "GET {at}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"

// denied is a row: what raw asks for is refused with status and reason, and
// the connection is closed. A status of 0 stands for 400.
type denied struct {
	what   string
	raw    string
	reason string
	status int
}

// denies sends each row with a second request behind it in the same segment
// and fails the test unless the row is a DENY: the refusal, the end of the
// connection, one record with the reason, and not one byte at the origin.
func (w way) denies(t *testing.T, rows ...denied) {
	t.Helper()
	for _, row := range rows {
		if row.status == 0 {
			row.status = 400
		}
		t.Run(row.what+" "+w.name, func(t *testing.T) {
			of := enginetest.Fields{"event": "egress_denied", "reason": row.reason, "status_code": row.status}
			before := len(w.e.Find(t, of))
			records := len(w.e.Records(t))
			c := w.dial(t)
			defer c.Close()
			c.Send(w.raw(row.raw + smuggled))
			r, err := c.TryReply("POST")
			if err != nil {
				t.Fatalf("no answer: %v; the log has %q", err, lines(w.e.Records(t)[records:]))
			}
			if r.Status != row.status || r.Reason() != row.reason || r.Header.Get("X-Aegrail-Decision") != "denied" {
				t.Errorf("got %d %q, want %d %q\n%s", r.Status, r.Reason(), row.status, row.reason, r.Body)
			}
			if !r.Close {
				t.Fatal("the connection is kept")
			}
			c.WantClosed()
			if found := w.e.Find(t, of); len(found) != before+1 {
				t.Errorf("%d records with %s, want one more than %d; new are %q", len(found), of, before, lines(w.e.Records(t)[records:]))
			}
		})
	}
	nothingArrived(t, w.e, w.host)
}

// nothingArrived fails the test if a byte came to an origin, or if the request
// behind a denied one got as far as the log.
func nothingArrived(t *testing.T, e *enginetest.Engine, hosts ...string) {
	t.Helper()
	untouched(t, e, hosts...)
	notAsked(t, e, hosts...)
	e.NoRecord(t, enginetest.Fields{"path": "/smuggled"})
}

// sends makes a request on c that is to be answered with 200, and returns it as
// the origin saw it. That it was one request, and which, is in the log too.
func (w way) sends(t *testing.T, c *enginetest.Conn, method, raw string) enginetest.Seen {
	t.Helper()
	o := w.e.Origin(w.host)
	before := len(o.Requests())
	c.Send(w.raw(raw))
	if r := c.Reply(method); r.Status != 200 {
		t.Fatalf("%q: %d %q\n%s", raw, r.Status, r.Reason(), r.Body)
	}
	// What was broken off before may arrive after it; it is never whole.
	whole := slices.DeleteFunc(o.Requests()[before:], func(s enginetest.Seen) bool { return !s.Complete })
	if len(whole) != 1 {
		t.Fatalf("%q: %d requests arrived, want 1: %q", raw, len(whole), whole)
	}
	return whole[0]
}

// wantHead fails the test unless the origin got exactly this head, in which
// {host} is the authority.
func (w way) wantHead(t *testing.T, s enginetest.Seen, want string) {
	t.Helper()
	if want = w.raw(want); s.Head != want {
		t.Errorf("the origin got the head\n%q, want\n%q", s.Head, want)
	}
}

// targets are the methods and targets that arrived.
func targets(seen []enginetest.Seen) []string {
	var all []string
	for _, s := range seen {
		all = append(all, s.Method+" "+s.Target)
	}
	return all
}

func wantTargets(t *testing.T, o *enginetest.Origin, want ...string) {
	t.Helper()
	if got := targets(o.Requests()); !slices.Equal(got, want) {
		t.Errorf("%s saw %q, want %q", o.Name, got, want)
	}
}

// numbered makes a path that no other row has.
func numbered(i int) string { return fmt.Sprintf("/row-%d", i) }

// recorded fails the test unless a record has f by now: what is asked about
// was answered, and an answer comes after its record.
func recorded(t *testing.T, e *enginetest.Engine, f enginetest.Fields) {
	t.Helper()
	if len(e.Find(t, f)) == 0 {
		all := lines(e.Records(t))
		t.Errorf("no record with %s; the last are %q", f, all[max(0, len(all)-2):])
	}
}
