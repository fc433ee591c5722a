package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/events"

	"github.com/arpitcoder/aegrail-engine/internal/link"
)

const (
	policyOne = "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: bots}\nspec:\n" +
		"  agents: {namespaces: [support]}\n  allowlist: [api.openai.com]\n"
	policyTwo = policyOne + "  rules:\n    - {name: more, hosts: [pypi.org], methods: [GET], paths: [/simple/**]}\n"
)

// write replaces a file as an editor does.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// TestABrokenPolicyKeepsTheLastGoodOne reads a policy that changes for the
// worse and for the better, and what /readyz, metrics and engines are told.
func TestABrokenPolicyKeepsTheLastGoodOne(t *testing.T) {
	name := filepath.Join(t.TempDir(), "policy.yaml")
	c := &control{
		settings: settings{options: options{policy: name}}, logger: slog.New(slog.DiscardHandler), counters: newCounters(), health: newHealth(),
		policyFile: &policyFile{name: name},
	}
	told := events.NewFakeRecorder(10)
	c.events = told
	pod := link.Pod{Namespace: "support", ServiceAccount: "bot", Name: "bot-1", UID: "u", CAGeneration: 1}
	if _, _, err := c.policies.For(pod); err == nil {
		t.Fatal("there is a policy before one was read")
	}
	load := func() (changed bool, err error) {
		changed, err = c.loadPolicy()
		c.reloaded(itemPolicy, changed, err)
		return changed, err
	}
	revision := func() string {
		t.Helper()
		p, _, err := c.policies.For(pod)
		if err != nil {
			t.Fatal(err)
		}
		return p.Revision
	}
	write(t, name, policyOne)
	if changed, err := load(); err != nil || !changed {
		t.Fatalf("the first policy: %t, %v", changed, err)
	}
	first := revision()
	if changed, err := load(); err != nil || changed {
		t.Errorf("the same policy again: %t, %v", changed, err)
	}
	for what, text := range map[string]string{"a typing error": strings.Replace(policyTwo, "methods", "metods", 1), "no YAML": "{", "a condition": strings.Replace(policyTwo, "methods: [GET]", "methods: [GET], when: 'nobody.knows'", 1)} {
		write(t, name, text)
		if changed, err := load(); err == nil || changed {
			t.Errorf("%s was taken", what)
		}
		if revision() != first {
			t.Errorf("%s: the last good policy is gone", what)
		}
		// Ready all the same: without control no pod is made, and no authority renewed.
		if status, body := get(c.health.handler(), "/readyz"); status != http.StatusOK || !strings.HasPrefix(body, "ready\ndegraded: policy: ") {
			t.Errorf("%s: /readyz %d %q", what, status, body)
		}
		if event := <-told.Events; !strings.Contains(event, "Warning PolicyRejected") || !strings.Contains(event, "last good one stays") {
			t.Errorf("%s: event %q", what, event)
		}
		if _, body := get(c.counters.handler(), "/metrics"); !strings.Contains(body, "aegrail_control_policy_stale 1") {
			t.Errorf("%s: the metric says nothing", what)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := load(); err == nil {
		t.Error("a file that is gone was taken")
	}
	write(t, name, policyOne) // as it was before
	if _, err := load(); err != nil || revision() != first {
		t.Errorf("the first policy once more: %v", err)
	}
	if status, body := get(c.health.handler(), "/readyz"); status != http.StatusOK || body != "ready\n" {
		t.Errorf("/readyz %d %q after the policy is right again", status, body)
	}
	write(t, name, policyTwo)
	if changed, err := load(); err != nil || !changed || revision() == first {
		t.Errorf("a second policy: %t, %v", changed, err)
	}
	if _, body := get(c.counters.handler(), "/metrics"); !strings.Contains(body, "aegrail_control_policy_stale 0") {
		t.Error("the metric says that the policy is stale")
	}
}

// TestControlStartsWithoutAPolicyThatLoads: it admits pods, and what engines
// have stays in force, which an exit would not.
func TestControlStartsWithoutAPolicyThatLoads(t *testing.T) {
	dir := t.TempDir()
	tls := selfSigned(t, time.Now())
	for name, text := range map[string]string{"tls.crt": tls.cert, "tls.key": tls.key, "ca.crt": tls.cert, "policy.yaml": "{"} {
		write(t, filepath.Join(dir, name), text)
	}
	_, _, stderr := command(t, nil, "", "serve", "--namespace=aegrail-system", "--image=registry.example/engine:1", "--tls-dir="+dir,
		"--policy="+filepath.Join(dir, "policy.yaml"), "--kubeconfig="+filepath.Join(dir, "none"))
	if !strings.Contains(stderr, "finding the API server") {
		t.Errorf("it does not come as far as to the cluster: %s", stderr)
	}

	name := filepath.Join(dir, "policy.yaml")
	told := events.NewFakeRecorder(10)
	c := &control{
		settings: settings{options: options{policy: name}}, logger: slog.New(slog.DiscardHandler), counters: newCounters(), health: newHealth(),
		policyFile: &policyFile{name: name}, events: told,
	}
	changed, err := c.loadPolicy()
	c.reloaded(itemPolicy, changed, err)
	if status, body := get(c.health.handler(), "/readyz"); status != http.StatusOK || !strings.HasPrefix(body, "ready\ndegraded: policy: ") {
		t.Errorf("/readyz %d %q", status, body)
	}
	if event := <-told.Events; !strings.Contains(event, "Warning PolicyRejected") || !strings.Contains(event, "there is none yet") || strings.Contains(event, "last good") {
		t.Errorf("event %q", event)
	}
	if _, body := get(c.counters.handler(), "/metrics"); !strings.Contains(body, "aegrail_control_policy_stale 1") {
		t.Error("the metric says nothing")
	}
	var r *link.Refusal
	if _, _, err := c.policies.For(link.Pod{Namespace: "support"}); !errors.As(err, &r) || r.Kind != link.Unavailable {
		t.Errorf("an engine is told %v", err)
	}
	write(t, name, policyOne)
	changed, err = c.loadPolicy()
	c.reloaded(itemPolicy, changed, err)
	if _, body := get(c.health.handler(), "/readyz"); err != nil || body != "ready\n" || !c.policies.InForce() {
		t.Errorf("once it is right: %v, /readyz %q", err, body)
	}
}

// TestControlGoesOnForAWhileAfterItWasAskedToStop: it is unready at once.
func TestControlGoesOnForAWhileAfterItWasAskedToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &control{logger: slog.New(slog.DiscardHandler), health: newHealth()}
		ctx, stop := context.WithCancel(t.Context())
		work := c.outlive(ctx)
		if status, body := get(c.health.handler(), "/readyz"); status != http.StatusOK {
			t.Errorf("/readyz %d %q", status, body)
		}
		stop()
		synctest.Wait()
		if status, body := get(c.health.handler(), "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
			t.Errorf("/readyz %d %q after the signal", status, body)
		}
		if work.Err() != nil {
			t.Error("it ended at once")
		}
		<-work.Done() // or the test deadlocks
	})
}

