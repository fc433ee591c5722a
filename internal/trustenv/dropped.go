package trustenv

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Drop is something the user had set that Build does not pass on, for a line on the user's terminal.
type Drop struct {
	Name  string // the variable
	Value string // what is lost; the password of a proxy URL is masked
	Why   string
}

// String is one line.
func (d Drop) String() string { return fmt.Sprintf("%s: %s dropped: %s", d.Name, d.Value, d.Why) }

const (
	whyProxy = "the engine is the proxy; give a proxy behind it with --upstream-proxy"
	whyRound = "it would be a way round the engine"
	whyJava  = "the engine's own value comes after it"
	whyStore = "the engine's trust store comes after it; its certificates are not taken over"
)

// Dropped lists what Build replaces or removes, in the order of the variables in the package comment. Bundles are not in
// it: UserBundles carries them over.
func Dropped(environ []string) []Drop {
	var out []Drop
	add := func(name, value, why string) {
		d := Drop{name, value, why}
		if value != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	for _, name := range append(proxyVariables(), removed()...) {
		value, _ := lookup(environ, name)
		why := whyProxy
		if isNoProxy(name) {
			why = whyRound
		}
		add(name, redact(value), why)
	}
	for _, name := range noProxyVariables() {
		value, _ := lookup(environ, name)
		for _, entry := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
			if !isLoopback(entry) {
				add(name, entry, whyRound)
			}
		}
	}
	value, _ := lookup(environ, javaOptions)
	for _, option := range splitJava(value) {
		switch key, _, _ := strings.Cut(option, "="); key {
		case "-Dhttp.proxyHost", "-Dhttp.proxyPort", "-Dhttps.proxyHost", "-Dhttps.proxyPort", "-Dhttp.nonProxyHosts":
			add(javaOptions, option, whyJava)
		case "-Djavax.net.ssl.trustStore":
			add(javaOptions, option, whyStore)
		}
	}
	return out
}

func isNoProxy(name string) bool {
	name = strings.ToLower(name)
	return name == "no_grpc_proxy" || name == "npm_config_noproxy"
}

// redact masks the password of a proxy URL; what is no URL is shown up to its last "@" not at all.
func redact(value string) string {
	if u, err := url.Parse(value); err == nil && u.Host != "" {
		return u.Redacted()
	}
	if i := strings.LastIndex(value, "@"); i >= 0 {
		return "xxxxx" + value[i:]
	}
	return value
}

// isLoopback reports whether a NO_PROXY entry names this machine alone: localhost and names below it (RFC 6761, 6.3),
// 127.0.0.0/8, ::1, with or without a port.
func isLoopback(entry string) bool {
	if p, err := netip.ParsePrefix(entry); err == nil {
		loop4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
		return p.Bits() >= 8 && loop4.Contains(p.Addr()) || p.Addr() == netip.IPv6Loopback() && p.IsSingleIP()
	}
	if ap, err := netip.ParseAddrPort(entry); err == nil {
		return ap.Addr().IsLoopback()
	}
	if a, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return a.IsLoopback()
	}
	host, _, _ := strings.Cut(strings.ToLower(entry), ":")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// splitJava splits as the JVM does: at white space outside quotes, which may begin anywhere in a word and are removed.
func splitJava(s string) []string {
	var out []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case strings.ContainsRune(" \t\n\v\f\r", r):
			if inWord {
				out = append(out, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if inWord {
		out = append(out, word.String())
	}
	return out
}
