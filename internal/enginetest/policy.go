package enginetest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// defaultPolicy is what a test gets that names none: enough for a first
// request, and enough to be refused.
const defaultPolicy = `
- name: read
  {{to "allowed.test"}}
  methods: [GET, HEAD, POST, PUT]
  paths: ["/**"]
- name: chat
  {{to "api.openai.com"}}
  methods: [POST]
  paths: [/v1/chat/completions]
`

// header makes a document of a list of rules.
const header = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: test}
spec:
  rules:
`

// expand turns a test's policy into a policy file. Origins listen on ports that
// the system picks and on loopback, which rules have to name; hence a template:
//
//	{{to "a.test" "b.test"}}   hosts, ports, addresses, and scheme where it is http
//	{{port "a.test"}}          the port of the origin
//	{{ports}}                  the ports of all origins, with commas
//	{{loopback}}               the range for addresses
//
// A text that begins with "- " is a list of rules and is put into a document.
func (e *Engine) expand(text string) (string, error) {
	text = strings.Trim(text, "\n")
	if strings.HasPrefix(text, "- ") {
		text = header + "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
	}
	t, err := template.New("policy").Option("missingkey=error").Funcs(template.FuncMap{
		"to":       e.to,
		"port":     e.portOf,
		"ports":    func() string { return ports(slices.Collect(maps.Values(e.origins))) },
		"loopback": func() string { return loopback },
	}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("the test's policy is no template: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, nil); err != nil {
		return "", fmt.Errorf("expanding the test's policy: %w", err)
	}
	return indentTo(b.String()), nil
}

const loopback = "127.0.0.0/8"

// newline stands for a line break at the column where {{to}} stood.
const newline = "\x00"

func (e *Engine) to(hosts ...string) string {
	var origins []*Origin
	quoted, scheme := make([]string, len(hosts)), ""
	for i, h := range hosts {
		quoted[i] = strconv.Quote(h)
		o := e.origins[h]
		if o == nil { // a pattern, or a name that only resolves
			origins = slices.AppendSeq(origins, maps.Values(e.origins))
			continue
		}
		origins = append(origins, o)
		if !o.tls {
			scheme = newline + "scheme: http"
		}
	}
	return "hosts: [" + strings.Join(quoted, ", ") + "]" + newline + "ports: [" + ports(origins) + "]" +
		newline + "addresses: [" + loopback + "]" + scheme
}

func ports(origins []*Origin) string {
	var all []string
	for _, o := range origins {
		all = append(all, strconv.Itoa(int(o.Addr.Port())))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// indentTo gives the lines that {{to}} stands for the column it stood at.
func indentTo(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if at := strings.Index(line, "hosts: ["); at >= 0 {
			lines[i] = strings.ReplaceAll(line, newline, "\n"+strings.Repeat(" ", at))
		}
	}
	return strings.Join(lines, "\n")
}

// compile makes a policy set of a test's policy.
func (e *Engine) compile(text string) (*policy.Set, error) {
	full, err := e.expand(text)
	if err != nil {
		return nil, err
	}
	docs, err := v1alpha1.Parse("test-policy.yaml", []byte(full))
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, full)
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true, Observe: e.options.Observe})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, full)
	}
	return set, nil
}
