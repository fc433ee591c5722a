package v1alpha1

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxExtra bounds how many nodes a file can come to beyond those that are
// written in it, once its aliases are followed.
const maxExtra = 200_000

// maxAliases bounds how often a file says *name: a few shared lists need a
// handful, a bomb needs many.
const maxAliases = 10_000

// newDecoder reads a file of size bytes. A node is two bytes at least.
func newDecoder(name string, size int) *decoder {
	return &decoder{file: name, nodes: size/2 + maxExtra, at: map[string]Pos{}}
}

// decoder reads YAML nodes into the types of this package. It goes on after a
// fault, so that one run shows several. Nothing it read is used if there was
// one.
type decoder struct {
	file    string
	at      map[string]Pos
	errs    Errors
	nodes   int // left to read
	aliases int
}

// key is one key of a mapping and how its value is read.
type key struct {
	name string
	read func(n *yaml.Node, field string)
}

func (d *decoder) fail(n *yaml.Node, field, problem, expected, fix string) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, &Error{File: d.file, Line: n.Line, Column: n.Column, Field: field, Problem: problem, Expected: expected, Fix: fix})
	}
}

// enter notes the node's place and follows an alias. It returns nil, with the
// fault noted, for what no field may be.
func (d *decoder) enter(n *yaml.Node, field, expected string) *yaml.Node {
	if d.nodes--; d.nodes == 0 {
		d.fail(n, field, "the file is too large once its aliases are followed", "", "write less, or split the file")
	}
	if d.nodes <= 0 {
		return nil
	}
	d.at[field] = Pos{n.Line, n.Column}
	if n.Kind == yaml.AliasNode {
		if d.aliases++; d.aliases == maxAliases {
			d.fail(n, field, fmt.Sprintf("the file uses more than %d aliases", maxAliases), "", "write the values out")
		}
		if d.aliases >= maxAliases {
			return nil
		}
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.fail(n, field, "has no value", expected, "give it one or remove the key")
		return nil
	}
	return n
}

// mapping reads a mapping whose keys are all in keys, each at most once.
func (d *decoder) mapping(n *yaml.Node, field string, keys []key) {
	if n = d.enter(n, field, "a mapping"); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		d.fail(n, field, "is "+describe(n), "a mapping of "+names(keys), "")
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		d.pair(n.Content[i], n.Content[i+1], field, keys, seen)
	}
}

// pair reads one key of a mapping and its value. Seen maps the keys before it
// to their lines.
func (d *decoder) pair(k, v *yaml.Node, field string, keys []key, seen map[string]int) {
	if k.Kind != yaml.ScalarNode {
		d.fail(k, field, "has a key that is "+describe(k), "one of "+names(keys), "")
		return
	}
	if k.Value == "<<" {
		d.fail(k, field, `has a merge key "<<"`, "", "write the keys out: a reader of the policy must see them")
		return
	}
	if line, twice := seen[k.Value]; twice {
		d.fail(k, join(field, k.Value), fmt.Sprintf("is given twice, first on line %d", line), "", "remove one")
		return
	}
	seen[k.Value] = k.Line
	for _, known := range keys {
		if known.name == k.Value {
			known.read(v, join(field, k.Value))
			return
		}
	}
	fix := ""
	switch word := nearest(k.Value, nameList(keys)); {
	case word != "":
		fix = fmt.Sprintf("did you mean %q?", word)
	case field == "" && slices.Contains([]string{"agents", "mode", "allowlist", "rules"}, k.Value):
		fix = "it belongs below spec, indented"
	}
	d.fail(k, field, fmt.Sprintf("has the unknown key %q", shorten(k.Value)), "one of "+names(keys), fix)
}

