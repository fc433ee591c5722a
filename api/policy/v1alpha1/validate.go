package v1alpha1

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// AllowlistName is the rule name under which the log names a policy's
// allowlist. No rule may have it.
const AllowlistName = "allowlist"

// maxName bounds names of policies and rules, which are in every record.
const maxName = 100

// validator collects the faults of one policy.
type validator struct {
	p    *AgentPolicy
	errs Errors
}

// Validate checks what a policy says, whether it was read from a file or made
// in Go: the form of hosts, paths, methods and the rest, fields that contradict
// each other, and names given twice. What needs the host canonicaliser, the
// expression compiler or the other policies of an agent is checked when the
// engine compiles the set.
func Validate(policies []AgentPolicy) error {
	var errs Errors
	first := make(map[string]*AgentPolicy, len(policies))
	for i := range policies {
		v := &validator{p: &policies[i]}
		v.policy()
		name := v.p.Metadata.Name
		if other, twice := first[name]; twice && name != "" {
			v.fail("metadata.name", fmt.Sprintf("%q is the name of another policy (%s:%d)", name, other.Source.File, other.Source.Pos("metadata.name").Line), "", "names are in the log and in counters: give each policy its own")
		}
		first[name] = v.p
		errs = append(errs, v.errs...)
	}
	if len(errs) == 0 {
		return nil
	}
	return errs[:min(len(errs), maxErrors)]
}

// RuleName returns the name of rule i as the log has it.
func (p *AgentPolicy) RuleName(i int) string {
	if name := p.Spec.Rules[i].Name; name != "" {
		return name
	}
	return "rule-" + strconv.Itoa(i+1)
}

func (v *validator) fail(field, problem, expected, fix string) {
	v.errs = append(v.errs, v.p.ErrorAt(field, problem, expected, fix))
}

func (v *validator) policy() {
	p := v.p
	for _, must := range []struct{ field, is, want string }{{"apiVersion", p.APIVersion, APIVersion}, {"kind", p.Kind, Kind}} {
		switch must.is {
		case must.want:
		case "":
			v.fail(must.field, "is missing", must.want, "write "+must.field+": "+must.want)
		default:
			v.fail(must.field, "is "+strconv.Quote(must.is), must.want, "")
		}
	}
	v.name("metadata.name", p.Metadata.Name)
	oneOf(v, "spec.mode", p.Spec.Mode, "", Enforce, Observe)
	for i, name := range p.Spec.Agents.Namespaces {
		v.kubernetesName(fmt.Sprintf("spec.agents.namespaces[%d]", i), name)
	}
	for i, name := range p.Spec.Agents.ServiceAccounts {
		v.kubernetesName(fmt.Sprintf("spec.agents.serviceAccounts[%d]", i), name)
	}
	for i, host := range p.Spec.Allowlist {
		v.host("spec.allowlist["+strconv.Itoa(i)+"]", host)
	}
	lines := make(map[string]int, len(p.Spec.Rules))
	for i := range p.Spec.Rules {
		field := "spec.rules[" + strconv.Itoa(i) + "]"
		name := p.RuleName(i)
		if other, twice := lines[name]; twice {
			v.fail(field+".name", fmt.Sprintf("%q is the name of an earlier rule (line %d)", name, other), "", "names are in the log and in counters: give each rule its own")
		}
		lines[name] = p.Source.Pos(field).Line
		v.rule(field, &p.Spec.Rules[i])
		if len(v.errs) >= maxErrors {
			return
		}
	}
}

func (v *validator) name(field, name string) {
	ok := name != "" && len(name) <= maxName && strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) }) < 0 && name[0] != '-' && name[0] != '.'
	if !ok {
		v.fail(field, "is "+strconv.Quote(shorten(name)), fmt.Sprintf("a name of at most %d letters, digits, '-', '_' and '.'", maxName), "")
	}
}

func nameRune(r rune) bool {
	return r == '-' || r == '_' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

func (v *validator) kubernetesName(field, name string) {
	bad := strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) || r == '_' || 'A' <= r && r <= 'Z' }) >= 0
	if name == "" || bad || len(name) > 253 || strings.Trim(name, "-.") != name {
		fix := ""
		if strings.Contains(name, "*") {
			fix = "there are no patterns here: leave the key out to match all"
		}
		v.fail(field, "is "+strconv.Quote(shorten(name)), "a Kubernetes name: lower-case letters, digits, '-' and '.'", fix)
	}
}

// oneOf refuses words that a policy made in Go may hold and a file may not.
func oneOf[T ~string](v *validator, field string, got T, words ...T) {
	if !slices.Contains(words, got) {
		v.fail(field, "is "+strconv.Quote(string(got)), fmt.Sprintf("one of %q", words), "")
	}
}

