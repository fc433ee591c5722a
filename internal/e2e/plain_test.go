package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// configMap makes one of a value that is not for YAML.
func configMap(t *testing.T, namespace, name, key, value string) {
	t.Helper()
	file := t.TempDir() + "/" + key
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "configmap", "-n", namespace, name, "--from-file="+file)
}

// plainPod makes what plain mode needs in a namespace, and the pod bot.
func plainPod(t *testing.T, namespace string) {
	t.Helper()
	issueCA(t, namespace)
	configMap(t, namespace, "aegrail-ca-bundle", "ca-bundle.pem", secret(t, namespace, "agents-ca", "ca.crt"))
	configMap(t, namespace, "upstream-roots", "roots.pem", string(suite.origins.ca.pem()))
	yaml, err := os.ReadFile("testdata/plain.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(strings.ReplaceAll(string(yaml), "@namespace@", namespace), "kubectl", "apply", "-n", namespace, "-f", "-"); err != nil {
		t.Fatal(err)
	}
	ready(t, namespace, "bot")
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func TestPlainModeHoldsAPodWithoutControl(t *testing.T) {
	namespace(t, "plain")
	plainPod(t, "plain")
	bot := agent{"plain", "bot", "agent"}

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
	got = bot.send(t, "GET", "https://"+otherHost+"/", "")
	if got.Error == "" {
		t.Errorf("a host that no rule names: %+v", got)
	}
	if through := suite.origins.arrived(func(s seen) bool { return s.Path == "/v1/files" || s.Host == otherHost }); len(through) > 0 {
		t.Errorf("what was refused arrived: %+v", through)
	}

	log := records(t, bot.log(t))
	done := logged(log, func(r record) bool { return r.Payload.Phase == "complete" && r.Payload.Body == digest(body) })
	if len(done) != 1 || done[0].Payload.Rule != "chat" || done[0].Payload.Status != 200 {
		t.Errorf("the log has no completion with the body's digest: %+v", done)
	}
	for _, r := range done {
		if a := r.Payload.Agent; a.Namespace != "plain" || a.ServiceAccount != "bot" || a.Pod != "bot" {
			t.Errorf("the log says the agent is %+v", a)
		}
	}
	denied := logged(log, func(r record) bool { return r.Event == "egress_denied" && r.Payload.Path == "/v1/files" })
	if len(denied) != 1 {
		t.Errorf("the log has the refused path %d times, want once", len(denied))
	}
}
