package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// verdict is what became of a row at a proxy.
type verdict int

const (
	refused    verdict = iota // what the row requires
	normalised                // the upstream got one clean, allowed request in its place
	through                   // the upstream, or the client, got what it must not
	notApplicable
	failed // the proxy did not take part: the harness's or the proxy's fault
)

func (v verdict) String() string {
	return [...]string{"refused", "normalised", "THROUGH", "n/a", "failed"}[v]
}

// finding is a verdict with its reason.
type finding struct {
	verdict verdict
	why     string
	arrived int // complete requests at the upstream
}

// judge decides by what the upstream saw, and for a guarded row by what the
// client got. What the proxy said of it counts for nothing.
type judge struct{ strict *strictReader }

// marks are texts that only an attack's own bytes have. A request for one of
// them at the upstream is through, whatever else is in order.
const (
	adminPath = "/admin"
	poison    = "poisoned"
)

func (j judge) of(c caseOf, conns []captured, got got) finding {
	var arrived []request
	for _, conn := range conns {
		if conn.inside && c.rules() != split {
			return finding{verdict: through, why: "a connection reached the address that no rule lets through"}
		}
		if conn.hello && !conn.tls && c.rules() == pinned && c.want == nothing {
			return finding{verdict: through, why: "a ClientHello reached the upstream"}
		}
		if !conn.tls && len(conn.raw) > 0 && !strings.Contains(c.in, "http://") {
			return finding{verdict: through, why: fmt.Sprintf("bytes without TLS reached the upstream: %.60q", conn.raw)}
		}
		all, err := j.strict.all(string(conn.raw))
		arrived = append(arrived, all...)
		if err != nil {
			return finding{verdict: through, why: "the upstream got " + err.Error()}
		}
		if after := behindUpgrade(string(conn.raw)); strings.Contains(after, adminPath) {
			return finding{verdict: through, why: fmt.Sprintf("behind the upgrade the upstream got %.60q", after)}
		}
	}
	if c.want == guarded {
		return j.guarded(c, arrived, got)
	}
	return j.requests(c, arrived, got)
}

// requests judges a row whose outcome is what arrived.
func (j judge) requests(c caseOf, arrived []request, got got) finding {
	var whole []string
	for _, r := range arrived {
		if !r.complete {
			continue
		}
		if err := allowed(c, r); err != nil {
			return finding{verdict: through, why: "the upstream got " + err.Error()}
		}
		if strings.HasPrefix(c.id, "T") {
			return finding{verdict: through, why: "an upstream that must not be trusted got " + r.line()}
		}
		whole = append(whole, r.line())
	}
	may := make([]string, len(c.may))
	for i, m := range c.may {
		may[i] = c.expand(m)
	}
	if c.want == either || c.sent > 0 && c.want == exactly {
		f := j.generated(c, whole, len(arrived), got)
		f.arrived = len(whole)
		return f
	}
	switch {
	case c.want == nothing && len(arrived) == 0 && j.taken(c, got):
		return finding{verdict: through, why: "the handshake went on"}
	case c.want == nothing && len(arrived) == 0, c.want == unfinished && len(whole) == 0:
		return finding{verdict: refused, why: ""}
	case c.want == exactly && slices.Equal(whole, may), c.want == atMost && len(whole) <= len(may) && slices.Equal(whole, may[:len(whole)]):
		return finding{verdict: refused, why: ""}
	case c.want == exactly && len(whole) < len(may):
		return finding{verdict: refused, why: fmt.Sprintf("of %q only %q arrived; the client got %s", may, whole, got)}
	case len(whole) == 0:
		return finding{verdict: through, why: "a request that must not leave was begun at the upstream"}
	default:
		return finding{verdict: normalised, why: fmt.Sprintf("the upstream got %.80q", strings.Join(whole, ", "))}
	}
}