func (v *validator) rule(field string, r *Rule) {
	if r.Name != "" {
		v.name(field+".name", r.Name)
	}
	if r.Name == AllowlistName {
		v.fail(field+".name", `is "allowlist"`, "", "that is how the log names spec.allowlist: choose another")
	}
	oneOf(v, field+".action", r.Action, "", Allow, Deny, Hold)
	oneOf(v, field+".scheme", r.Scheme, "", HTTPS, HTTP, AnyScheme)
	oneOf(v, field+".tls", r.TLS, "", Inspect, Passthrough)
	oneOf(v, field+".recordPath", r.RecordPath, "", RecordFull, RecordPattern, RecordHash)
	for _, o := range r.optIns() {
		oneOf(v, field+"."+o.name, o.value, "", OptInAllow, OptInDeny)
	}
	if len(r.Hosts) == 0 {
		v.fail(field+".hosts", "is missing", `a list of hosts, or ["*"] for every host`, "")
	}
	for i, host := range r.Hosts {
		v.host(field+".hosts["+strconv.Itoa(i)+"]", host)
	}
	if slices.Contains(r.Ports, 0) {
		v.fail(field+".ports", "has the port 0", "ports from 1 to 65535", "")
	}
	for i, method := range r.Methods {
		v.method(field+".methods["+strconv.Itoa(i)+"]", method)
	}
	for i, path := range r.Paths {
		v.path(field+".paths["+strconv.Itoa(i)+"]", path, r)
	}
	for i, cidr := range r.Addresses {
		v.cidr(field+".addresses["+strconv.Itoa(i)+"]", cidr)
	}
	for i, pin := range r.Upstream.SPKIPins {
		if _, err := ParsePin(pin); err != nil {
			v.fail(field+".upstream.spkiPins["+strconv.Itoa(i)+"]", err.Error(), "", "")
		}
	}
	v.limits(field+".limits", r.Limits)
	v.headers(field+".headers", r.Headers)
	v.together(field, r)
}

// optIn is one opt-in of a rule with the name of its field.
type optIn struct {
	name  string
	value OptIn
}

func (r *Rule) optIns() []optIn {
	return []optIn{
		{"path.encodedSlash", r.Path.EncodedSlash}, {"path.semicolon", r.Path.Semicolon}, {"path.doubleSlash", r.Path.DoubleSlash},
		{"noSNI", r.NoSNI}, {"methodOverride", r.MethodOverride},
	}
}

// together refuses fields that contradict each other or would have no effect,
// since whoever wrote them expects one.
func (v *validator) together(field string, r *Rule) {
	switch {
	case r.Action == Hold:
		v.fail(field+".action", `is "hold"`, "allow or deny", "approvals are not built yet, so nothing could release the request; use deny")
	case r.Action == Deny:
		for _, name := range r.noEffectOnDeny() {
			v.fail(field+"."+name, "has no effect on a deny rule", "", "remove it")
		}
	case r.TLS == Passthrough:
		for _, name := range r.unseenInPassthrough() {
			v.fail(field+"."+name, "cannot be judged in a passthrough tunnel, which is chosen by host and port only", "", "remove it, or let the engine inspect with tls: inspect")
		}
	case r.WebSocket && len(r.Methods) > 0 && !slices.Contains(r.Methods, "GET"):
		v.fail(field+".websocket", "is true but methods leaves out GET, with which every WebSocket begins", "", "add GET to methods")
	}
}

// given is a field of a rule by name, and whether it is set.
type given struct {
	name string
	set  bool
}

