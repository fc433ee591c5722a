package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
)

// FlagsPolicy is the name under which the log names what came from flags.
const FlagsPolicy = "flags"

// Options say how policies are compiled.
type Options struct {
	// AnyAgent lets policies without agents select everybody. It is for a
	// laptop, where nobody vouches for callers. Without it such a policy is
	// refused.
	AnyAgent bool

	// Observe makes every policy observe, and agents without a policy too.
	Observe bool

	// Files reads a rootsFile. Nil: a policy that has one is refused, as where
	// aegrail-control serves the policy, whose files no engine has.
	Files func(name string) ([]byte, error)

	// AllowHosts is an allowlist for every agent, from flags.
	AllowHosts []string

	// Limits hold for every request that is let out, from flags.
	Limits v1alpha1.Limits
}

// Warning is something in a policy that is allowed and likely not meant.
type Warning struct {
	File         string
	Line, Column int
	Message      string
}

// String gives place and message in one line.
func (w Warning) String() string {
	if w.Line == 0 {
		return w.File + ": " + w.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", w.File, w.Line, w.Column, w.Message)
}

// Set is all policies, compiled. It does not change and may be used from many
// goroutines. A nil Set denies everything.
type Set struct {
	revision string
	policies []*compiled
	observe  bool
	observed *outcome // of what observe lets pass
	nobody   *View
	pools    pools

	mu    sync.Mutex
	views map[string]*View // :: indexes of policies, two bytes each → their view
}

// compiled is one policy.
type compiled struct {
	doc     *v1alpha1.AgentPolicy
	anyone  bool
	observe bool
	rules   []*rule
}

// selects reports that the policy is for p.
func (c *compiled) selects(p identity.Principal) bool {
	a := &c.doc.Spec.Agents
	switch {
	case c.anyone:
		return true
	case a.IsZero():
		return false
	case len(a.Namespaces) > 0 && !slices.Contains(a.Namespaces, p.Namespace),
		len(a.ServiceAccounts) > 0 && !slices.Contains(a.ServiceAccounts, p.ServiceAccount):
		return false
	}
	return true
}

// meets reports that some principal is selected by both policies.
func (c *compiled) meets(d *compiled) bool {
	common := func(a, b []string) bool {
		return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
	}
	a, b := c.doc.Spec.Agents, d.doc.Spec.Agents
	return c == d || c.anyone || d.anyone || common(a.Namespaces, b.Namespaces) && common(a.ServiceAccounts, b.ServiceAccounts)
}

const (
	maxPolicies = 1 << 16   // so that two bytes name a policy
	maxHosts    = indexMask // so that a slot of hostTable holds its index
)

// Compile makes a Set of policies, which it validates first. All of them are
// taken or none.
func Compile(docs []v1alpha1.AgentPolicy, o Options) (*Set, []Warning, error) {
	docs = slices.Clone(docs)
	if len(o.AllowHosts) > 0 {
		docs = append(docs, v1alpha1.AgentPolicy{
			APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind,
			Metadata: v1alpha1.Metadata{Name: FlagsPolicy},
			Spec:     v1alpha1.Spec{Allowlist: o.AllowHosts},
		})
	}
	if err := v1alpha1.Validate(docs); err != nil {
		return nil, nil, err
	}
	if len(docs) > maxPolicies {
		return nil, nil, fmt.Errorf("compiling policies: there are %d, the limit is %d", len(docs), maxPolicies)
	}
	c := &compiler{o: o, roots: map[string]*rootsFile{}, plain: &Egress{}}
	if err := c.start(); err != nil {
		return nil, nil, err
	}
	s := &Set{observe: o.Observe, views: map[string]*View{}}
	for i := range docs {
		s.policies = append(s.policies, c.policy(&docs[i], len(o.AllowHosts) > 0 && i == len(docs)-1))
	}
	c.passthroughs(s.policies)
	if len(c.errs) > 0 {
		return nil, nil, c.errs[:min(len(c.errs), 10)]
	}
	var err error
	if s.revision, err = c.revision(docs); err != nil {
		return nil, nil, err
	}
	s.observed = &outcome{egress: &Egress{}, limits: c.flagLimits()}
	s.nobody = newView(s, nil)
	s.prepare()
	return s, warnings(s.policies), nil
}

// prepare makes the views that are known beforehand, so that no first
// connection waits for one.
func (s *Set) prepare() {
	const most = 256
	s.For(identity.Principal{})
	for _, c := range s.policies {
		a := c.doc.Spec.Agents
		for _, namespace := range append(slices.Clone(a.Namespaces), "")[:max(1, len(a.Namespaces))] {
			for _, account := range append(slices.Clone(a.ServiceAccounts), "")[:max(1, len(a.ServiceAccounts))] {
				if len(s.views) < most {
					s.For(identity.Principal{Namespace: namespace, ServiceAccount: account})
				}
			}
		}
	}
}

// compiler is the state of one Compile.
type compiler struct {
	o     Options
	env   *cel.Env
	errs  v1alpha1.Errors
	roots map[string]*rootsFile
	rules uint32
	hosts int
	plain *Egress // the default, one for all rules
}

func (c *compiler) start() error {
	env, err := newConditionEnv()
	if err != nil {
		return fmt.Errorf("preparing conditions: %w", err)
	}
	c.env = env
	return nil
}

// allowlistOrder puts allowlists after every rule.
const allowlistOrder = 1 << 30

func (c *compiler) policy(doc *v1alpha1.AgentPolicy, flags bool) *compiled {
	out := &compiled{doc: doc, anyone: flags || c.o.AnyAgent && doc.Spec.Agents.IsZero(), observe: c.o.Observe || doc.Spec.Mode == v1alpha1.Observe}
	if doc.Spec.Agents.IsZero() && !out.anyone {
		c.errs = append(c.errs, doc.ErrorAt("spec.agents", "is missing", "whom the policy is for", "add agents: {namespaces: [...]}"))
	}
	for i := range doc.Spec.Rules {
		field := fmt.Sprintf("spec.rules[%d]", i)
		r := c.rule(doc, field, &doc.Spec.Rules[i])
		r.name = doc.RuleName(i)
		c.outcome(r, &doc.Spec.Rules[i])
		out.rules = append(out.rules, r)
	}
	if len(doc.Spec.Allowlist) > 0 {
		r := c.rule(doc, "spec.allowlist", &v1alpha1.Rule{Scheme: v1alpha1.AnyScheme})
		r.name = v1alpha1.AllowlistName
		r.order += allowlistOrder
		for i, host := range doc.Spec.Allowlist {
			c.host(r, fmt.Sprintf("spec.allowlist[%d]", i), host)
		}
		c.outcome(r, &v1alpha1.Rule{})
		out.rules = append(out.rules, r)
	}
	return out
}

func (c *compiler) fail(r *rule, field, problem, expected, fix string) {
	c.errs = append(c.errs, r.doc.ErrorAt(field, problem, expected, fix))
}

// rule compiles what a rule matches by.
func (c *compiler) rule(doc *v1alpha1.AgentPolicy, field string, in *v1alpha1.Rule) *rule {
	c.rules++
	r := &rule{
		id: c.rules, order: int(c.rules), policy: doc.Metadata.Name, doc: doc, field: field,
		matcher: matcher{
			deny: in.Action == v1alpha1.Deny, passthrough: in.TLS == v1alpha1.Passthrough, websocket: in.WebSocket,
			methods: newMethodSet(in.Methods),
		},
		noSNI: in.NoSNI.Allowed(), paths: in.Paths, bodyLimit: int64(in.Limits.RequestBytes),
	}
	for _, opt := range []struct {
		in  v1alpha1.OptIn
		bit canon.Quirks
	}{
		{in.Path.EncodedSlash, canon.EncodedSlash}, {in.Path.Semicolon, canon.Semicolon},
		{in.Path.DoubleSlash, canon.DoubleSlash}, {in.MethodOverride, canon.MethodOverride},
	} {
		if opt.in.Allowed() {
			r.quirks |= opt.bit
		}
	}
	for _, e := range in.Endpoints() {
		if e.Scheme == v1alpha1.HTTP {
			r.http.add(e.Port)
		} else {
			r.https.add(e.Port)
		}
	}
	for i, host := range in.Hosts {
		c.host(r, fmt.Sprintf("%s.hosts[%d]", field, i), host)
	}
	if in.When != "" {
		c.when(r, field+".when", in)
	}
	return r
}

func (c *compiler) host(r *rule, field, text string) {
	p, err := parseHostPattern(text)
	if err != nil {
		c.fail(r, field, err.Error(), "", "")
		return
	}
	r.hosts = append(r.hosts, p)
	if c.hosts++; c.hosts == maxHosts {
		c.fail(r, field, fmt.Sprintf("is host number %d", maxHosts), "fewer hosts", "use patterns such as *.example.com")
	}
}

func (c *compiler) when(r *rule, field string, in *v1alpha1.Rule) {
	cond, err := compileCondition(c.env, in.When)
	switch {
	case err != nil:
		c.fail(r, field, err.Error(), "a CEL expression over request.method, .host, .port, .scheme, .path, .query, .headers and .body.json", "")
		return
	case cond.needBody && in.WebSocket:
		c.fail(r, field, "reads the body, and a WebSocket's stream has no end to read to", "", "remove websocket, or judge request.headers and request.query")
	case cond.needBody && cond.grpc:
		c.fail(r, field, "reads the body, and a gRPC stream has no end to read to", "", "judge methods, paths and request.headers of gRPC")
	}
	r.when = cond
}

// outcome compiles what an allow rule grants.
func (c *compiler) outcome(r *rule, in *v1alpha1.Rule) {
	if r.deny {
		return
	}
	out := &r.out
	*out = outcome{rule: r.name, policy: r.policy, requestBytes: r.bodyLimit, edits: c.edits(r, in.Headers)}
	switch in.RecordPath {
	case v1alpha1.RecordPattern:
		out.record = RecordPattern
	case v1alpha1.RecordHash:
		out.record = RecordHash
	}
	out.recordSet = in.RecordPath != ""
	r.record = out.record
	out.limits = append(limitsOf(r.policy+"/"+r.name, in.Limits), c.flagLimits()...)
	if flag := int64(c.o.Limits.RequestBytes); flag > 0 && (out.requestBytes == 0 || flag < out.requestBytes) {
		out.requestBytes = flag
	}
	out.egress = c.egress(r, in, out)
	r.plain = len(limitsOf("", in.Limits)) == 0 && in.Limits.RequestBytes == 0 && len(out.edits) == 0 && out.egress.Key == "" && !out.recordSet
}

func limitsOf(scope string, l v1alpha1.Limits) []Limit {
	if l.Rate.IsZero() && l.MaxRequests == 0 {
		return nil
	}
	return []Limit{{Scope: scope, Rate: l.Rate.Count, Per: l.Rate.Per, MaxRequests: l.MaxRequests}}
}

func (c *compiler) flagLimits() []Limit { return limitsOf(FlagsPolicy, c.o.Limits) }

func (c *compiler) edits(r *rule, h v1alpha1.Headers) []edit {
	var out []edit
	for i, name := range h.Remove {
		c.settable(r, fmt.Sprintf("%s.headers.remove[%d]", r.field, i), name)
		out = append(out, edit{name: name, remove: true})
	}
	for _, name := range slices.Sorted(maps.Keys(h.Set)) {
		c.settable(r, r.field+".headers.set."+name, name)
		out = append(out, edit{name: name, value: h.Set[name]})
	}
	return out
}

// settable asks the package that makes the edits whether it will.
func (c *compiler) settable(r *rule, field, name string) {
	if err := canon.SettableField(name); err != nil {
		c.fail(r, field, err.Error(), "", "remove it")
	}
}

// egress compiles how upstream may dial. Its roots go to out as well.
func (c *compiler) egress(r *rule, in *v1alpha1.Rule, out *outcome) *Egress {
	e := &Egress{}
	for _, cidr := range in.Addresses {
		e.Addresses = append(e.Addresses, netip.MustParsePrefix(cidr)) // validated
	}
	e.Addresses = append(e.Addresses, literalHosts(r)...)
	for _, pin := range in.Upstream.SPKIPins {
		hash, err := v1alpha1.ParsePin(pin)
		if err != nil { // validated
			c.fail(r, r.field, err.Error(), "", "")
		}
		e.SPKIPins = append(e.SPKIPins, hash)
	}
	if name := in.Upstream.RootsFile; name != "" {
		if c.o.Files == nil {
			c.fail(r, r.field+".upstream.rootsFile", fmt.Sprintf("%q would be a file in the container of each engine, and what aegrail-control serves names none", name), "",
				"leave it out, and have the engines' image trust these roots too (in its /etc/ssl/certs/ca-certificates.crt)")
			return e
		}
		file, err := c.rootsFile(name)
		if err != nil {
			c.fail(r, r.field+".upstream.rootsFile", err.Error(), "a PEM file with certificates", "")
			return e
		}
		out.roots = []*rootsFile{file}
		e.Roots = file.pool
	}
	if e.Key = egressKey(e, out.roots); e.Key == "" {
		return c.plain
	}
	return e
}

// literalHosts is the CIDRs of a rule whose hosts are nothing else: it names the
// addresses themselves. Beside a name they do not count, since that name could
// then be made to resolve to them.
func literalHosts(r *rule) []netip.Prefix {
	var all []netip.Prefix
	for _, h := range r.hosts {
		if !h.prefix.IsValid() {
			return nil
		}
		all = append(all, h.prefix)
	}
	return all
}

func (c *compiler) rootsFile(name string) (*rootsFile, error) {
	if file, ok := c.roots[name]; ok {
		return file, nil
	}
	pem, err := c.o.Files(name)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	file := newRootsFile(pem)
	if file == nil {
		return nil, fmt.Errorf("%q has no certificate in it", name)
	}
	c.roots[name] = file
	return file, nil
}

// egressKey fingerprints an Egress, whatever the order of its parts. The
// default's is "".
func egressKey(e *Egress, roots []*rootsFile) string {
	var parts []string
	for _, prefix := range e.Addresses {
		parts = append(parts, "address "+prefix.String())
	}
	for _, pin := range e.SPKIPins {
		parts = append(parts, "pin "+hex.EncodeToString(pin[:]))
	}
	for _, file := range roots {
		parts = append(parts, "roots "+hex.EncodeToString(file.sum[:]))
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(parts), "\n")))
	return hex.EncodeToString(sum[:16])
}

// revision fingerprints what the set says, with the files it refers to.
func (c *compiler) revision(docs []v1alpha1.AgentPolicy) (string, error) {
	canonical, err := v1alpha1.Canonical(docs)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "any=%t observe=%t limits=%v\n", c.o.AnyAgent, c.o.Observe, c.o.Limits)
	h.Write(canonical)
	for _, name := range slices.Sorted(maps.Keys(c.roots)) {
		fmt.Fprintf(h, "\n%q %x", name, c.roots[name].sum)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))[:12], nil
}
