package v1alpha1

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPath bounds a path pattern.
const maxPath = 2048

// host checks the form of a host pattern. Case, IDNA and label lengths are the
// engine's canonicaliser's business.
func (v *validator) host(field, host string) {
	fail := func(problem, fix string) {
		v.fail(field, strconv.Quote(shorten(host))+" "+problem, `a host such as api.example.com, *.example.com, "*" or 10.1.0.0/16`, fix)
	}
	if host == "*" {
		return
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		addr = addr.WithZone("").Unmap()
		fail("is an IP address", "write it as the CIDR "+netip.PrefixFrom(addr, addr.BitLen()).String())
		return
	}
	if _, after, found := strings.Cut(host, "://"); found {
		name, _, _ := strings.Cut(after, "/")
		fail("is a URL", "write the host alone: "+shorten(name))
		return
	}
	if strings.Contains(host, "/") {
		if _, err := netip.ParsePrefix(host); err == nil || strings.Trim(host, "0123456789./") == "" {
			v.cidr(field, host)
			return
		}
		name, _, _ := strings.Cut(host, "/")
		fail("has a path", "write the host alone, here "+shorten(name)+", and the path in paths")
		return
	}
	if name, port, found := strings.Cut(host, ":"); found {
		fail("has a port", fmt.Sprintf("write the host alone, here %s, and ports: [%s]", shorten(name), shorten(port)))
		return
	}
	if strings.ContainsAny(host, " \t\r\n@?#%\\") {
		fail("is no host name", "")
		return
	}
	v.labels(host, fail)
}

// labels checks where the stars of a host pattern are.
func (v *validator) labels(host string, fail func(problem, fix string)) {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for i, label := range labels {
		last := i == len(labels)-1
		switch {
		case label == "":
			fix := ""
			if i == 0 {
				fix = "for every name below it write *" + shorten(host)
			}
			fail("has an empty label", fix)
			return
		case label == "**":
			fail("has a **", `"*." at the front already is any depth`)
			return
		case label == "*" && last:
			fail("ends with a *, which would let anybody register a matching name", "")
			return
		case label != "*" && strings.Contains(label, "*"):
			fail("has a * inside a label", "a * is a whole label: list the names, or allow *."+shorten(strings.Join(labels[i+1:], ".")))
			return
		}
	}
}

// path checks a path pattern against what a canonical path can be, so that a
// pattern which could never match is an error and not a surprise.
func (v *validator) path(field, path string, r *Rule) {
	fail := func(problem, fix string) {
		v.fail(field, strconv.Quote(shorten(path))+" "+problem, `a path such as /v1/messages, "/v1/*" or "/v1/**"`, fix)
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		fail("does not begin with /", "write it as "+strconv.Quote("/"+shorten(path)))
		return
	case strings.ContainsAny(path, "?#"):
		fail("has a query or fragment", `match a query with when: 'request.query["name"] == ["value"]'`)
		return
	case len(path) > maxPath || !utf8.ValidString(path) || strings.ContainsRune(path, '\\') || strings.IndexFunc(path, control) >= 0:
		fail(fmt.Sprintf("has characters that no path has, or more than %d of them", maxPath), "")
		return
	}
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		if problem, fix := checkSegment(segment, last, r); problem != "" {
			fail(problem, fix)
			return
		}
	}
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// checkSegment says what is wrong with one segment of a pattern.
func checkSegment(segment string, last bool, r *Rule) (problem, fix string) {
	deny := r.Action == Deny // a deny rule sees every spelling
	switch {
	case segment == "*", segment == "**" && last:
		return "", ""
	case segment == "**":
		return "has ** before its end", "** is the rest of the path and comes last; * is one segment"
	case strings.Contains(segment, "*"):
		return "has a * inside a segment", "a * is a whole segment; a star in the path itself is %2A"
	case segment == "" && !last && !deny && !r.Path.DoubleSlash.Allowed():
		return "has an empty segment, which is refused before any rule", "remove the double slash or add path: {doubleSlash: allow}"
	case (strings.Contains(segment, ";") || strings.Contains(strings.ToUpper(segment), "%3B")) && !deny && !r.Path.Semicolon.Allowed():
		return "has a semicolon, which is refused before any rule", "add path: {semicolon: allow}"
	}
	var decoded []byte
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if c == '%' {
			if i+2 >= len(segment) {
				return "has a broken percent-encoding", "a % itself is %25"
			}
			octet, err := strconv.ParseUint(segment[i+1:i+3], 16, 8)
			if err != nil {
				return "has a broken percent-encoding", "a % itself is %25"
			}
			c = byte(octet)
			i += 2
			switch {
			case c == '/' && !deny && !r.Path.EncodedSlash.Allowed():
				return "has an encoded slash, which is refused before any rule", "add path: {encodedSlash: allow}"
			case c == '\\' || control(rune(c)):
				return "has an encoded character that is always refused", ""
			}
		}
		decoded = append(decoded, c)
	}
	if s := string(decoded); s == "." || s == ".." {
		return "has a dot segment, which is always refused", "write the path that is meant"
	}
	if !utf8.Valid(decoded) {
		return "is not UTF-8 once decoded, which is always refused", ""
	}
	return "", ""
}
