package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// control is the namespace that the chart is installed in.
const control = "aegrail-system"

// install installs the product's chart as its README says. It fails every test that needs it, if it fails.
func install(t *testing.T) {
	t.Helper()
	if suite.installed {
		return
	}
	byHand(t) // before control, which lets nobody else write what agents trust
	chart, err := filepath.Abs("../../charts/aegrail-engine")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command("", "helm", "install", "aegrail", chart, "--namespace", control, "--create-namespace",
		"--values", "testdata/values.yaml", "--wait", "--timeout", "110s"); err != nil {
		t.Fatal(err)
	}
	suite.installed = true
	progress("the chart is installed")
}

// labelled makes a namespace whose agents are injected, and waits until it has its authority.
func labelled(t *testing.T, name string) {
	t.Helper()
	install(t)
	kubectl(t, "create", "namespace", name)
	kubectl(t, "label", "namespace", name, "aegrail.io/inject=enabled")
	kubectl(t, "wait", "namespace/"+name, `--for=condition=aegrail.io/CAReady`, "--timeout=60s")
	await(t, "the bundle is in the namespace", func(context.Context) error {
		_, err := command("", "kubectl", "get", "configmap", "-n", name, "aegrail-ca-bundle")
		return err
	})
}

// injected is a pod that nothing was written into by hand, made for the first test that asks.
func injected(t *testing.T) agent {
	t.Helper()
	if suite.injected == (agent{}) {
		const name = "support"
		labelled(t, name)
		botIn(t, name)
		suite.injected = agent{name, "bot", "agent"}
	}
	return suite.injected
}

// botIn creates the pod of testdata/agent.yaml in a namespace, and waits until it is ready.
func botIn(t *testing.T, namespace string) {
	t.Helper()
	kubectl(t, "apply", "-n", namespace, "-f", "testdata/agent.yaml")
	ready(t, namespace, "bot")
}

// engineUID is the user that a pod's engine runs as.
func (a agent) engineUID(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o",
		`jsonpath={.spec.initContainers[?(@.name=="aegrail-engine")].securityContext.runAsUser}`))
}

// account is who the agent is to the API server.
func (a agent) account(t *testing.T) string {
	t.Helper()
	return "system:serviceaccount:" + a.namespace + ":" + kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath={.spec.serviceAccountName}")
}

func TestAnUnmodifiedPodOfALabelledNamespaceIsServedAndHeld(t *testing.T) {
	a := injected(t)
	served(t, a)
	if out := kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath={.metadata.labels['aegrail\\.io/injected']}"); out != "true" {
		t.Errorf("the pod's label is %q", out)
	}
}

