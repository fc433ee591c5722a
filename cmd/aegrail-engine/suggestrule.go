package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// suggestedRule is a rule for one site: methods that were seen with the same
// paths.
type suggestedRule struct {
	methods []string // nil: a passthrough tunnel
	paths   []string
	visit   // of all of them together
	widened bool
}

// maxPaths is how many paths of a method are listed before they become their
// first segment and "**": beyond it nobody reads them.
const maxPaths = 16

// toRules makes the rules for one site.
func toRules(seen map[visitKey]*visit) []suggestedRule {
	byMethod := map[string][]string{}
	for key := range seen {
		byMethod[key.method] = append(byMethod[key.method], key.pattern)
	}
	byPaths := map[string]*suggestedRule{}
	for _, method := range slices.Sorted(maps.Keys(byMethod)) {
		paths := byMethod[method]
		slices.Sort(paths)
		listed, widened := widen(paths)
		key := strings.Join(listed, "\n")
		r := byPaths[key]
		if r == nil {
			r = &suggestedRule{paths: listed, widened: widened}
			byPaths[key] = r
		}
		if method != "" && method != "CONNECT" {
			r.methods = append(r.methods, method)
		}
		for _, p := range paths {
			r.join(seen[visitKey{method, p}])
		}
	}
	rules := make([]suggestedRule, 0, len(byPaths))
	for _, r := range byPaths {
		rules = append(rules, *r)
	}
	slices.SortFunc(rules, func(a, b suggestedRule) int {
		return cmp.Or(slices.Compare(a.methods, b.methods), slices.Compare(a.paths, b.paths))
	})
	return rules
}

// join adds what is known of v.
func (v *visit) join(o *visit) {
	v.count += o.count
	v.general = v.general || o.general
	v.websocket = v.websocket || o.websocket
	v.guarded = v.guarded || o.guarded
	v.hiddenPaths = v.hiddenPaths || o.hiddenPaths
	v.quirks.encodedSlash = v.quirks.encodedSlash || o.quirks.encodedSlash
	v.quirks.semicolon = v.quirks.semicolon || o.quirks.semicolon
	v.quirks.doubleSlash = v.quirks.doubleSlash || o.quirks.doubleSlash
	for a := range o.addresses {
		if v.addresses == nil {
			v.addresses = map[netip.Addr]bool{}
		}
		v.addresses[a] = true
	}
}

// widen shortens a list of paths that is too long to read.
func widen(paths []string) (out []string, widened bool) {
	if len(paths) <= maxPaths {
		return paths, false
	}
	for _, p := range paths {
		first, rest, deeper := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		if deeper && rest != "" && first != "" {
			p = "/" + first + "/**"
		}
		out = append(out, p)
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > maxPaths {
		return []string{"/**"}, true
	}
	return out, true
}

// write prints the rule. names counts those already given away, since names
// are unique in a policy.
func (r suggestedRule) write(w io.Writer, at site, names map[string]int) {
	name := slug(at.host)
	names[name]++
	if n := names[name]; n > 1 {
		name += "-" + strconv.Itoa(n)
	}
	fmt.Fprintf(w, "    - name: %s  # seen %s\n", name, times(r.count))
	fmt.Fprintf(w, "      hosts: [%s]\n", quoteYAML(hostPattern(at.host)))
	if at.scheme == "http" {
		fmt.Fprintln(w, "      scheme: http")
	}
	if _, err := netip.ParseAddr(at.host); err == nil && at.scheme == "https" {
		fmt.Fprintln(w, "      noSNI: allow  # clients name no server when it is an address")
	}
	if standard := at.scheme == "http" && at.port == 80 || at.scheme != "http" && at.port == 443; !standard {
		fmt.Fprintf(w, "      ports: [%d]\n", at.port)
	}
	if len(r.addresses) > 0 {
		var inside []string
		for _, a := range slices.SortedFunc(maps.Keys(r.addresses), netip.Addr.Compare) {
			inside = append(inside, quoteYAML(netip.PrefixFrom(a, a.BitLen()).String()))
		}
		fmt.Fprintf(w, "      addresses: [%s]  # inside the network: refused unless named\n", strings.Join(inside, ", "))
	}
	if r.guarded && len(r.addresses) == 0 {
		fmt.Fprintln(w, "      # its address is inside the network: addresses: [CIDR] would let it through")
	}
	if at.scheme == "tunnel" || len(r.methods) == 0 {
		fmt.Fprintln(w, "      tls: passthrough")
		return
	}
	fmt.Fprintf(w, "      methods: [%s]\n", strings.Join(r.methods, ", "))
	if r.widened {
		fmt.Fprintln(w, "      # too many paths to list: narrow these")
	}
	if r.general {
		fmt.Fprintln(w, "      # * stands where ids were seen")
	}
	fmt.Fprintln(w, "      paths:")
	for _, p := range r.paths {
		why := ""
		if p == "/**" && r.hiddenPaths {
			why = "  # all: the log keeps these paths as hashes, write the patterns yourself"
		}
		fmt.Fprintf(w, "        - %s%s\n", quoteYAML(p), why)
	}
	if q := r.quirks.names(); q != "" {
		fmt.Fprintf(w, "      path: {%s}\n", q)
	}
	if r.websocket {
		fmt.Fprintln(w, "      websocket: true")
	}
}

func (q quirks) names() string {
	var out []string
	for _, n := range []struct {
		on   bool
		name string
	}{{q.encodedSlash, "encodedSlash"}, {q.semicolon, "semicolon"}, {q.doubleSlash, "doubleSlash"}} {
		if n.on {
			out = append(out, n.name+": allow")
		}
	}
	return strings.Join(out, ", ")
}

// hostPattern is how a rule names the host: an address as a CIDR.
func hostPattern(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	return host
}

func compareSites(a, b site) int {
	return cmp.Or(strings.Compare(a.host, b.host), cmp.Compare(a.port, b.port), strings.Compare(a.scheme, b.scheme))
}

// slug makes a name of letters, digits and dashes.
func slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-")
	if name == "" {
		return "rule"
	}
	return name[:min(len(name), 60)]
}

// quoteYAML spells a string so that YAML and JSON read it alike, and leaves a
// plain host or path without quotes.
func quoteYAML(s string) string {
	for _, r := range s {
		plain := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-", r)
		if !plain {
			return strconv.QuoteToASCII(s)
		}
	}
	if s == "" || !strings.ContainsRune("/", rune(s[0])) && (s[0] < 'a' || s[0] > 'z' || !strings.ContainsAny(s, "./-")) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// printable keeps what an agent chose from steering the terminal it is shown on.
func printable(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
