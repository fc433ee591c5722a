package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// check is `aegrail-engine policy check` of a policy file.
func check(t *testing.T, policy string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return output(exec.Command(engine, "policy", "check", file))
}

// explain is what the policy decides on a request of an agent.
func explain(t *testing.T, policy, agent, method, url string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := output(exec.Command(engine, "policy", "explain", "--policy", file, "--agent", agent, method, url))
	if err != nil {
		t.Fatal(err)
	}
	verdict, _, _ := strings.Cut(out, " ")
	return verdict
}

func TestEveryRenderedPolicyLoads(t *testing.T) {
	for _, set := range valueSets(t) {
		t.Run(filepath.Base(set), func(t *testing.T) {
			found := policies(mustRender(t, "--values", set))
			if len(found) == 0 {
				t.Fatal("no policy")
			}
			for name, policy := range found {
				if out, err := check(t, policy); err != nil {
					t.Errorf("%s: %v\n%s\n%s", name, err, out, policy)
				}
			}
		})
	}
}

func TestTheQuickstartAllowsItsHostAndNothingElse(t *testing.T) {
	found := policies(mustRender(t, "--set", "policy.allowlist[0]=api.openai.com"))
	policy := found[namespace+"/aegrail-policy"]
	for _, c := range []struct{ agent, method, url, want string }{
		{"default/default", "POST", "https://api.openai.com/v1/chat/completions", "allow"},
		{"default/other", "GET", "https://api.openai.com/", "allow"},
		{"default/default", "GET", "https://api.anthropic.com/", "deny"},
		{"elsewhere/default", "GET", "https://api.openai.com/", "deny"},
	} {
		if got := explain(t, policy, c.agent, c.method, c.url); got != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.agent, c.method, c.url, got, c.want)
		}
	}
}

func TestNothingIsAllowedUntilValuesSaySo(t *testing.T) {
	policy := policies(mustRender(t))[namespace+"/aegrail-policy"]
	if out, err := check(t, policy); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := explain(t, policy, "default/default", "GET", "https://api.openai.com/"); got != "deny" {
		t.Error(got)
	}
}

// TestWordsStayWords gives values that YAML readers disagree about: each must
// come out as it went in, or the engine would refuse or, worse, misread it.
func TestWordsStayWords(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	err := os.WriteFile(values, []byte(`
policies:
  "1.10":
    agents: {namespaces: ["on", "0123"], serviceAccounts: ["no"]}
    rules:
      - name: "y"
        hosts: ["1.example", "null.example"]
        paths: ["/~", "/#no", "/a: b", "/'\"", "/caf\u00e9"]
        limits: {maxRequests: 12345678, requestBytes: 1048576}
        when: |
          request.method == "GET" &&
            request.path != "- x"
        headers: {set: {X-Answer: "yes", X-Date: "2026-01-01", X-Octal: "0o17"}}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = render("--values", values); err == nil {
		t.Fatal("a path with # was taken")
	}
	contains(t, err.Error(), "/policies/1.10/rules/0/paths/1")

	data, _ := os.ReadFile(values)
	if err := os.WriteFile(values, []byte(strings.Replace(string(data), `"/#no", `, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := render("--values", values)
	if err != nil {
		t.Fatal(err)
	}
	policy := policies(objects(t, out))[namespace+"/aegrail-policy"]
	if out, err := check(t, policy); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, policy)
	}
	for url, want := range map[string]string{
		"https://1.example/~": "allow", "https://null.example/caf%C3%A9": "allow", "https://1.example/x": "deny",
	} {
		if got := explain(t, policy, "on/no", "GET", url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
	contains(t, policy, "maxRequests: 12345678", "requestBytes: 1048576")
}

// TestWhatTheSchemaCannotSeeTheCheckSays: the Job's command fails on it and
// names policy, rule and field, which helm prints.
func TestWhatTheSchemaCannotSeeTheCheckSays(t *testing.T) {
	for set, want := range map[string]string{
		"policy.rules[0].when=request.bdy":                               "spec.rules[0].when", // no such field
		"policy.rules[0].tls=passthrough,policy.rules[0].methods[0]=GET": "spec.rules[0].methods",
		"policy.rules[0].headers.set.Host=b.example":                     "spec.rules[0].headers.set.Host",
		"policy.rules[0].paths[0]=/a//b":                                 "spec.rules[0].paths[0]",
	} {
		policy := policies(mustRender(t, "--set", "policy.rules[0].name=gate,policy.rules[0].hosts[0]=a.example,"+set))[namespace+"/aegrail-policy-check"]
		_, err := check(t, policy)
		if err == nil {
			t.Errorf("%s: taken", set)
			continue
		}
		contains(t, err.Error(), want, "rule gate of policy default")
	}
}

// TestASidecarSeesItsOwnPoliciesOnly is for plain mode, where the file is
// mounted beside the agent.
func TestASidecarSeesItsOwnPoliciesOnly(t *testing.T) {
	found := policies(mustRender(t, "--values", manifests+"/plain.values.yaml", "--no-hooks"))
	if len(found) != 2 {
		t.Fatalf("%d policy files", len(found))
	}
	for name, want := range map[string]string{"agents/aegrail-policy": "default", "batch/aegrail-policy": "batch"} {
		policy := found[name]
		if n := strings.Count(policy, "kind: AgentPolicy"); n != 1 || !strings.Contains(policy, "name: \""+want+"\"") {
			t.Errorf("%s has %d policies, want %s alone:\n%s", name, n, want, policy)
		}
	}
}
