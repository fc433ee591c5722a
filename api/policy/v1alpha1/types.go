// Package v1alpha1 is the policy file: its Go types, its reader and its rules
// of form. It says what a policy means; package policy of the engine says what
// it decides.
//
// # The file
//
// A file is YAML with one or more documents:
//
//	apiVersion: aegrail.io/v1alpha1
//	kind: AgentPolicy
//	metadata: {name: support-bot}
//	spec:
//	  agents:
//	    namespaces: [support]
//	    serviceAccounts: [support-bot]
//	  mode: enforce
//	  allowlist: [pypi.pkg.example]
//	  rules:
//	    - name: openai-chat
//	      hosts: [api.openai.com]
//	      methods: [POST]
//	      paths: [/v1/chat/completions]
//	      limits: {rate: 30/min, requestBytes: 1Mi}
//
// It is taken whole or not at all. An unknown key, a key given twice, an empty
// list, a value of another type, an anchor that multiplies: each is an Error
// with file, line, column, what was expected and what to write instead.
//
// YAML reads some plain words in more than one way (no, on, y, 1.10,
// 2026-01-01), and Helm's reader disagrees with others about them. Where text
// is expected, such a word must be in quotes.
//
// # What is left out means
//
//   - action: allow
//   - scheme: https; on a deny rule every scheme
//   - ports: 443, and 80 for scheme http; on a deny rule every port
//   - methods, paths: all of them
//   - agents: an error where Kubernetes vouches for callers; everybody on a laptop
//   - rules and allowlist: nothing is allowed
//
// # Hosts
//
// An exact name; "*.example.com", which is any depth below and not the apex; a
// "*" label in the middle, which is one label; "*" alone, which is every name.
// IP addresses are written as CIDRs, and no name pattern allows one. A deny
// rule for "*" covers addresses too. A rule whose hosts are all CIDRs lets
// them through the address guard; beside a name, that takes addresses.
//
// # Paths
//
// A pattern is matched against the canonical path by segments: "*" is one
// segment that is not empty, "**" is the rest (one or more segments) and can
// only come last. "/v1/**" therefore covers "/v1/" and "/v1/a/b" but not
// "/v1", and "/**" covers every path. Percent-encoded octets are compared by
// value, so "/caf%C3%A9" and "/café" are one pattern; an encoded slash is never
// a separator.
package v1alpha1

// APIVersion and Kind are what the head of each document must say.
const (
	APIVersion = "aegrail.io/v1alpha1"
	Kind       = "AgentPolicy"
)

// AgentPolicy is one document. The zero value allows nothing.
type AgentPolicy struct {
	APIVersion string   `json:"apiVersion" yaml:"apiVersion"`
	Kind       string   `json:"kind" yaml:"kind"`
	Metadata   Metadata `json:"metadata" yaml:"metadata"`
	Spec       Spec     `json:"spec" yaml:"spec"`

	// Source says where the parts were read, for error messages. It is empty
	// in a policy that was made in Go and is no part of the policy's content.
	Source Source `json:"-" yaml:"-"`
}

// Metadata names the policy. Names are unique in a set: they are in the audit
// log, and the counters of limits go by them.
type Metadata struct {
	Name string `json:"name" yaml:"name"`
}

// Spec is the policy itself.
type Spec struct {
	Agents    Agents   `json:"agents,omitzero" yaml:"agents,omitempty"`
	Mode      Mode     `json:"mode,omitempty" yaml:"mode,omitempty"`
	Allowlist []string `json:"allowlist,omitempty" yaml:"allowlist,omitempty"` // hosts: every method and path, https on 443 and http on 80
	Rules     []Rule   `json:"rules,omitempty" yaml:"rules,omitempty"`
}

// Agents says whom a policy is for, by what Kubernetes vouches for. Each field
// that is set must match; the zero value selects nobody, except on a laptop,
// where it selects the one agent.
type Agents struct {
	Namespaces      []string `json:"namespaces,omitempty" yaml:"namespaces,omitempty"`
	ServiceAccounts []string `json:"serviceAccounts,omitempty" yaml:"serviceAccounts,omitempty"`
}

// IsZero reports that no field is set.
func (a Agents) IsZero() bool { return len(a.Namespaces) == 0 && len(a.ServiceAccounts) == 0 }

// Mode says whether denials hold. The zero value enforces.
type Mode string

const (
	Enforce Mode = "enforce"
	Observe Mode = "observe" // a policy denial is recorded and let pass; never framing, names, addresses, upstream TLS
)

// Action is what a rule does with what it matches. The zero value allows what
// the rule names, which is nothing without hosts.
type Action string

const (
	Allow Action = "allow"
	Deny  Action = "deny" // beats every allow, whatever the order
	Hold  Action = "hold" // for approvals; refused when loaded until they exist
)

