package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// question is a request that nobody made: what explain, test and replay ask a
// policy about. It is read by the same code that reads an agent's bytes, so
// the answer is the engine's.
type question struct {
	agent   identity.Principal
	method  string
	url     string
	headers []string // "Name: value"
	body    []byte   // nil: none was given, and POST, PUT and PATCH have one that is not known
}

// answer is what the engine would do. What it would refuse to read is a denial
// with canon's reason.
type answer struct {
	policy.Decision
	trace  []policy.RuleTrace // the rules that name the host
	others int                // the agent's rules for other hosts
	tunnel bool               // passthrough: nothing inside is judged
	asked  string             // the canonical form
}

// word is the verdict, or "depends" where a rule reads a body that the
// question does not have.
func (a answer) word() string {
	if a.NeedBody {
		return "depends"
	}
	return a.Verdict.String()
}

// allows reports what the policy says, whatever observe lets pass.
func (a answer) allows() bool { return a.Verdict == policy.Allow && !a.Observed }

// ask puts q to set as the engine would: first whether the host is possible at
// all, then the request.
func (q question) ask(set *policy.Set) (answer, error) {
	scheme, raw, target, err := splitURL(q.url)
	if err != nil {
		return answer{}, err
	}
	authority, err := canon.ParseAuthority(raw, scheme.DefaultPort())
	if err != nil {
		return refused(err)
	}
	view := set.For(q.agent)
	host := view.Host(authority)
	if !host.Possible {
		return answer{Decision: policy.Decision{Reason: host.Reason, Rule: host.Rule, Policy: host.Policy}, asked: authority.Host}, nil
	}
	var req canon.Request
	if q.method == "CONNECT" || host.Passthrough {
		req.FromTunnel(1, authority)
	} else if err := q.read(&req, scheme, authority, target); err != nil {
		return refused(err)
	}
	a := answer{Decision: view.Decide(&req), tunnel: req.Scheme == canon.Tunnel, asked: describe(&req)}
	e := policy.Explain(view, &req, q.body)
	a.trace, a.others = e.Rules, e.Others
	if q.body != nil {
		a.Decision = e.Decision
	}
	return a, nil
}

// read makes the request's bytes and reads them.
func (q question) read(req *canon.Request, scheme canon.Scheme, authority canon.Authority, target string) error {
	in := canon.Inbound{Kind: intake.Connect, Scheme: scheme, Authority: authority}
	_, raw, _, err := splitURL(q.url)
	if err != nil {
		return err
	}
	if scheme == canon.HTTP {
		in = canon.Inbound{Kind: intake.Plain, Scheme: scheme}
		target = "http://" + raw + target
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.method, target, raw)
	for _, h := range q.headers {
		if strings.ContainsAny(h, "\r\n") {
			return errors.New("a header with a line break")
		}
		b.WriteString(h + "\r\n")
	}
	length := len(q.body)
	if q.body == nil && hasBody(q.method) {
		length = 1 // a body that nobody gave: enough to find out whether a rule would read it
	}
	if length > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", length)
		if !slices.ContainsFunc(q.headers, isContentType) {
			b.WriteString("Content-Type: application/json\r\n")
		}
	}
	if isWebSocket(q.url) {
		b.WriteString(upgradeFields)
	}
	b.WriteString("\r\n")
	var head http1.RequestHead
	if err := http1.NewReader(strings.NewReader(b.String())).ReadRequest(&head); err != nil {
		return err
	}
	return req.FromHTTP1(1, in, &head)
}

// hasBody reports methods whose requests have a body as a rule.
func hasBody(method string) bool { return method == "POST" || method == "PUT" || method == "PATCH" }

// upgradeFields make a request a WebSocket handshake (RFC 6455 section 4.1).
const upgradeFields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func isWebSocket(url string) bool {
	return strings.HasPrefix(url, "wss://") || strings.HasPrefix(url, "ws://")
}

func isContentType(header string) bool {
	name, _, _ := strings.Cut(header, ":")
	return strings.EqualFold(name, "content-type")
}

// refused is the answer to a request that the engine would not even read. Any
// other error is the question's fault.
func refused(err error) (answer, error) {
	var ambiguous *canon.Error
	var framing *http1.Error
	switch {
	case errors.As(err, &ambiguous):
		return answer{Decision: policy.Decision{Reason: policy.Reason(ambiguous.Reason), Detail: ambiguous.Detail}}, nil
	case errors.As(err, &framing):
		return answer{Decision: policy.Decision{Reason: policy.Reason(framing.Reason), Detail: framing.Detail}}, nil
	default:
		return answer{}, err
	}
}

// splitURL takes a URL apart without repairing it: net/url would hide from the
// policy what the policy is to judge. HOST:PORT alone is a tunnel's name.
func splitURL(url string) (scheme canon.Scheme, authority, target string, err error) {
	if strings.ContainsAny(url, "\r\n \t") {
		return canon.NoScheme, "", "", fmt.Errorf("%q: a URL has no white space", url)
	}
	word, rest, ok := strings.Cut(url, "://")
	switch {
	case ok && (word == "https" || word == "wss"):
		scheme = canon.HTTPS
	case ok && (word == "http" || word == "ws"):
		scheme = canon.HTTP
	case !strings.Contains(url, "/"):
		return canon.HTTPS, url, "/", nil
	default:
		return canon.NoScheme, "", "", fmt.Errorf("%q: want a URL that begins with https:// or http://, or HOST:PORT", url)
	}
	at := strings.IndexAny(rest, "/?#")
	if at < 0 {
		return scheme, rest, "/", nil
	}
	target = rest[at:]
	if target[0] != '/' {
		target = "/" + target
	}
	return scheme, rest[:at], target, nil
}

// describe is the canonical form in one line.
func describe(req *canon.Request) string {
	if req.Scheme == canon.Tunnel {
		return fmt.Sprintf("CONNECT %s:%d", req.Host, req.Port)
	}
	return fmt.Sprintf("%s %s://%s%s", req.Method, req.Scheme, req.HostHeader(nil), req.Target(nil))
}

// parseAgent reads namespace/serviceaccount, or the name of a laptop's agent;
// "" is the one that serve and exec have by default.
func parseAgent(s string) identity.Principal {
	if s == "" {
		return identity.Principal{AgentIdentity: defaultIdentity}
	}
	if ns, sa, ok := strings.Cut(s, "/"); ok && ns != "" && sa != "" {
		return identity.Principal{Namespace: ns, ServiceAccount: sa}
	}
	return identity.Principal{AgentIdentity: s}
}