// list reads a sequence that has at least least elements.
func (d *decoder) list(n *yaml.Node, field string, least int, read func(n *yaml.Node, field string)) {
	if n = d.enter(n, field, "a list"); n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		fix := ""
		if n.Kind == yaml.ScalarNode {
			fix = "write it as [" + shorten(n.Value) + "]"
		}
		d.fail(n, field, "is "+describe(n), "a list", fix)
		return
	}
	if len(n.Content) < least {
		d.fail(n, field, "is an empty list, which would match nothing", "at least one entry", "give it one or remove the key")
		return
	}
	for i, element := range n.Content {
		read(element, field+"["+strconv.Itoa(i)+"]")
	}
}

// text reads a string. Plain words that a YAML reader could take for another
// type must be in quotes.
func (d *decoder) text(n *yaml.Node, field, expected string, to *string) {
	if n = d.enter(n, field, expected); n == nil {
		return
	}
	plain := n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fail(n, field, "is "+describe(n), expected, "")
	case n.ShortTag() != "!!str", plain && oldBool(n.Value):
		d.fail(n, field, "is "+describe(n), expected, "put it in quotes if it is meant: "+strconv.Quote(shorten(n.Value)))
	case strings.TrimSpace(n.Value) == "":
		d.fail(n, field, "is empty", expected, "give it a value or remove the key")
	default:
		*to = n.Value
	}
}

// texts reads a list of strings that is not empty.
func (d *decoder) texts(n *yaml.Node, field, expected string, to *[]string) {
	d.list(n, field, 1, func(n *yaml.Node, field string) {
		var s string
		d.text(n, field, expected, &s)
		*to = append(*to, s)
	})
}

// word reads one of a few words.
func word[T ~string](d *decoder, to *T, words ...T) func(*yaml.Node, string) {
	return func(n *yaml.Node, field string) {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = string(w)
		}
		expected := "one of " + strings.Join(quoted, ", ")
		var s string
		before := len(d.errs)
		d.text(n, field, expected, &s)
		for _, w := range words {
			if s == string(w) {
				*to = w
				return
			}
		}
		if len(d.errs) == before && s != "" {
			fix := ""
			if near := nearest(s, quoted); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			d.fail(n, field, "is "+strconv.Quote(shorten(s)), expected, fix)
		}
	}
}

// number reads a decimal integer from least to most, as people write one: no
// octal, no hexadecimal, no sign, no underscore.
func (d *decoder) number(n *yaml.Node, field string, least, most int64, to *int64) {
	expected := fmt.Sprintf("a whole number from %d to %d", least, most)
	if n = d.enter(n, field, expected); n == nil {
		return
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || strconv.FormatInt(v, 10) != n.Value || v < least || v > most {
		fix := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && err == nil {
			fix = "write it without quotes"
		}
		d.fail(n, field, "is "+describe(n), expected, fix)
		return
	}
	*to = v
}

// truth reads true or false.
func (d *decoder) truth(n *yaml.Node, field string, to *bool) {
	if n = d.enter(n, field, "true or false"); n == nil {
		return
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		d.fail(n, field, "is "+describe(n), "true or false", "")
		return
	}
	*to = n.Value == "true"
}

// describe names what a node is, for "is …".
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!str" && oldBool(n.Value) && n.Style == 0:
		return fmt.Sprintf("the plain word %s, which some readers take for true or false", n.Value)
	}
	kind, ok := map[string]string{
		"!!str": "the text", "!!bool": "the boolean", "!!int": "the number", "!!float": "the number", "!!timestamp": "the date", "!!null": "nothing",
	}[n.ShortTag()]
	if !ok {
		kind = "tagged " + shorten(n.Tag)
	}
	return kind + " " + shorten(n.Value)
}

// oldBool reports the words that YAML 1.1, and so Helm, reads as booleans.
func oldBool(s string) bool {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return false
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func nameList(keys []key) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.name
	}
	return out
}

func names(keys []key) string { return strings.Join(nameList(keys), ", ") }

// shorten keeps a message readable, whatever the file holds.
func shorten(s string) string {
	const most = 60
	quoted := strconv.Quote(s)
	quoted = quoted[1 : len(quoted)-1]
	if len(quoted) > most {
		return quoted[:most] + "…"
	}
	return quoted
}
