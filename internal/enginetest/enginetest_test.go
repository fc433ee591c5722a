package enginetest

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNilOptionsAreReadyForUse(t *testing.T) {
	e := Start(t, nil)
	for name, client := range map[string]*http.Client{"HTTP/1.1": e.Client(t), "HTTP/2.0": e.ClientH2(t)} {
		r := e.Do(t, client, "GET", "allowed.test", "/x", "")
		if r.Status != 200 || r.Proto != name || r.Body != "hello from allowed.test\n" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := e.Do(t, e.Client(t), "DELETE", "allowed.test", "/x", ""); r.Status != 403 || r.Reason() != "method_not_allowed" {
		t.Errorf("%+v", r)
	}
	if _, err := e.Try(t, e.Client(t), "GET", "denied.test", "/x", ""); err == nil {
		t.Error("denied.test was reached")
	}
	if n := len(e.Log(t)); n != len(e.Records(t)) || n < 6 {
		t.Errorf("package audit reads %d records, this package %d", n, len(e.Records(t)))
	}
	if text := e.MetricsText(t); !strings.Contains(text, `aegrail_requests_total{method="read",reason="none",verdict="allowed"} 2`) {
		t.Errorf("metrics:\n%s", text)
	}
}

func TestSetPolicyIsInForceAtOnce(t *testing.T) {
	e := Start(t, nil)
	client := e.Client(t)
	if r := e.Do(t, client, "GET", "allowed.test", "/x", ""); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
	e.SetPolicy(t, "- name: less\n  {{to \"allowed.test\"}}\n  methods: [HEAD]")
	if r := e.Do(t, client, "GET", "allowed.test", "/x", ""); r.Status != 403 {
		t.Errorf("%+v", r)
	}
	if err := e.TrySetPolicy("- name: {{port \"no.test\"}}"); err == nil {
		t.Error("a policy for a host that the test has not")
	}
}

func TestPlainOriginsAndPlainTunnels(t *testing.T) {
	e := Start(t, &Options{
		Hosts:  map[string]Host{"plain.test": {Plain: true}},
		Policy: "- name: plain\n  {{to \"plain.test\"}}",
		Strict: true,
	})
	if r := e.Do(t, e.Client(t), "GET", "plain.test", "/absolute-form", ""); r.Status != 200 {
		t.Errorf("%+v", r)
	}
	e.WantRecord(t, Fields{"phase": "complete", "scheme": "http", "path": "/absolute-form", "kind": "plain"})
}
