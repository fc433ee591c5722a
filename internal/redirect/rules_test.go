//go:build linux

package redirect

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// namespaceRules are those of a namespace that is the agent's alone.
func namespaceRules() Rules {
	return Rules{
		Transparent: 14443, DNS: 14053,
		Free: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/32"), netip.MustParsePrefix("fd00:ae6::1/128")},
	}
}

// podRules are those of a namespace that the engine shares.
func podRules() Rules {
	return Rules{
		Transparent: 15001, DNS: 15053, Mark: 0x306e, Protected: []uint16{9090, 8080},
		Free: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("10.244.0.0/20")},
	}
}

func golden(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRulesAsText(t *testing.T) {
	for name, r := range map[string]Rules{"namespace.txt": namespaceRules(), "pod.txt": podRules()} {
		if got := r.String(); got != golden(t, name) {
			t.Errorf("%s is:\n%s", name, got)
		}
	}
}

func TestRulesThatHoldNothingAreRefused(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, r := range map[string]Rules{
		"no transparent port":        {DNS: 53},
		"no resolver":                {Transparent: 1},
		"the way in is protected":    {Transparent: 1, DNS: 2, Protected: []uint16{1}},
		"the resolver is protected":  {Transparent: 1, DNS: 2, Protected: []uint16{2}},
		"port 0 is protected":        {Transparent: 1, DNS: 2, Protected: []uint16{0}},
		"everything is free":         {Transparent: 1, DNS: 2, Free: []netip.Prefix{prefix("0.0.0.0/0")}},
		"a range with host bits":     {Transparent: 1, DNS: 2, Free: []netip.Prefix{prefix("10.1.2.3/8")}},
		"a range that is none":       {Transparent: 1, DNS: 2, Free: []netip.Prefix{{}}},
		"IPv4 in the guise of IPv6":  {Transparent: 1, DNS: 2, Free: []netip.Prefix{prefix("::ffff:10.1.2.3/128")}},
		"the zero value":             {},
		"everything of IPv6 is free": {Transparent: 1, DNS: 2, Free: []netip.Prefix{prefix("::/0")}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.Apply(); err == nil || !strings.HasPrefix(err.Error(), "redirect rules: ") {
				t.Errorf("Apply: %v", err)
			}
			if err := r.Check(); err == nil || !strings.HasPrefix(err.Error(), "redirect rules: ") {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestAMaskWithAGapIsNoPrefix(t *testing.T) {
	for mask, want := range map[string]int{"\xff\xff\x00\x00": 16, "\xff\xf8": 13, "\xff\x0f": -1, "\x00\x01": -1, "\xf1\x00": -1, "\xff\xff": 16, "": 0} {
		if got := prefixLength([]byte(mask)); got != want {
			t.Errorf("%x is /%d, want /%d", mask, got, want)
		}
	}
}
