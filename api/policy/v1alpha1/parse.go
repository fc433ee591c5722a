package v1alpha1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxFile is the largest policy file: about 100 000 rules.
const MaxFile = 32 << 20

// Parse reads a policy file. Name is the file's name, for messages. An error
// is an *Error or Errors, and then no policy is returned. A file without a
// document is an error: it is more often a file cut short than a wish to deny
// everything, which "spec: {rules: []}" says.
func Parse(name string, data []byte) ([]AgentPolicy, error) {
	roots, err := documents(name, data)
	if err != nil {
		return nil, err
	}
	d := newDecoder(name, len(data))
	var out []AgentPolicy
	for _, root := range roots {
		d.at = map[string]Pos{}
		p := AgentPolicy{Source: Source{File: name, at: d.at}}
		d.policy(root, &p)
		out = append(out, p)
	}
	if len(d.errs) > 0 {
		return nil, d.errs
	}
	if len(out) == 0 {
		return nil, Errors{{File: name, Line: 1, Column: 1, Problem: "there is no policy in the file",
			Expected: "a document with apiVersion: " + APIVersion, Fix: `to deny everything, write one with "spec: {rules: []}"`}}
	}
	if err := Validate(out); err != nil {
		return nil, err
	}
	return out, nil
}

// documents splits a file into the root nodes of its documents, leaving out
// empty ones.
func documents(name string, data []byte) ([]*yaml.Node, error) {
	switch {
	case len(data) > MaxFile:
		return nil, Errors{{File: name, Line: 1, Column: 1, Problem: fmt.Sprintf("the file has %d bytes", len(data)), Expected: fmt.Sprintf("at most %d", MaxFile), Fix: "split it"}}
	case !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
		return nil, Errors{{File: name, Line: 1, Column: 1, Problem: "the file is not UTF-8 text", Expected: "UTF-8", Fix: "convert it"}}
	}
	var roots []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, Errors{syntaxError(name, data, err)}
		}
		if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" && doc.Content[0].Value == "" {
			continue
		}
		roots = append(roots, doc.Content[0])
	}
}

// syntaxError makes an Error of what the YAML reader says, which is a line at
// best, and looks at that line for the usual cause.
func syntaxError(name string, data []byte, err error) *Error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1]) // at most a few digits, by the expression
		message = message[len(m[0]):]
	}
	line = brokenLine(data, line)
	var text string
	if lines := strings.Split(string(data), "\n"); line <= len(lines) {
		text = lines[line-1]
	}
	e := &Error{File: name, Line: line, Column: len(text) - len(strings.TrimLeft(text, " \t")) + 1, Problem: "is not YAML: " + message}
	switch star := strings.IndexByte(text, '*'); {
	case strings.HasPrefix(strings.TrimLeft(text, " "), "\t"):
		e.Fix = "indent with spaces, not tabs"
	case star >= 0 && !strings.ContainsAny(text[:star], `"'`):
		e.Column = star + 1
		e.Fix = `put what begins with * in quotes, as in "*.example.com"`
	case misplaced(message):
		e.Fix = "indent it as far as the lines that it belongs with, and write one key a line"
	}
	return e
}

// misplaced reports what the YAML reader says where a line has the wrong indentation.
func misplaced(message string) bool {
	for _, said := range []string{"did not find expected '-' indicator", "did not find expected key", "mapping values are not allowed in this context"} {
		if strings.HasPrefix(message, said) {
			return true
		}
	}
	return false
}

// brokenLine is the first line with which data is no YAML any more. The reader
// says where what it was reading began, which is above a line with the wrong
// indentation. It is looked for in what a person writes by hand: 32 KiB, and 100
// lines from the one that the reader names.
func brokenLine(data []byte, named int) int {
	const most, look = 32 << 10, 100
	if len(data) > most {
		return named
	}
	broken, end := named, 0
	for n, line := range bytes.SplitAfter(data, []byte("\n")) {
		if end += len(line); n+1 < named {
			continue
		}
		if n+1 > named+look {
			break
		}
		if readable(data[:end]) {
			broken = n + 2
		}
	}
	return broken
}

