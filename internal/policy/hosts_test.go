package policy

import (
	"fmt"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

func TestHostPatternsOverlapAndCover(t *testing.T) {
	for _, row := range []struct {
		p, q             string
		overlaps, covers bool
	}{
		{"a.example", "a.example", true, true},
		{"a.example", "b.example", false, false},
		{"*", "a.example", true, true},
		{"a.example", "*", true, false},
		{"*", "10.0.0.0/8", false, false},
		{"10.0.0.0/8", "10.1.0.0/16", true, true},
		{"10.1.0.0/16", "10.0.0.0/8", true, false},
		{"*.example", "a.example", true, true},
		{"*.example", "b.a.example", true, true},
		{"a.example", "*.example", true, false},
		{"*.example", "example", false, false},
		{"*.example", "*.a.example", true, true},
		{"*.a.example", "*.example", true, false},
		{"a.*.example", "a.b.example", true, true},
		{"a.*.example", "*.b.example", true, false},
		{"a.*.example", "b.*.example", false, false},
		{"*.x.example", "a.*.example", true, false},
		{"a.b.example", "b.example", false, false},
		{"*.*.example", "a.b.example", true, true},
	} {
		p, err1 := parseHostPattern(row.p)
		q, err2 := parseHostPattern(row.q)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if p.overlaps(q) != row.overlaps || q.overlaps(p) != row.overlaps || p.covers(q) != row.covers {
			t.Errorf("%s and %s: overlap %v %v, covers %v", row.p, row.q, p.overlaps(q), q.overlaps(p), p.covers(q))
		}
	}
}

func TestPathPatternsCover(t *testing.T) {
	for _, row := range []struct {
		wide, narrow string
		want         bool
	}{
		{"/**", "/a", true}, {"/**", "/", true}, {"/a/**", "/a", false}, {"/a/**", "/a/*", true}, {"/a/**", "/a/**", true}, {"/a/*", "/a/**", false},
		{"/*", "/a", true}, {"/*", "/", false}, {"/a", "/*", false}, {"/a%41", "/aA", true}, {"/a/b", "/a", false}, {"/a", "/a/b", false}, {"/*/b", "/*/b", true},
	} {
		if got := pathCovers(row.wide, row.narrow); got != row.want {
			t.Errorf("%s covers %s: %v", row.wide, row.narrow, got)
		}
	}
}

func TestSetsOfPortsAndMethods(t *testing.T) {
	ports := func(list ...uint16) *portSet {
		var p portSet
		for _, port := range list {
			p.add(port)
		}
		return &p
	}
	if !ports(0).covers(ports(1, 2, 3)) || ports(1).covers(ports(0)) || !ports(1, 2, 3).covers(ports(3, 1)) || ports(1, 2).covers(ports(3)) || !ports(1).covers(ports()) {
		t.Error("covers")
	}
	if !ports(0).overlaps(ports(0)) || ports(0).overlaps(ports()) || ports().overlaps(ports(0)) || !ports(1, 2).overlaps(ports(3, 2)) || ports(1).overlaps(ports(2)) || ports(0).has(0) {
		t.Error("overlaps")
	}
	methods := func(list ...string) *methodSet { s := newMethodSet(list); return &s }
	if !methods().covers(methods("X")) || methods("GET").covers(methods()) || !methods("GET", "X").covers(methods("X")) || methods("X").covers(methods("X", "Y")) || methods("PUT", "PATCH").covers(methods("OPTIONS")) {
		t.Error("methods")
	}
}

func TestAHostOfManyPatternsIsFoundInAll(t *testing.T) {
	host := "x"
	var rules []*rule
	for i := range 12 {
		host = fmt.Sprintf("l%d.%s", i, host)
	}
	for i := 0; i < len(host); i++ {
		if host[i] == '.' {
			p, err := parseHostPattern("*" + host[i:])
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, &rule{hosts: []hostPattern{p}})
		}
	}
	var found hostList
	newHostIndex(rules).find(&canon.Authority{Host: host}, &found)
	if found.n != 12 || found.at(11) == nil || found.at(0) == found.at(11) {
		t.Errorf("%d of 12", found.n)
	}
}
