package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
)

func TestIDsInPathsBecomeStars(t *testing.T) {
	for path, want := range map[string]string{
		"/":                    "/",
		"/v1/chat/completions": "/v1/chat/completions",
		"/v1/runs/12345":       "/v1/runs/*",
		"/v1/runs/12345/":      "/v1/runs/*/",
		"/o/9f86d081884c7d65":  "/o/*",
		"/u/6fa459ea-ee8a-3ca4-894e-db77e160355e/x": "/u/*/x",
		"/m/msg_01XFDUDYJgAACzvnptvVoYEL":           "/m/*",
		"/b/asst_abc123":                            "/b/asst_abc123", // too short to tell from a word
		"/models/claude-sonnet-4-5":                 "/models/claude-sonnet-4-5",
		"/2024-10-21/models":                        "/2024-10-21/models",
		"/simple/requests":                          "/simple/requests",
		"/feedface":                                 "/feedface", // hex, but a word
		"/literal/*":                                "/literal/%2A",
		"/p/a%2F12":                                 "/p/a%2F12", // an encoded slash is never hidden by a star
	} {
		if got, _ := generalise(path); got != want {
			t.Errorf("generalise(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestLongListsOfPathsAreWidened(t *testing.T) {
	var few, many, wild []string
	for i := range 20 {
		name := strings.Repeat("x", i+1)
		many = append(many, "/simple/"+name)
		wild = append(wild, "/"+name)
		if i < 5 {
			few = append(few, "/simple/"+name)
		}
	}
	for _, c := range []struct {
		what    string
		in, out []string
		widened bool
	}{
		{"a few stay", few, few, false},
		{"many below one segment become its rest", many, []string{"/simple/**"}, true},
		{"many without anything in common become everything", wild, []string{"/**"}, true},
	} {
		out, widened := widen(c.in)
		if !slices.Equal(out, c.out) || widened != c.widened {
			t.Errorf("%s: %q, %v", c.what, out, widened)
		}
	}
}

// Each way in which a rule allows more than was seen is said where it does.
func TestASuggestionSaysWhereItAllowsMore(t *testing.T) {
	seen := map[visitKey]*visit{{"GET", "/**"}: {count: 1, hiddenPaths: true}, {"GET", "/v1/*"}: {count: 2, general: true}}
	rules := toRules(seen)
	if len(rules) != 1 {
		t.Fatal(rules)
	}
	var b strings.Builder
	rules[0].write(&b, site{"https", "a.test", 443}, map[string]int{})
	rules[0].widened = true
	rules[0].write(&b, site{"https", "a.test", 443}, map[string]int{})
	for _, want := range []string{
		"# * stands where ids were seen\n", "# too many paths to list: narrow these\n", "        - \"/v1/*\"\n",
		"        - \"/**\"  # all: the log keeps these paths as hashes, write the patterns yourself\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// What suggest writes must load, whatever was in the log.
func TestSuggestionsLoad(t *testing.T) {
	for _, s := range []string{"a.test", "/v1/x", "/a b", "/%2A", "127.0.0.1/32", "*", "no", "1.10", "/x: y", `/"`, "/#", "/ü", "-", "2026-01-01"} {
		quoted := quoteYAML(s)
		doc := "apiVersion: " + v1alpha1.APIVersion + "\nkind: AgentPolicy\nmetadata: {name: x}\nspec:\n  rules:\n    - name: r\n      hosts: [a.test]\n      when: " + quoted + "\n"
		docs, err := v1alpha1.Parse("x", []byte(doc))
		if err != nil {
			t.Errorf("%s: %v", quoted, err)
			continue
		}
		if got := docs[0].Spec.Rules[0].When; got != s {
			t.Errorf("%q is written as %s and read as %q", s, quoted, got)
		}
	}
}

func TestNamesAreSlugs(t *testing.T) {
	for in, want := range map[string]string{
		"api.openai.com": "api-openai-com", "*.x.test": "x-test", "10.0.0.1": "10-0-0-1", "***": "rule", strings.Repeat("a", 99): strings.Repeat("a", 60),
	} {
		if got := slug(in); got != want {
			t.Errorf("slug(%q) = %q, want %q", in, got, want)
		}
	}
}
