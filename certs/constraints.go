package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net"
	"slices"
	"strings"
)

// generalSubtree and nameConstraints are RFC 5280, 4.2.1.10, without minimum and maximum, which its profile forbids.
type generalSubtree struct {
	Base asn1.RawValue
}

type nameConstraints struct {
	Permitted []generalSubtree `asn1:"omitempty,optional,tag:0"`
	Excluded  []generalSubtree `asn1:"omitempty,optional,tag:1"`
}

// NameConstraints returns the DER value of the extension (2.5.29.30, to be marked critical) that confines a CA to permit: hosts
// (with a `*` label standing for any label) and CIDR ranges or addresses. X.509 has coarser words than a policy, and always
// the wider one is taken: a host permits what is below it too, a wildcard its literal suffix, a range exactly itself. A form of
// name that permit does not mention is excluded altogether, since a constraint that lists no address leaves all addresses free.
//
// The bytes depend on what is permitted and on nothing else: the order of permit, repetitions and entries that others cover
// make no difference. They are those that crypto/x509 writes, so a CA that copies the constraints field by field copies the
// bytes. An empty permit and a wildcard with nothing behind it are errors, as X.509 can say neither.
func NameConstraints(permit []string) ([]byte, error) {
	if len(permit) == 0 {
		return nil, fmt.Errorf("constraining a CA: nothing is permitted, which X.509 cannot say; make no CA")
	}
	var tmpl x509.Certificate
	if err := constrain(&tmpl, permit); err != nil {
		return nil, fmt.Errorf("constraining a CA: %w", err)
	}
	names, ranges := leastNames(tmpl.PermittedDNSDomains), leastRanges(tmpl.PermittedIPRanges)
	der, err := asn1.Marshal(nameConstraints{
		Permitted: subtrees(names, ranges),
		Excluded:  subtrees(tmpl.ExcludedDNSDomains, tmpl.ExcludedIPRanges),
	})
	if err != nil {
		return nil, fmt.Errorf("constraining a CA: %w", err)
	}
	return der, nil
}

// leastNames sorts, and leaves out what is below another name.
func leastNames(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		if byLabels := strings.Count(a, ".") - strings.Count(b, "."); byLabels != 0 {
			return byLabels // so that a name comes after those that may cover it
		}
		return strings.Compare(a, b)
	})
	kept := map[string]bool{}
	var out []string
	for _, name := range names {
		covered := kept[name]
		for rest := name; !covered; {
			_, above, more := strings.Cut(rest, ".")
			if !more {
				break
			}
			covered, rest = kept[above], above
		}
		if !covered {
			kept[name] = true
			out = append(out, name)
		}
	}
	return out
}

// leastRanges sorts, and leaves out what is inside another range.
func leastRanges(ranges []*net.IPNet) []*net.IPNet {
	slices.SortFunc(ranges, func(a, b *net.IPNet) int {
		if byFamily := len(a.IP) - len(b.IP); byFamily != 0 {
			return byFamily
		}
		ones, others := ones(a), ones(b)
		if ones != others {
			return ones - others
		}
		return bytes.Compare(a.IP, b.IP)
	})
	var out []*net.IPNet
	for _, r := range ranges {
		if !slices.ContainsFunc(out, func(o *net.IPNet) bool { return len(o.IP) == len(r.IP) && o.Contains(r.IP) }) {
			out = append(out, r)
		}
	}
	return out
}

func ones(n *net.IPNet) int {
	bits, _ := n.Mask.Size()
	return bits
}

func subtrees(names []string, ranges []*net.IPNet) []generalSubtree {
	var out []generalSubtree
	add := func(tag int, content []byte) {
		out = append(out, generalSubtree{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: content}})
	}
	for _, name := range names {
		add(2, []byte(name)) // dNSName
	}
	for _, r := range ranges {
		add(7, slices.Concat([]byte(r.IP), []byte(r.Mask))) // iPAddress
	}
	return out
}

// Forms of a GeneralName (RFC 5280, 4.2.1.6) that constraints are about here.
const (
	formDNS = 2
	formIP  = 7
)

// ConstraintsCover reports whether a CA confined by wide may sign every name that one confined by narrow may. Both are DER
// values of the name constraints extension. It errs towards false: what cannot be read, or names a form that no leaf of ours
// has, covers nothing and is covered by nothing.
func ConstraintsCover(wide, narrow []byte) bool {
	w, ok := readConstraints(wide)
	n, good := readConstraints(narrow)
	if !ok || !good {
		return false
	}
	for _, form := range []int{formDNS, formIP} {
		permitted, wanted := w.permitted[form], n.permitted[form]
		if len(permitted) > 0 && len(wanted) == 0 && !slices.ContainsFunc(n.excluded[form], everything(form)) {
			return false // narrow leaves this form free
		}
		for _, name := range wanted {
			if len(permitted) > 0 && !slices.ContainsFunc(permitted, func(p []byte) bool { return subtreeHolds(form, p, name) }) {
				return false
			}
		}
		for _, out := range w.excluded[form] {
			if !slices.ContainsFunc(n.excluded[form], func(e []byte) bool { return subtreeHolds(form, e, out) }) {
				return false
			}
		}
	}
	return true
}

// constraintForms is a name constraints extension by form of name.
type constraintForms struct{ permitted, excluded map[int][][]byte }

func readConstraints(der []byte) (constraintForms, bool) {
	var c nameConstraints
	if rest, err := asn1.Unmarshal(der, &c); err != nil || len(rest) > 0 {
		return constraintForms{}, false
	}
	out := constraintForms{permitted: map[int][][]byte{}, excluded: map[int][][]byte{}}
	for _, side := range []struct {
		trees []generalSubtree
		into  map[int][][]byte
	}{{c.Permitted, out.permitted}, {c.Excluded, out.excluded}} {
		for _, t := range side.trees {
			name := t.Base
			whole := name.Tag == formDNS || name.Tag == formIP && (len(name.Bytes) == 2*net.IPv4len || len(name.Bytes) == 2*net.IPv6len)
			if name.Class != asn1.ClassContextSpecific || !whole {
				return constraintForms{}, false
			}
			side.into[name.Tag] = append(side.into[name.Tag], name.Bytes)
		}
	}
	return out, true
}

// everything reports a subtree that holds all names of its form; of addresses, one for all IPv4 will do, as constrain
// excludes both families or none.
func everything(form int) func([]byte) bool {
	return func(tree []byte) bool {
		return form == formDNS && len(tree) == 0 || form == formIP && !slices.ContainsFunc(tree, func(b byte) bool { return b != 0 })
	}
}

// subtreeHolds reports whether every name in inner is in outer.
func subtreeHolds(form int, outer, inner []byte) bool {
	if form == formDNS {
		return isUnder(strings.ToLower(string(inner)), string(outer))
	}
	if len(outer) != len(inner) {
		return false // another family
	}
	half := len(outer) / 2
	for i := range half {
		mask := outer[half+i]
		if inner[half+i]&mask != mask || inner[i]&mask != outer[i]&mask {
			return false
		}
	}
	return true
}
