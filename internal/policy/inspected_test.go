package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
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

func TestANamespaceHasTheDocumentsAndViewsOfAllItsAgents(t *testing.T) {
	set := compile(t, policy.Options{}, rules("- {hosts: [a.example]}"), document("all-of-support", "enforce", "{namespaces: [support]}", "[b.example]", ""),
		document("other", "enforce", "{namespaces: [other], serviceAccounts: [pay]}", "[c.example]", ""), document("by-account", "enforce", "{serviceAccounts: [roaming]}", "[d.example]", ""))
	for _, row := range []struct {
		namespace string
		docs      []string
		views     []string // the hosts of each, sorted
	}{
		{"support", []string{"support-bot", "all-of-support", "by-account"}, []string{"a.example b.example", "b.example", "b.example d.example"}},
		{"other", []string{"other", "by-account"}, []string{"", "c.example", "d.example"}},
		{"elsewhere", []string{"by-account"}, []string{"", "d.example"}},
	} {
		var docs, views []string
		for _, doc := range set.NamespaceDocuments(row.namespace) {
			docs = append(docs, doc.Metadata.Name)
		}
		for _, v := range set.NamespaceViews(row.namespace) {
			views = append(views, strings.Join(v.Inspected(), " "))
		}
		if slices.Sort(views); !slices.Equal(docs, row.docs) || !slices.Equal(views, row.views) {
			t.Errorf("%s: %q, want %q; %q, want %q", row.namespace, docs, row.docs, views, row.views)
		}
	}
	var none *policy.Set
	if none.NamespaceDocuments("support") != nil || none.NamespaceViews("support") != nil {
		t.Error("no set has some")
	}
	if views := compile(t, policy.Options{Observe: true}).NamespaceViews("support"); len(views) != 1 || !views[0].Observes() {
		t.Errorf("a set that observes has %d views", len(views))
	}
	mine := v1alpha1.AgentPolicy{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "mine"}, Spec: v1alpha1.Spec{Allowlist: []string{"a.example"}}}
	anyone, _, err := policy.Compile([]v1alpha1.AgentPolicy{mine}, policy.Options{AnyAgent: true})
	if err != nil {
		t.Fatal(err)
	}
	if docs, views := anyone.NamespaceDocuments("support"), anyone.NamespaceViews("support"); len(docs) != 1 || len(views) != 1 || len(views[0].Inspected()) != 1 {
		t.Errorf("of a policy for anyone: %d documents, %d views", len(docs), len(views))
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