func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	body, _ := io.ReadAll(w.Body)
	return w.Code, string(body)
}

// TestACertificateThatDoesNotFitIsNotPresented swaps a Secret's files for ones
// that do not belong together.
func TestACertificateThatDoesNotFitIsNotPresented(t *testing.T) {
	dir := t.TempDir()
	s := &serving{dir: dir}
	if _, err := s.certificate(nil); err == nil || authority(s) != "" {
		t.Error("a certificate was presented before one was loaded")
	}
	now := time.Now()
	if _, err := s.load(now); err == nil {
		t.Error("an empty directory loaded")
	}
	first, second := selfSigned(t, now), selfSigned(t, now)
	put := func(cert, key, ca string) {
		write(t, filepath.Join(dir, "tls.crt"), cert)
		write(t, filepath.Join(dir, "tls.key"), key)
		write(t, filepath.Join(dir, "ca.crt"), ca)
	}
	put(first.cert, first.key, first.cert)
	if changed, err := s.load(now); err != nil || !changed {
		t.Fatalf("the first certificate: %t, %v", changed, err)
	}
	if changed, err := s.load(now); err != nil || changed {
		t.Errorf("the same again: %t, %v", changed, err)
	}
	for what, files := range map[string][3]string{
		"another's key": {first.cert, second.key, first.cert},
		"another's CA":  {first.cert, first.key, second.cert},
		"no CA":         {first.cert, first.key, "none"},
		"no key":        {second.cert, "", second.cert},
	} {
		put(files[0], files[1], files[2])
		if changed, err := s.load(now); err == nil || changed {
			t.Errorf("%s was taken", what)
		}
		if authority(s) != first.cert {
			t.Errorf("%s: the last good certificate is gone", what)
		}
	}
	put(second.cert, second.key, second.cert)
	if changed, err := s.load(now); err != nil || !changed || authority(s) != second.cert {
		t.Errorf("the renewed certificate: %t, %v", changed, err)
	}
	put(first.cert, first.key, first.cert)
	if _, err := s.load(now.Add(48 * time.Hour)); err == nil {
		t.Error("an expired certificate was taken")
	}
}

// authority is what engines would verify with, or nothing.
func authority(s *serving) string {
	ca, err := s.ca()
	if err != nil {
		return ""
	}
	return string(ca)
}

type pair struct{ cert, key string }

func selfSigned(t *testing.T, now time.Time) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "aegrail-control"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{"aegrail-control.aegrail-system.svc"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
	}
}