// Rule matches requests by their head and, where When says so, by their body.
type Rule struct {
	Name           string     `json:"name,omitempty" yaml:"name,omitempty"`     // unique in the policy; "rule-<n>" where left out
	Action         Action     `json:"action,omitempty" yaml:"action,omitempty"` // allow | deny | hold
	Hosts          []string   `json:"hosts" yaml:"hosts"`
	Ports          []uint16   `json:"ports,omitempty" yaml:"ports,omitempty,flow"`
	Scheme         Scheme     `json:"scheme,omitempty" yaml:"scheme,omitempty"` // https | http | any
	Methods        []string   `json:"methods,omitempty" yaml:"methods,omitempty,flow"`
	Paths          []string   `json:"paths,omitempty" yaml:"paths,omitempty"`
	Path           PathOptIns `json:"path,omitzero" yaml:"path,omitempty"`
	When           string     `json:"when,omitempty" yaml:"when,omitempty"` // CEL over request.*
	Limits         Limits     `json:"limits,omitzero" yaml:"limits,omitempty"`
	TLS            TLS        `json:"tls,omitempty" yaml:"tls,omitempty"` // inspect | passthrough
	WebSocket      bool       `json:"websocket,omitempty" yaml:"websocket,omitempty"`
	NoSNI          OptIn      `json:"noSNI,omitempty" yaml:"noSNI,omitempty"`                   // a ClientHello without a name is taken for the CONNECT target
	MethodOverride OptIn      `json:"methodOverride,omitempty" yaml:"methodOverride,omitempty"` // X-HTTP-Method-Override and kin are let through
	Addresses      []string   `json:"addresses,omitempty" yaml:"addresses,omitempty"`           // CIDRs that the address guard lets through for this rule's hosts
	Upstream       Upstream   `json:"upstream,omitzero" yaml:"upstream,omitempty"`
	Headers        Headers    `json:"headers,omitzero" yaml:"headers,omitempty"`
	RecordPath     RecordPath `json:"recordPath,omitempty" yaml:"recordPath,omitempty"` // full | pattern | hash
}

// Scheme is the scheme a rule is for. The zero value is https for an allow
// rule and every scheme for a deny rule.
type Scheme string

const (
	HTTPS     Scheme = "https"
	HTTP      Scheme = "http"
	AnyScheme Scheme = "any"
)

// TLS says whether the engine looks inside. The zero value inspects.
type TLS string

const (
	Inspect     TLS = "inspect"
	Passthrough TLS = "passthrough" // by host only, spliced unseen, recorded as such
)

// OptIn lets through what is refused by default. The zero value refuses.
type OptIn string

const (
	OptInAllow OptIn = "allow"
	OptInDeny  OptIn = "deny"
)

// Allowed reports that the rule opted in.
func (o OptIn) Allowed() bool { return o == OptInAllow }

// PathOptIns lets spellings of a path through that servers read differently.
type PathOptIns struct {
	EncodedSlash OptIn `json:"encodedSlash,omitempty" yaml:"encodedSlash,omitempty"` // %2F, which is then no separator
	Semicolon    OptIn `json:"semicolon,omitempty" yaml:"semicolon,omitempty"`       // ;parameters
	DoubleSlash  OptIn `json:"doubleSlash,omitempty" yaml:"doubleSlash,omitempty"`   // empty segments
}

// Limits bound what a rule allows. Zero is no limit, except that a body that a
// condition reads is at most 1 MiB.
type Limits struct {
	Rate         Rate  `json:"rate,omitzero" yaml:"rate,omitempty"`
	RequestBytes Bytes `json:"requestBytes,omitempty" yaml:"requestBytes,omitempty"`
	MaxRequests  int64 `json:"maxRequests,omitempty" yaml:"maxRequests,omitempty"` // for the life of the engine
}

// Upstream says how the server must prove itself.
type Upstream struct {
	RootsFile string   `json:"rootsFile,omitempty" yaml:"rootsFile,omitempty"` // PEM; instead of the default roots
	SPKIPins  []string `json:"spkiPins,omitempty" yaml:"spkiPins,omitempty"`   // sha256/<base64>; one of them must be in the chain
}

// Headers are edits made before the request is permitted. Framing, Host and
// hop-by-hop fields cannot be edited.
type Headers struct {
	Set    map[string]string `json:"set,omitempty" yaml:"set,omitempty"`
	Remove []string          `json:"remove,omitempty" yaml:"remove,omitempty"`
}

// RecordPath says how much of a path the audit log holds. The zero value is
// the whole path.
type RecordPath string

const (
	RecordFull    RecordPath = "full"
	RecordPattern RecordPath = "pattern" // the pattern that matched
	RecordHash    RecordPath = "hash"    // SHA-256 of the canonical path
)

// Endpoint is a scheme and a port that a rule is for. Port 0 is every port.
type Endpoint struct {
	Scheme Scheme // HTTPS or HTTP
	Port   uint16
}

// Endpoints returns what the rule's scheme and ports come to, defaults filled
// in.
func (r *Rule) Endpoints() []Endpoint {
	schemes := []Scheme{HTTPS}
	switch {
	case r.Scheme == HTTP:
		schemes = []Scheme{HTTP}
	case r.Scheme == AnyScheme, r.Scheme == "" && r.Action == Deny:
		schemes = []Scheme{HTTPS, HTTP}
	}
	var out []Endpoint
	for _, scheme := range schemes {
		switch {
		case len(r.Ports) > 0:
			for _, port := range r.Ports {
				out = append(out, Endpoint{scheme, port})
			}
		case r.Action == Deny:
			out = append(out, Endpoint{scheme, 0})
		case scheme == HTTP:
			out = append(out, Endpoint{scheme, 80})
		default:
			out = append(out, Endpoint{scheme, 443})
		}
	}
	return out
}