func TestAPolicyThatDoesNotCompileFailsTheInstallation(t *testing.T) {
	chart, err := filepath.Abs("../../charts/aegrail-engine")
	if err != nil {
		t.Fatal(err)
	}
	install(t)
	for field, rule := range map[string]string{
		"spec.rules[0].when": `when: 'request.nonsense == 1'`,
		// It is there, in the image that the check runs in, and is no file of control's to serve.
		"spec.rules[0].upstream.rootsFile": `upstream: {rootsFile: /etc/ssl/certs/ca-certificates.crt}`,
	} {
		broken := filepath.Join(t.TempDir(), "broken.yaml")
		if err := os.WriteFile(broken, []byte("policies:\n  bot:\n    agents: {namespaces: [x]}\n    rules:\n      - name: gate\n        hosts: [api.model.example]\n        "+rule+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = command("", "helm", "upgrade", "aegrail", chart, "--namespace", control, "--values", "testdata/values.yaml", "--values", broken, "--timeout", "100s")
		if err == nil {
			t.Fatal("helm takes a policy that does not compile: " + rule)
		}
		if !strings.Contains(err.Error(), field+":") || !strings.Contains(err.Error(), "rule gate of policy bot") {
			t.Errorf("it does not name rule and field: %v", err)
		}

		// Past the chart, by the webhook.
		policy := fmt.Sprintf("apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: bot}\nspec:\n  agents: {namespaces: [x]}\n  rules:\n    - name: gate\n      hosts: [api.model.example]\n      %s\n", rule)
		patch, err := json.Marshal(map[string]any{"data": map[string]string{"policy.yaml": policy}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = command("", "kubectl", "patch", "configmap", "-n", control, "aegrail-policy", "--type=merge", "-p", string(patch))
		if err == nil || !strings.Contains(err.Error(), "policies.aegrail.io") || !strings.Contains(err.Error(), field+":") {
			t.Errorf("the webhook says of %s: %v", rule, err)
		}
	}
}

func TestJobsOfAgentsEnd(t *testing.T) {
	labelled(t, "jobs")
	apply(t, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: bot, namespace: jobs}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: jobs}
spec:
  backoffLimit: 0
  template:
    spec:
      serviceAccountName: bot
      restartPolicy: Never
      containers:
        - {name: agent, image: "docker.io/local/agent:1", args: [send, -method, POST, -body, from a job, "https://api.model.example/v1/chat/completions"]}
`)
	kubectl(t, "wait", "-n", "jobs", "job/once", "--for=condition=Complete", "--timeout=100s")
	if got := suite.origins.arrived(func(s seen) bool { return s.BodySHA256 == digest("from a job") }); len(got) != 1 {
		t.Errorf("the job's request arrived %d times, want once", len(got))
	}
}

func TestE06WhatElseRunsInAPodIsHeldAsWell(t *testing.T) {
	a := injected(t)
	// kubectl debug as it is asks for capabilities that nothing beside an engine may have.
	_, err := command("", "kubectl", "debug", "-n", a.namespace, a.pod, "--image="+agentImage, "--container=loose", "--profile=sysadmin", "--", "/agent", "wait")
	if err == nil {
		t.Errorf("an ephemeral container with all rights is admitted")
	} else {
		t.Logf("refused: %v", err)
	}
	if _, err := command("", "kubectl", "debug", "-n", a.namespace, a.pod, "--image="+agentImage, "--container=debugger", "--profile=restricted",
		"--custom=testdata/debug.yaml", "--", "/agent", "wait"); err != nil {
		t.Fatal(err)
	}
	debugger := agent{a.namespace, a.pod, "debugger"}
	await(t, "the ephemeral container runs", func(context.Context) error {
		out, err := command("", "kubectl", "get", "pod", "-n", a.namespace, a.pod, "-o", `jsonpath={.status.ephemeralContainerStatuses[?(@.name=="debugger")].state.running.startedAt}`)
		if err == nil && out == "" {
			err = fmt.Errorf("not yet")
		}
		return err
	})
	debugger.mustFail(t, "udp", "1.2.3.4:9999")
	debugger.mustFail(t, "read", "/var/run/secrets/aegrail", "/var/log/aegrail/*")
	var got answer
	debugger.exec(t, &got, "send", "-direct", "-insecure", "-host", otherHost, "https://1.2.3.5/e06")
	if got.Error == "" {
		t.Errorf("an ephemeral container reaches another host: %+v", got)
	}

	// An init container that is written before the engine's comes after it.
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: support}
spec:
  serviceAccountName: bot
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: first, image: "docker.io/local/agent:1", args: [udp, "1.2.3.4:9999"]}
    - {name: second, image: "docker.io/local/agent:1", args: [send, -method, POST, -body, from an init container, "https://api.model.example/v1/chat/completions"]}
  containers:
    - {name: agent, image: "docker.io/local/agent:1", args: [wait]}
`)
	ready(t, "support", "early")
	if out := kubectl(t, "logs", "-n", "support", "early", "-c", "first"); !strings.Contains(out, `"succeeded":false`) {
		t.Errorf("an init container before the engine: %s", out)
	}
	if got := suite.origins.arrived(func(s seen) bool { return s.BodySHA256 == digest("from an init container") }); len(got) != 1 {
		t.Errorf("the init container's request arrived %d times, want once", len(got))
	}
}

func TestE07WhoOnlyRunsAgentsCannotLiftTheRules(t *testing.T) {
	a := injected(t)
	as := "--as=" + a.account(t)
	for _, args := range [][]string{
		{"label", "namespace", a.namespace, "aegrail.io/inject-"},
		{"label", "pod", "-n", a.namespace, a.pod, "aegrail.io/injected-"},
		{"annotate", "pod", "-n", a.namespace, a.pod, "aegrail.io/inject=false"},
		{"delete", "configmap", "-n", a.namespace, "aegrail-ca-bundle"},
	} {
		if _, err := command("", "kubectl", append(args, as)...); err == nil || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("%v as the agent: %v", args, err)
		}
	}
	// Who may create pods cannot annotate them out of a labelled namespace either.
	for _, out := range []string{`labels: {aegrail.io/inject: "false"}`, `annotations: {aegrail.io/inject: "false"}`, `labels: {aegrail.io/injected: "true"}`} {
		annotated := agent{a.namespace, "out", "agent"}
		if _, err := command(annotated.waiting(agentImage, out), "kubectl", "apply", "-f", "-"); err != nil {
			t.Logf("%s: %v", out, err)
			continue
		}
		ready(t, annotated.namespace, annotated.pod)
		annotated.mustFail(t, "udp", "1.2.3.4:9999")
		kubectl(t, "delete", "pod", "-n", annotated.namespace, annotated.pod)
	}
}