// generated judges a case that has no outcome of its own. What was allowed was
// looked at before.
func (j judge) generated(c caseOf, whole []string, arrived int, got got) finding {
	switch {
	case len(whole) > c.sent:
		return finding{verdict: through, why: fmt.Sprintf("of %d requests %d arrived: %.80q", c.sent, len(whole), strings.Join(whole, ", "))}
	case arrived > len(whole) && !c.body:
		return finding{verdict: through, why: "a request was begun at the upstream and never ended"}
	case c.want == exactly && len(whole) != len(c.may):
		return finding{verdict: refused, why: "what is allowed did not arrive; the client got " + got.String()}
	}
	return finding{}
}

// taken reports a ClientHello of our own making that was answered by more than
// an alert.
func (j judge) taken(c caseOf, got got) bool {
	return c.way == byHello && len(got.answer) > 0 && got.answer[0] == 22
}

// allowed refuses what the policy of the run does not allow. It is the judge's
// own reading of it.
func allowed(c caseOf, r request) error {
	path, _, _ := strings.Cut(r.target, "?")
	host := r.host
	if c.port == 443 {
		host = strings.TrimSuffix(host, ":443")
	}
	if !strings.EqualFold(host, c.host()) && !strings.EqualFold(host, c.expand("{other}")) {
		return fmt.Errorf("a request for the host %q", r.host)
	}
	if err := onePath(path); err != nil {
		return err
	}
	for _, name := range overrides() {
		for _, v := range r.get(name) {
			if !strings.EqualFold(v, r.host) { // X-Forwarded-Host is some proxies' own
				return fmt.Errorf("the override %s: %.40q", name, v)
			}
		}
	}
	if c.id == "A19" && strings.Contains(strings.ToLower(strings.ReplaceAll(r.target, "%5f", "_")), "_method=") {
		return fmt.Errorf("an override in the query of %s", r.target)
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return err
	}
	switch c.rules() {
	case socket:
		if r.method == "GET" && path == "/socket" {
			return nil
		}
	case judged:
		if r.method != "POST" || path != chatPath {
			break
		}
		if !slices.Contains(goodBodies(), r.body) {
			return fmt.Errorf("the body %.60q", r.body)
		}
		return nil
	case split:
		if r.method == "GET" && strings.HasPrefix(path, "/files/") {
			return nil
		}
	default:
		if r.method == "POST" && path == chatPath || r.method == "GET" && strings.HasPrefix(path, "/files/") {
			return nil
		}
	}
	return fmt.Errorf("%s %.80q", r.method, r.target)
}

// goodBodies are the bodies with one reading, of class judged.
func goodBodies() []string { return []string{goodJSON} }

// behindUpgrade is what follows a request that asked for another protocol.
func behindUpgrade(raw string) string {
	head, after, _ := strings.Cut(raw, "\r\n\r\n")
	if !strings.Contains(strings.ToLower(head), "\r\nupgrade:") {
		return ""
	}
	return after
}

// guarded judges a row whose attack is the upstream's answer: the client must
// get a refusal, or an answer that it can see is cut.
func (j judge) guarded(c caseOf, arrived []request, got got) finding {
	for _, r := range arrived {
		if err := allowed(c, r); r.complete && err != nil {
			return finding{verdict: through, why: "the upstream got " + err.Error()}
		}
	}
	if len(arrived) == 0 {
		return finding{verdict: failed, why: "the request never reached the upstream: " + got.String()}
	}
	if bytes.Contains(got.answer, []byte(poison)) {
		return finding{verdict: through, why: "the client got what stands behind the answer"}
	}
	status, whole, err := finalAnswer(got.answer, got.clean)
	switch {
	case status >= 500:
		return finding{verdict: refused, why: ""}
	case len(got.answer) == 0, errors.Is(err, errShort):
		return finding{verdict: refused, why: ""} // nothing, or what looks cut
	case err != nil:
		return finding{verdict: through, why: "the client got " + err.Error()}
	case !whole:
		return finding{verdict: refused, why: ""}
	default:
		return finding{verdict: normalised, why: fmt.Sprintf("the client got a clean %d", status)}
	}
}
