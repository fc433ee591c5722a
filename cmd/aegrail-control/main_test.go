package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
)

// command runs aegrail-control and returns its exit code and what it printed.
func command(t *testing.T, env map[string]string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(context.Background(), args, world{
		getenv: func(name string) string { return env[name] }, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs,
	})
	return report(&errs, err), out.String(), errs.String()
}

func TestWrongUsageIsNamedAndEndsWithTwo(t *testing.T) {
	good := []string{"serve", "--namespace=aegrail-system", "--policy=p.yaml", "--tls-dir=tls", "--image=registry.example/engine:1"}
	for what, row := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"no command":          {args: nil, want: "name a command"},
		"an unknown command":  {args: []string{"run"}, want: `unknown command "run"`},
		"an argument":         {args: append(good[:5:5], "x"), want: `unexpected argument "x"`},
		"an unknown flag":     {args: append(good[:5:5], "--polcy=x"), want: "unknown flag: --polcy"},
		"no namespace":        {args: []string{"serve"}, want: "--namespace is missing"},
		"no image":            {args: good[:4], want: "--image is missing"},
		"an issuer":           {args: append(good[:5:5], "--issuer=vault"), want: "an issuer is KIND/NAME"},
		"enforcement":         {args: append(good[:5:5], "--enforcement=hope"), want: `"hope"`},
		"a size":              {args: append(good[:5:5], "--log-size-limit=big"), want: "--log-size-limit"},
		"resources":           {args: append(good[:5:5], `--engine-resources={"limit":{}}`), want: "--engine-resources"},
		"a CIDR":              {args: append(good[:5:5], "--deny-cidr=10.0.0.0"), want: "10.0.0.0"},
		"a log level":         {args: append(good[:5:5], "--log-level=loud"), want: "--log-level"},
		"a variable":          {args: []string{"render"}, env: map[string]string{"AEGRAIL_CONTROL_ENGINE_UID": "perhaps"}, want: "AEGRAIL_CONTROL_ENGINE_UID"},
		"files that are none": {args: good, want: "reading the certificate of webhooks and link"},
	} {
		code, _, stderr := command(t, row.env, "", row.args...)
		wantCode := 2
		if what == "files that are none" {
			wantCode = 1
		}
		if code != wantCode || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: exit %d, %q; want %d and %q", what, code, stderr, wantCode, row.want)
		}
	}
}

func TestAFlagBeatsItsVariable(t *testing.T) {
	env := map[string]string{"AEGRAIL_CONTROL_IMAGE": "registry.example/engine:variable"}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: bot}\nspec: {containers: [{name: agent, image: 'registry.example/bot:1'}]}\n"
	if _, out, stderr := command(t, env, pod, "render"); !strings.Contains(out, "registry.example/engine:variable") {
		t.Errorf("the variable was not read: %s%s", out, stderr)
	}
	_, out, _ := command(t, env, pod, "render", "--image=registry.example/engine:flag")
	if !strings.Contains(out, "registry.example/engine:flag") || strings.Contains(out, "engine:variable") {
		t.Errorf("the variable beat the flag: %s", out)
	}
}

// TestRenderPrintsWhatInjectionMakes compares with a file; UPDATE=1 writes it.
func TestRenderPrintsWhatInjectionMakes(t *testing.T) {
	pod, err := os.ReadFile("testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	code, out, stderr := command(t, nil, string(pod), "render", "--image=registry.example/aegrail-engine:1", "--engine-uid=2000123456",
		"--deny-cidr=10.0.0.0/8", "--engine-arg=--audit-rotate-size=64Mi", `--engine-resources={"limits":{"memory":"128Mi"}}`)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	const golden = "testdata/rendered.yaml"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out != string(want) {
		t.Errorf("render printed\n%s\nwant\n%s", out, want)
	}
}

func TestRenderSaysWhyAPodIsRefused(t *testing.T) {
	for what, row := range map[string]struct {
		pod  string
		args []string
		want string
	}{
		"the node's network": {"apiVersion: v1\nkind: Pod\nspec: {hostNetwork: true, containers: [{name: a, image: b}]}", nil, "spec.hostNetwork"},
		"Pod Security":       {"apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: b}]}", []string{"--pod-security=restricted"}, "NET_ADMIN"},
		"a Deployment":       {"apiVersion: apps/v1\nkind: Deployment\n", nil, "the pod of its template"},
		"an unknown field":   {"apiVersion: v1\nkind: Pod\nspec: {hostNetwrk: true}", nil, "hostNetwrk"},
		"a user of no range": {"apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: b}]}", []string{"--engine-uid=7"}, "2000000000"},
	} {
		code, out, stderr := command(t, nil, row.pod, append([]string{"render", "--image=registry.example/aegrail-engine:1"}, row.args...)...)
		if code == 0 || out != "" || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: exit %d, printed %q, %q; want %q", what, code, out, stderr, row.want)
		}
	}
}
