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
