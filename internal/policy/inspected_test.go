package policy_test

import (
	"slices"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

func TestInspectedNamesWhatALeafMayBeNeededFor(t *testing.T) {
	all := `
- {name: a, hosts: [B.example, a.example], methods: [GET], paths: [/x]}
- {name: again, hosts: [a.example], ports: [8443]}
- {name: below, hosts: ["*.below.example", "a.*.middle.example"]}
- {name: both, hosts: [both.example], scheme: any}
- {name: cidr, hosts: [10.0.0.0/8, "2001:db8::/32"]}
- {name: plain, hosts: [plain.example], scheme: http}
- {name: pinned, hosts: [pinned.example], tls: passthrough}
- {name: never, hosts: [denied.example], action: deny, methods: [DELETE]}
`
	list := document("list", "enforce", "{namespaces: [support]}", "[list.example]", "")
	elsewhere := document("other", "enforce", "{namespaces: [other]}", "[other.example]", "")
	v := compile(t, policy.Options{}, rules(all), list, elsewhere).For(bot)
	want := []string{"*.below.example", "10.0.0.0/8", "2001:db8::/32", "a.*.middle.example", "a.example", "b.example", "both.example", "list.example"}
	if got := v.Inspected(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestInspectedOfObserversIsEveryHost(t *testing.T) {
	observing := document("o", "observe", "{namespaces: [support]}", "[a.example]", "")
	for what, got := range map[string][]string{
		"a policy that observes":        compile(t, policy.Options{}, observing).For(bot).Inspected(),
		"a set that observes":           compile(t, policy.Options{Observe: true}, rules("- {hosts: [a.example]}")).For(bot).Inspected(),
		"nobody in a set that observes": compile(t, policy.Options{Observe: true}, rules("- {hosts: [a.example]}")).For(identity.Principal{}).Inspected(),
	} {
		if !slices.Equal(got, []string{"*"}) {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestInspectedOfNobodyIsEmpty(t *testing.T) {
	set := compile(t, policy.Options{}, rules("- {hosts: [a.example]}"))
	for what, v := range map[string]*policy.View{
		"an agent without a policy": set.For(identity.Principal{Namespace: "elsewhere", ServiceAccount: "x"}),
		"no set":                    (*policy.Set)(nil).For(bot),
		"only denials":              compile(t, policy.Options{}, rules("- {hosts: [a.example], action: deny}")).For(bot),
	} {
		if got := v.Inspected(); len(got) != 0 {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestDocumentsAreThoseThatSelectTheAgent(t *testing.T) {
	set := compile(t, policy.Options{}, rules("- {hosts: [a.example]}"), document("all-of-support", "enforce", "{namespaces: [support]}", "[b.example]", ""),
		document("other", "enforce", "{namespaces: [other]}", "[c.example]", ""), document("by-account", "enforce", "{serviceAccounts: [support-bot]}", "[d.example]", ""))
	names := func(p identity.Principal) (out []string) {
		for _, doc := range set.Documents(p) {
			out = append(out, doc.Metadata.Name)
		}
		return out
	}
	for _, row := range []struct {
		who  identity.Principal
		want []string
	}{
		{bot, []string{"support-bot", "all-of-support", "by-account"}},
		{identity.Principal{Namespace: "support", ServiceAccount: "x"}, []string{"all-of-support"}},
		{identity.Principal{Namespace: "other", ServiceAccount: "support-bot"}, []string{"other", "by-account"}},
		{identity.Principal{}, nil},
	} {
		if got := names(row.who); !slices.Equal(got, row.want) {
			t.Errorf("%+v: %q, want %q", row.who, got, row.want)
		}
	}
	if got := (*policy.Set)(nil).Documents(bot); got != nil {
		t.Errorf("no set: %v", got)
	}
}