// readable reports that data is YAML.
func readable(data []byte) bool {
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

func (d *decoder) policy(n *yaml.Node, p *AgentPolicy) {
	d.mapping(n, "", []key{
		{"apiVersion", func(n *yaml.Node, f string) { d.text(n, f, APIVersion, &p.APIVersion) }},
		{"kind", func(n *yaml.Node, f string) { d.text(n, f, Kind, &p.Kind) }},
		{"metadata", func(n *yaml.Node, f string) {
			d.mapping(n, f, []key{{"name", func(n *yaml.Node, f string) { d.text(n, f, "a name", &p.Metadata.Name) }}})
		}},
		{"spec", func(n *yaml.Node, f string) { d.spec(n, f, &p.Spec) }},
	})
}

func (d *decoder) spec(n *yaml.Node, field string, s *Spec) {
	d.mapping(n, field, []key{
		{"agents", func(n *yaml.Node, f string) {
			d.mapping(n, f, []key{
				{"namespaces", func(n *yaml.Node, f string) { d.texts(n, f, "a namespace", &s.Agents.Namespaces) }},
				{"serviceAccounts", func(n *yaml.Node, f string) { d.texts(n, f, "a service account", &s.Agents.ServiceAccounts) }},
			})
		}},
		{"mode", word(d, &s.Mode, Enforce, Observe)},
		{"allowlist", func(n *yaml.Node, f string) {
			d.list(n, f, 0, func(n *yaml.Node, f string) {
				var host string
				d.text(n, f, "a host", &host)
				s.Allowlist = append(s.Allowlist, host)
			})
		}},
		{"rules", func(n *yaml.Node, f string) {
			d.list(n, f, 0, func(n *yaml.Node, f string) {
				var r Rule
				d.rule(n, f, &r)
				s.Rules = append(s.Rules, r)
			})
		}},
	})
}

func (d *decoder) rule(n *yaml.Node, field string, r *Rule) {
	d.mapping(n, field, []key{
		{"name", func(n *yaml.Node, f string) { d.text(n, f, "a name", &r.Name) }},
		{"action", word(d, &r.Action, Allow, Deny, Hold)},
		{"hosts", func(n *yaml.Node, f string) { d.texts(n, f, "a host", &r.Hosts) }},
		{"ports", func(n *yaml.Node, f string) {
			d.list(n, f, 1, func(n *yaml.Node, f string) {
				var port int64
				d.number(n, f, 1, 65535, &port)
				r.Ports = append(r.Ports, uint16(port))
			})
		}},
		{"scheme", word(d, &r.Scheme, HTTPS, HTTP, AnyScheme)},
		{"methods", func(n *yaml.Node, f string) { d.texts(n, f, "a method such as GET", &r.Methods) }},
		{"paths", func(n *yaml.Node, f string) { d.texts(n, f, "a path such as /v1/*", &r.Paths) }},
		{"path", func(n *yaml.Node, f string) {
			d.mapping(n, f, []key{
				{"encodedSlash", word(d, &r.Path.EncodedSlash, OptInAllow, OptInDeny)},
				{"semicolon", word(d, &r.Path.Semicolon, OptInAllow, OptInDeny)},
				{"doubleSlash", word(d, &r.Path.DoubleSlash, OptInAllow, OptInDeny)},
			})
		}},
		{"when", func(n *yaml.Node, f string) { d.text(n, f, "a CEL expression", &r.When) }},
		{"limits", func(n *yaml.Node, f string) { d.limits(n, f, &r.Limits) }},
		{"tls", word(d, &r.TLS, Inspect, Passthrough)},
		{"websocket", func(n *yaml.Node, f string) { d.truth(n, f, &r.WebSocket) }},
		{"noSNI", word(d, &r.NoSNI, OptInAllow, OptInDeny)},
		{"methodOverride", word(d, &r.MethodOverride, OptInAllow, OptInDeny)},
		{"addresses", func(n *yaml.Node, f string) { d.texts(n, f, "a CIDR such as 10.1.0.0/16", &r.Addresses) }},
		{"upstream", func(n *yaml.Node, f string) {
			d.mapping(n, f, []key{
				{"rootsFile", func(n *yaml.Node, f string) { d.text(n, f, "a PEM file", &r.Upstream.RootsFile) }},
				{"spkiPins", func(n *yaml.Node, f string) { d.texts(n, f, "sha256/<base64>", &r.Upstream.SPKIPins) }},
			})
		}},
		{"headers", func(n *yaml.Node, f string) { d.headers(n, f, &r.Headers) }},
		{"recordPath", word(d, &r.RecordPath, RecordFull, RecordPattern, RecordHash)},
	})
}

func (d *decoder) limits(n *yaml.Node, field string, l *Limits) {
	d.mapping(n, field, []key{
		{"rate", func(n *yaml.Node, f string) {
			var s string
			if d.text(n, f, "a rate such as 30/min", &s); s == "" {
				return
			}
			rate, err := ParseRate(s)
			if err != nil {
				d.fail(n, f, err.Error(), "", "")
			}
			l.Rate = rate
		}},
		{"requestBytes", func(n *yaml.Node, f string) {
			const expected = "a size such as 1Mi"
			if n = d.enter(n, f, expected); n == nil {
				return
			}
			if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!str" && tag != "!!int" {
				d.fail(n, f, "is "+describe(n), expected, "")
				return
			}
			size, err := ParseBytes(n.Value)
			if err != nil {
				d.fail(n, f, err.Error(), "", "")
			}
			l.RequestBytes = size
		}},
		{"maxRequests", func(n *yaml.Node, f string) { d.number(n, f, 1, 1<<53, &l.MaxRequests) }},
	})
}

func (d *decoder) headers(n *yaml.Node, field string, h *Headers) {
	d.mapping(n, field, []key{
		{"set", func(n *yaml.Node, f string) { d.stringMap(n, f, "a header value", &h.Set) }},
		{"remove", func(n *yaml.Node, f string) { d.texts(n, f, "a header name", &h.Remove) }},
	})
}

// stringMap reads a mapping of text to text.
func (d *decoder) stringMap(n *yaml.Node, field, expected string, to *map[string]string) {
	if n = d.enter(n, field, "a mapping"); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" || len(n.Content) == 0 {
		d.fail(n, field, "is "+describe(n), "a mapping of names to values", "")
		return
	}
	*to = make(map[string]string, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		var name, value string
		d.text(n.Content[i], field, "a name", &name)
		if _, twice := (*to)[name]; twice {
			d.fail(n.Content[i], join(field, name), "is given twice", "", "remove one")
		}
		d.text(n.Content[i+1], join(field, name), expected, &value)
		(*to)[name] = value
	}
}

// Marshal writes policies as a file that Parse reads to the same policies.
// What was left out stays out.
func Marshal(policies []AgentPolicy) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for i := range policies {
		if err := enc.Encode(&policies[i]); err != nil {
			return nil, fmt.Errorf("writing policy %s: %w", policies[i].Metadata.Name, err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing policies: %w", err)
	}
	return out.Bytes(), nil
}

// Canonical returns the content of policies in one form, whatever the layout
// and comments of their files: what a revision is the hash of.
func Canonical(policies []AgentPolicy) ([]byte, error) {
	out, err := json.Marshal(policies)
	if err != nil {
		return nil, fmt.Errorf("writing policies: %w", err)
	}
	return out, nil
}
