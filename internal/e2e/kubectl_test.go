package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	certManager  = "v1.21.2"
	productImage = "docker.io/local/aegrail-engine:e2e"
	agentImage   = "docker.io/local/agent:1"
)

// command runs a program of the stack as the cluster's administrator. Where it
// fails, the error has what it said.
func command(stdin, program string, args ...string) (string, error) {
	return commandWithin(patience, stdin, program, args...)
}

// commandWithin is command for what goes on for longer.
func commandWithin(limit time.Duration, stdin, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(suite.stack, program), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(suite.dir, "pki", "admin.kubeconfig"), "HELM_CACHE_HOME="+suite.dir, "HELM_CONFIG_HOME="+suite.dir, "HELM_DATA_HOME="+suite.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), &failure{fmt.Sprintf("%s %s: %v\n%s", program, strings.Join(args, " "), err, stderr.String()), stderr.String()}
	}
	return stdout.String(), nil
}

// failure is how a command ended that did not succeed.
type failure struct{ text, stderr string }

func (f *failure) Error() string { return f.text }

// kubectl fails the test where kubectl fails.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command("", "kubectl", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply takes objects as YAML.
func apply(t *testing.T, yaml string) {
	t.Helper()
	if _, err := command(yaml, "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// refused applies objects that the cluster must not take, and returns what it said.
func refused(t *testing.T, yaml string) string {
	t.Helper()
	_, err := command(yaml, "kubectl", "apply", "-f", "-")
	if err == nil {
		t.Fatalf("the cluster took\n%s", yaml)
	}
	var f *failure
	errors.As(err, &f)
	return f.stderr
}

// namespace makes one that is gone when the test ends.
func namespace(t *testing.T, name string, labels ...string) {
	t.Helper()
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", name, "--wait=false") })
	for _, l := range labels {
		kubectl(t, "label", "namespace", name, l)
	}
	await(t, "the namespace has its service account", func(context.Context) error {
		_, err := command("", "kubectl", "-n", name, "get", "serviceaccount", "default")
		return err
	})
}

// await fails the test where check does not come true in time.
func await(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	if err := until(what, check); err != nil {
		t.Fatal(err)
	}
}

// answer is what the agent program says about a request.
type answer struct {
	Status   int    `json:"status"`
	Proto    string `json:"proto"`
	Decision string `json:"decision"` // X-Aegrail-Decision
	Reason   string `json:"reason"`   // X-Aegrail-Reason
	Type     string `json:"type"`     // Content-Type
	Body     string `json:"body"`
	Root     string `json:"root"` // common name of what the server's chain leads to
	Error    string `json:"error"`
}

// agent is a pod's container that runs the agent program.
type agent struct{ namespace, pod, container string }

// waiting is the manifest of an agent's pod that does nothing by itself. more
// are further fields of its metadata.
func (a agent) waiting(image string, more ...string) string {
	metadata := slices.Concat([]string{"name: " + a.pod, "namespace: " + a.namespace}, more)
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {%s}
spec:
  serviceAccountName: bot
  terminationGracePeriodSeconds: 5
  containers:
    - {name: %s, image: %q, args: [wait]}
`, strings.Join(metadata, ", "), a.container, image)
}

// waitingPod makes such a pod and waits until it is ready.
func waitingPod(t *testing.T, namespace, pod string) agent {
	t.Helper()
	a := agent{namespace, pod, "agent"}
	apply(t, a.waiting(agentImage))
	ready(t, namespace, pod)
	return a
}

// exec runs the agent program in the container and decodes what it prints.
func (a agent) exec(t *testing.T, into any, args ...string) {
	t.Helper()
	out := a.shell(t, append([]string{"/agent"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("agent %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// shell runs a command in the container.
func (a agent) shell(t *testing.T, args ...string) string {
	t.Helper()
	return kubectl(t, append([]string{"exec", "-n", a.namespace, a.pod, "-c", a.container, "--"}, args...)...)
}

func (a agent) send(t *testing.T, method, url, body string) (r answer) {
	t.Helper()
	a.exec(t, &r, "send", "-method", method, "-body", body, url)
	return r
}

// ready waits until a pod is.
func ready(t *testing.T, namespace, pod string) {
	t.Helper()
	out, err := command("", "kubectl", "wait", "-n", namespace, "pod/"+pod, "--for=condition=Ready", "--timeout=90s")
	if err != nil {
		t.Fatalf("%v%s", err, out)
	}
}