func setOf(fields []given) []string {
	var out []string
	for _, f := range fields {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func (r *Rule) noEffectOnDeny() []string {
	fields := []given{
		{"tls", r.TLS == Passthrough}, {"websocket", r.WebSocket}, {"addresses", len(r.Addresses) > 0},
		{"upstream.rootsFile", r.Upstream.RootsFile != ""}, {"upstream.spkiPins", len(r.Upstream.SPKIPins) > 0},
		{"headers", len(r.Headers.Set)+len(r.Headers.Remove) > 0}, {"recordPath", r.RecordPath != ""},
		{"limits.rate", !r.Limits.Rate.IsZero()}, {"limits.maxRequests", r.Limits.MaxRequests != 0},
	}
	for _, o := range r.optIns() {
		fields = append(fields, given{o.name, o.value.Allowed()})
	}
	return setOf(fields)
}

func (r *Rule) unseenInPassthrough() []string {
	fields := []given{
		{"scheme", r.Scheme != "" && r.Scheme != HTTPS}, {"methods", len(r.Methods) > 0}, {"paths", len(r.Paths) > 0},
		{"when", r.When != ""}, {"websocket", r.WebSocket}, {"headers", len(r.Headers.Set)+len(r.Headers.Remove) > 0},
		{"recordPath", r.RecordPath != ""}, {"limits.requestBytes", r.Limits.RequestBytes != 0},
		{"upstream.rootsFile", r.Upstream.RootsFile != ""}, {"upstream.spkiPins", len(r.Upstream.SPKIPins) > 0},
	}
	for _, o := range r.optIns() {
		fields = append(fields, given{o.name, o.value.Allowed()})
	}
	return setOf(fields)
}

func (v *validator) limits(field string, l Limits) {
	if l.Rate.Count < 0 || l.Rate.Count > 0 && l.Rate.Per <= 0 {
		v.fail(field+".rate", "is "+l.Rate.String(), "a count and a time above zero", "")
	}
	if l.RequestBytes < 0 || l.MaxRequests < 0 {
		v.fail(field, "has a negative limit", "numbers above zero", "")
	}
}

func (v *validator) method(field, method string) {
	const expected = "a method in upper case, such as GET"
	switch {
	case method == "*":
		v.fail(field, `is "*"`, expected, "remove methods to match all of them")
	case method == "CONNECT":
		v.fail(field, `is "CONNECT"`, expected, "a CONNECT opens the tunnel and is judged by host; name the methods used inside it")
	case method == "" || strings.IndexFunc(method, func(r rune) bool { return r != '-' && (r < 'A' || r > 'Z') }) >= 0:
		fix := ""
		if upper := strings.ToUpper(method); upper != method {
			fix = "write it as " + strconv.Quote(shorten(upper))
		}
		v.fail(field, "is "+strconv.Quote(shorten(method)), expected, fix)
	}
}

func (v *validator) cidr(field, cidr string) {
	prefix, err := netip.ParsePrefix(cidr)
	switch {
	case err != nil || prefix.Addr().Is4In6():
		fix := ""
		if addr, err := netip.ParseAddr(cidr); err == nil {
			fix = "write it as " + netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()).String()
		}
		v.fail(field, "is "+strconv.Quote(shorten(cidr)), "a CIDR such as 10.1.0.0/16", fix)
	case prefix != prefix.Masked():
		v.fail(field, fmt.Sprintf("%q has bits set beyond its length", cidr), "a CIDR such as 10.1.0.0/16", "write it as "+prefix.Masked().String())
	}
}

// ParsePin reads sha256/<base64 of 32 bytes>, the SHA-256 of a certificate's
// SubjectPublicKeyInfo; curl's sha256// is read too.
func ParsePin(pin string) ([32]byte, error) {
	var out [32]byte
	text, ok := strings.CutPrefix(pin, "sha256/")
	if len(text) > base64.StdEncoding.EncodedLen(len(out)) { // else a '/' in front is of the hash: one in 64 has it
		text = strings.TrimPrefix(text, "/")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) != len(out) {
		return out, fmt.Errorf("%q is no pin: write sha256/ and the base64 of the 32-byte SHA-256 of the public key (SubjectPublicKeyInfo)", shorten(pin))
	}
	copy(out[:], raw)
	return out, nil
}

func (v *validator) headers(field string, h Headers) {
	seen := map[string]bool{}
	check := func(field, name string, set bool) {
		lower := strings.ToLower(name)
		if !token(name) {
			v.fail(field, fmt.Sprintf("%q is no header name", shorten(name)), "letters, digits and '-'", "")
		} else if why := protected(lower, set); why != "" {
			v.fail(field, strconv.Quote(name)+" cannot be edited: "+why, "", "remove it")
		} else if seen[lower] {
			v.fail(field, strconv.Quote(name)+" is edited twice (names have no case)", "", "remove one")
		}
		seen[lower] = true
	}
	for _, name := range slices.Sorted(maps.Keys(h.Set)) {
		check(field+".set."+name, name, true)
		if value := h.Set[name]; strings.IndexFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) >= 0 || strings.TrimSpace(value) != value || value == "" {
			v.fail(field+".set."+name, "has control characters, space around it, or nothing in it", "a header value on one line", "")
		}
	}
	for i, name := range h.Remove {
		check(fmt.Sprintf("%s.remove[%d]", field, i), name, false)
	}
}

// token is RFC 9110 section 5.6.2, as far as header names use it.
func token(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !nameRune(r) && !strings.ContainsRune("!#$%&'*+^`|~", r) }) < 0
}

// protected says why a header, in lower case, may not be edited.
func protected(lower string, set bool) string {
	lower = strings.ReplaceAll(lower, "_", "-") // one character to CGI
	switch lower {
	case "content-length", "transfer-encoding", "trailer", "te", "expect":
		return "it frames the message"
	case "content-encoding", "content-type":
		return "it says how the body is read, and the body is not changed"
	case "host":
		return "it is the name that was judged"
	case "connection", "proxy-connection", "keep-alive", "upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization":
		return "it is hop-by-hop and never forwarded"
	case "x-http-method-override", "x-http-method", "x-method-override", "x-original-method",
		"x-original-url", "x-original-uri", "x-original-host", "x-rewrite-url", "x-override-url",
		"x-forwarded-host", "x-forwarded-server", "x-forwarded-uri", "x-forwarded-path",
		"x-forwarded-prefix", "x-forwarded-method", "x-host", "x-http-host-override", "forwarded":
		if set {
			return "servers read another method, path or host from it than the one judged"
		}
	}
	if strings.HasPrefix(lower, "sec-websocket-") {
		return "it belongs to the WebSocket handshake"
	}
	return ""
}
