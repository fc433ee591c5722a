package policy

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// entry is a rule as one of its path patterns reaches it. It has a copy of
// what the rule compares, so that the rule itself, which lies elsewhere, is
// looked at only if all of it agrees.
type entry struct {
	matcher
	rule    *rule
	pattern string // as written; "" for a rule without paths
}

func newEntry(r *rule, pattern string) entry { return entry{r.matcher, r, pattern} }

// entries is a list of entries whose first is in place: most have no second,
// and a pointer less to follow is a cache miss less.
type entries struct {
	first entry // its rule is nil for an empty list
	more  []entry
}

func (l *entries) add(e entry) {
	if l.first.rule == nil {
		l.first = e
		return
	}
	l.more = append(l.more, e)
}

func (l *entries) visit(m *match) {
	if l == nil || l.first.rule == nil {
		return
	}
	m.visit(&l.first)
	for i := range l.more {
		m.visit(&l.more[i])
	}
}

// pathNode is a node of the trie of path segments. A run of literal segments
// without branches is one node, so that a usual path is one comparison.
type pathNode struct {
	literal string      // from the parent: "/" and segments, in matching form; "" for stars and for a root that branches
	here    entries     // patterns that end here
	on      *pathBranch // where patterns go on; nil for none
}

// pathBranch is how patterns go on after a node.
type pathBranch struct {
	only     *pathNode            // the one literal child
	children map[string]*pathNode // or several, by their first segment
	star     *pathNode            // a "*" segment
	rest     entries              // "**"
}

// add files a pattern. Nodes hold one segment each until compress.
func (n *pathNode) add(pattern string, r *rule) {
	at := n
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		if at.on == nil {
			at.on = &pathBranch{children: map[string]*pathNode{}}
		}
		switch segment {
		case "**":
			at.on.rest.add(newEntry(r, pattern))
			return
		case "*":
			if at.on.star == nil {
				at.on.star = &pathNode{}
			}
			at = at.on.star
			continue
		}
		key := string(appendMatching(nil, []byte(segment)))
		next := at.on.children[key]
		if next == nil {
			next = &pathNode{literal: "/" + key}
			at.on.children[key] = next
		}
		at = next
	}
	at.here.add(newEntry(r, pattern))
}

// compress joins runs of literal nodes.
func (n *pathNode) compress() {
	if n.on == nil {
		return
	}
	for _, child := range n.on.children {
		child.compress()
	}
	if n.on.star != nil {
		n.on.star.compress()
	}
	if len(n.on.children) != 1 {
		return
	}
	for _, child := range n.on.children {
		n.on.only, n.on.children = child, nil
		if n.here.first.rule == nil && n.on.star == nil && n.on.rest.first.rule == nil {
			literal := n.literal + child.literal
			*n = *child
			n.literal = literal
			if pattern := n.here.first.pattern; pattern == literal {
				n.literal = pattern // one copy of the text
			}
		}
		return
	}
}

// enter walks on if the node's literal is what path begins with.
func (n *pathNode) enter(m *match, path []byte) {
	k := len(n.literal)
	if len(path) < k || string(path[:k]) != n.literal || len(path) > k && path[k] != '/' {
		return
	}
	n.walk(m, path[k:])
}

// walk visits the entries of every pattern that path matches. Path is what is
// left of a path in matching form: empty, or a slash and more.
func (n *pathNode) walk(m *match, path []byte) {
	if len(path) == 0 {
		n.here.visit(m)
		return
	}
	on := n.on
	if on == nil {
		return
	}
	on.rest.visit(m)
	if on.only != nil {
		on.only.enter(m, path)
	}
	if on.children == nil && on.star == nil {
		return
	}
	end := bytes.IndexByte(path[1:], '/') + 1 // of the first segment
	if end == 0 {
		end = len(path)
	}
	if child := on.children[string(path[1:end])]; child != nil {
		child.enter(m, path)
	}
	if on.star != nil && end > 1 {
		on.star.enter(m, path[end:])
	}
}

// appendMatching appends the form in which paths and patterns are compared:
// percent-encoded octets decoded, but for %2F, which is no separator, and %25,
// which keeps the form unambiguous. An origin decodes a path before it looks,
// so %3A and ':' are one path to it and must be one to a rule.
func appendMatching(dst, path []byte) []byte {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			octet, ok := unhex(path[i+1], path[i+2])
			switch {
			case ok && (octet == '/' || octet == '%'):
				dst = append(dst, '%', '2', upper(path[i+2]))
				i += 2
				continue
			case ok:
				c = octet
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 'A'
	}
	return c
}

func unhex(hi, lo byte) (byte, bool) {
	h, l := strings.IndexByte("0123456789ABCDEF", upper(hi)), strings.IndexByte("0123456789ABCDEF", upper(lo))
	return byte(h<<4 | l), h >= 0 && l >= 0
}

// readings calls yield with the other ways in which an origin may read a
// canonical path with quirks, in matching form: an encoded slash as a slash, a
// segment without its parameters (cut off before decoding or after, so that %3B
// begins none or does), empty segments as if they were not there, and every
// mixture. Allow rules do not see them. Deny rules do: what a rule lets through
// by an opt-in must not be a way around another rule's denial.
func readings(path []byte, quirks canon.Quirks, yield func([]byte)) {
	decoders := []bool{false}
	if quirks&canon.Semicolon != 0 && bytes.Contains(path, []byte("%3B")) {
		decoders = append(decoders, true)
	}
	for set := canon.Quirks(1); set <= canon.EncodedSlash|canon.Semicolon|canon.DoubleSlash; set++ {
		if set&^quirks != 0 {
			continue
		}
		for _, decodes := range decoders {
			if !decodes || set&canon.Semicolon != 0 {
				yield(appendMatching(nil, reading(string(path), set, decodes)))
			}
		}
	}
}

// reading is path as an origin reads it to whom the quirks in set mean what
// they do. decodes: it looks for parameters after decoding.
func reading(path string, set canon.Quirks, decodes bool) []byte {
	if set&canon.EncodedSlash != 0 {
		path = strings.ReplaceAll(path, "%2F", "/")
	}
	segments := strings.Split(path[1:], "/")
	kept := segments[:0]
	for i, segment := range segments {
		if set&canon.Semicolon != 0 {
			segment, _, _ = strings.Cut(segment, ";")
		}
		if decodes {
			segment, _, _ = strings.Cut(segment, "%3B")
		}
		if segment == "" && i < len(segments)-1 && set&canon.DoubleSlash != 0 {
			continue
		}
		kept = append(kept, segment)
	}
	return []byte("/" + strings.Join(kept, "/"))
}

// printable reports that a pattern can be shown in a refusal as it is.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
