package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// plainEngine is the user of the engine in deploy/manifests/plain-agent.yaml. An
// attacker does not know a drawn one beforehand; this one has a setuid binary in its image.
const plainEngine = 2000123456

// byHand is an agent's pod in plain mode, made for the first test that asks: by
// the chart without control and the pod of deploy/manifests, with the commands
// of the chart's README. Its agent is root.
func byHand(t *testing.T) agent {
	t.Helper()
	a := agent{"agents", "bot", "agent"}
	if suite.byHand {
		return a
	}
	suite.byHand = true
	chart, err := filepath.Abs("../../charts/aegrail-engine")
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "namespace", a.namespace)
	if _, err := command("", "helm", "install", "plain", chart, "--namespace", "aegrail-plain", "--create-namespace",
		"--values", "testdata/plain.values.yaml", "--wait", "--timeout", "100s"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "-n", a.namespace, "certificate/aegrail-ca", "--for=condition=Ready", "--timeout=60s")
	dir := t.TempDir()
	root := filepath.Join(dir, "root.crt")
	if err := os.WriteFile(root, []byte(secret(t, a.namespace, "aegrail-root", "ca.crt")), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, err := exec.Command(filepath.Join(suite.dir, "bin", "aegrail-engine"), "ca", "bundle", "--ca", root).Output()
	if err != nil {
		t.Fatal(err)
	}
	pem := filepath.Join(dir, "ca-bundle.pem")
	if err := os.WriteFile(pem, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "configmap", "-n", a.namespace, "aegrail-ca-bundle", "--from-file", pem)
	pod, err := os.ReadFile("../../deploy/manifests/plain-agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pod = regexp.MustCompile(`ghcr\.io/\S+/aegrail-engine:\S+`).ReplaceAll(pod, []byte(productImage))
	pod = regexp.MustCompile(`registry\.example/bot:\S+`).ReplaceAll(pod, []byte(agentImage))
	apply(t, string(pod))
	ready(t, a.namespace, a.pod)
	return a
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func TestPlainModeHoldsAPodWithoutControl(t *testing.T) { served(t, byHand(t)) }

// served says of an agent's pod that what policy allows goes through, that what
// it does not allow is refused so that a client can read it, and that the log
// has both.
func served(t *testing.T, bot agent) {
	t.Helper()
	body := fmt.Sprintf(`{"model": "m", "prompt": %q}`, t.Name())
	got := bot.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", body)
	if got.Status != 200 || !strings.HasSuffix(got.Body, body) {
		t.Errorf("an allowed POST: %+v", got)
	}
	arrived := suite.origins.arrived(func(s seen) bool { return s.BodySHA256 == digest(body) })
	if len(arrived) != 1 {
		t.Errorf("the origin saw it %d times, want once", len(arrived))
	}

	got = bot.send(t, "GET", "https://"+modelHost+"/v1/files", "")
	if got.Status != 403 || got.Decision != "denied" || got.Type != "application/problem+json" || got.Reason == "" {
		t.Errorf("another path is not refused so that a client can read it: %+v", got)
	}
	got = bot.send(t, "GET", "https://"+otherHost+"/served", "")
	if got.Error == "" {
		t.Errorf("a host that no rule names: %+v", got)
	}
	if through := suite.origins.arrived(func(s seen) bool { return s.Path == "/v1/files" || s.Path == "/served" }); len(through) > 0 {
		t.Errorf("what was refused arrived: %+v", through)
	}

	log := records(t, bot.log(t))
	done := logged(log, func(r record) bool { return r.Payload.Phase == "complete" && r.Payload.Body == digest(body) })
	if len(done) != 1 || done[0].Payload.Rule != "chat" || done[0].Payload.Status != 200 {
		t.Errorf("the log has no completion with the body's digest: %+v", done)
	}
	for _, r := range done {
		if a := r.Payload.Agent; a.Namespace != bot.namespace || a.ServiceAccount == "" || a.Pod != bot.pod {
			t.Errorf("the log says the agent is %+v", a)
		}
	}
	denied := logged(log, func(r record) bool { return r.Event == "egress_denied" && r.Payload.Path == "/v1/files" })
	if len(denied) != 1 {
		t.Errorf("the log has the refused path %d times, want once", len(denied))
	}
}
