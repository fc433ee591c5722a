package policy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// TestExamplesDecideAsTheirCasesSay holds the policies of deploy/ to the cases
// beside them.
func TestExamplesDecideAsTheirCasesSay(t *testing.T) {
	files, err := filepath.Glob("../../deploy/policies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".cases.yaml") {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			docs, err := v1alpha1.Parse(file, read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			set, warnings, err := policy.Compile(docs, policy.Options{AnyAgent: docs[0].Spec.Agents.IsZero()})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("warning: %v", w)
			}
			name := strings.TrimSuffix(file, ".yaml") + ".cases.yaml"
			cases, err := v1alpha1.ParseCases(name, read(t, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cases {
				runCase(t, set, c)
			}
		})
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func runCase(t *testing.T, set *policy.Set, c v1alpha1.Case) {
	t.Helper()
	p := identity.Principal{AgentIdentity: c.Agent}
	if namespace, account, ok := strings.Cut(c.Agent, "/"); ok {
		p = identity.Principal{Namespace: namespace, ServiceAccount: account}
	}
	var headers []string
	for name, value := range c.Headers {
		headers = append(headers, name+": "+value)
	}
	if c.Body != "" {
		headers = append(headers, json, fmt.Sprintf("Content-Length: %d", len(c.Body)))
	}
	req := parse(t, c.Method+" "+c.URL, headers...)
	e := policy.Explain(set.For(p), req, []byte(c.Body))
	if wrong := policy.CheckCase(c, e.Decision); wrong != "" {
		t.Errorf("%s:%d: %s: %s", c.File, c.Line, c.Name, wrong)
	}
}
