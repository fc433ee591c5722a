package v1alpha1

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Case is one row of a cases file, which lies beside a policy and says what
// the policy must decide:
//
//   - name: chat is allowed
//     agent: support/support-bot
//     method: POST
//     url: https://api.openai.com/v1/chat/completions
//     headers: {content-type: application/json}
//     body: '{"model":"gpt-5"}'
//     want: allow
//     rule: openai-chat
type Case struct {
	Name    string
	Agent   string            // namespace/serviceaccount, or the name of a laptop's agent; "" is the laptop's
	Method  string            // GET where left out; CONNECT asks for a passthrough tunnel
	URL     string            // http, https, ws or wss
	Headers map[string]string // sent with the request
	Body    string            // sent with the request; as JSON unless headers say otherwise
	Want    Want
	Reason  string // also compared, if set
	Rule    string // also compared, if set
	File    string
	Line    int
}

// Want is the verdict that a case expects.
type Want string

const (
	WantAllow Want = "allow"
	WantDeny  Want = "deny"
)

// ParseCases reads a cases file as strictly as Parse reads a policy.
func ParseCases(name string, data []byte) ([]Case, error) {
	roots, err := documents(name, data)
	if err != nil {
		return nil, err
	}
	d := newDecoder(name, len(data))
	var out []Case
	for _, root := range roots {
		d.list(root, "", 1, func(n *yaml.Node, field string) {
			c := Case{Method: "GET", File: name, Line: n.Line}
			before := len(d.errs)
			d.testCase(n, field, &c)
			if len(d.errs) == before {
				d.complete(n, field, &c)
			}
			out = append(out, c)
		})
	}
	if len(d.errs) > 0 {
		return nil, d.errs
	}
	if len(out) == 0 {
		return nil, Errors{{File: name, Line: 1, Column: 1, Problem: "there are no cases in the file", Expected: "a list of {name, method, url, want}"}}
	}
	return out, nil
}

func (d *decoder) testCase(n *yaml.Node, field string, c *Case) {
	d.mapping(n, field, []key{
		{"name", func(n *yaml.Node, f string) { d.text(n, f, "a sentence", &c.Name) }},
		{"agent", func(n *yaml.Node, f string) { d.text(n, f, "namespace/serviceaccount", &c.Agent) }},
		{"method", func(n *yaml.Node, f string) { d.text(n, f, "a method such as GET", &c.Method) }},
		{"url", func(n *yaml.Node, f string) { d.text(n, f, "a URL", &c.URL) }},
		{"headers", func(n *yaml.Node, f string) { d.stringMap(n, f, "a header value", &c.Headers) }},
		{"body", func(n *yaml.Node, f string) { d.text(n, f, "text", &c.Body) }},
		{"want", word(d, &c.Want, WantAllow, WantDeny)},
		{"reason", func(n *yaml.Node, f string) { d.text(n, f, "a reason such as method_not_allowed", &c.Reason) }},
		{"rule", func(n *yaml.Node, f string) { d.text(n, f, "a rule's name", &c.Rule) }},
	})
}

// complete refuses a case that lacks what it cannot do without.
func (d *decoder) complete(n *yaml.Node, field string, c *Case) {
	if c.Want == "" {
		d.fail(n, field, "has no want", "want: allow or want: deny", "")
	}
	scheme, rest, found := strings.Cut(c.URL, "://")
	known := scheme == "https" || scheme == "http" || scheme == "wss" || scheme == "ws"
	switch {
	case c.URL == "":
		d.fail(n, field, "has no url", "a URL such as https://api.example.com/v1", "")
	case !found || !known || rest == "" || rest[0] == '/': // what comes after is the engine's to judge
		d.fail(n, field+".url", fmt.Sprintf("is %q", shorten(c.URL)), "a URL such as https://api.example.com/v1", "")
	}
}
