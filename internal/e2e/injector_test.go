package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// prepends is a mutating webhook of somebody else's, as service meshes and secret stores have them: it puts an init container
// before all others, and a container at the end. It does so once, whatever it finds.
func prepends(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Request struct {
			UID    string `json:"uid"`
			Object struct {
				Metadata struct {
					Annotations map[string]string `json:"annotations"`
				} `json:"metadata"`
				Spec struct {
					InitContainers []struct {
						Name string `json:"name"`
					} `json:"initContainers"`
				} `json:"spec"`
			} `json:"object"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := map[string]any{"uid": in.Request.UID, "allowed": true}
	object := in.Request.Object
	wanted := object.Metadata.Annotations["later.example/inject"] == "yes"
	for _, c := range object.Spec.InitContainers {
		wanted = wanted && c.Name != "later-init"
	}
	// It is called after the engine is in, so there is a list to put something before.
	if wanted && len(object.Spec.InitContainers) > 0 {
		patch, err := json.Marshal([]map[string]any{
			{"op": "add", "path": "/spec/initContainers/0", "value": map[string]any{"name": "later-init", "image": agentImage, "args": []string{"udp", "1.2.3.4:9999"}}},
			{"op": "add", "path": "/spec/containers/-", "value": map[string]any{"name": "later", "image": agentImage, "args": []string{"wait"}}},
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer["patchType"], answer["patch"] = "JSONPatch", patch
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})
}

// laterInjector has the API server call prepends for pods of a namespace, after control: webhooks are called in the order of their names.
func laterInjector(t *testing.T, namespace string) {
	t.Helper()
	ca, err := newAuthority("somebody else's webhook")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.issue(pkix.Name{CommonName: "later"}, nodeIP)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", nodeIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(prepends), TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	apply(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: zz-later}
webhooks:
  - name: later.example.com
    clientConfig: {url: "https://%s/", caBundle: %s}
    rules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}
    failurePolicy: Fail
    sideEffects: None
    admissionReviewVersions: [v1]
`, l.Addr(), base64.StdEncoding.EncodeToString(ca.pem()), namespace))
	t.Cleanup(func() { kubectl(t, "delete", "mutatingwebhookconfiguration", "zz-later") })
}

func TestE06WhatALaterInjectorPrependsIsHeldAsWell(t *testing.T) {
	a := agent{injected(t).namespace, "meshed", "agent"}
	laterInjector(t, a.namespace)
	pod := a.waiting(agentImage, `annotations: {later.example/inject: "yes"}`)
	const order = "jsonpath={.spec.initContainers[*].name} {.spec.containers[*].name}"
	await(t, "the API server knows the webhook", func(context.Context) error {
		out, err := command(pod, "kubectl", "create", "--dry-run=server", "-o", order, "-f", "-")
		if err == nil && !strings.Contains(out, "later-init") {
			err = errors.New("not called")
		}
		return err
	})
	apply(t, pod)
	if out := kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", order); out != "aegrail-init aegrail-engine later-init agent later" {
		t.Errorf("the order is %s", out)
	}
	ready(t, a.namespace, a.pod)
	if out := kubectl(t, "logs", "-n", a.namespace, a.pod, "-c", "later-init"); !strings.Contains(out, `"succeeded":false`) {
		t.Errorf("what was put before the engine: %s", out)
	}
	later := agent{a.namespace, a.pod, "later"}
	later.mustFail(t, "udp", "1.2.3.4:9999")
	later.mustFail(t, "read", "/var/run/secrets/aegrail", "/var/log/aegrail/*")
}

// The webhooks hold also those whom no role holds: what follows is done as the cluster's administrator.
func TestE07WhatIsInjectedStaysSoWhoeverAsks(t *testing.T) {
	a := injected(t)
	resize := func(containers, fields string) []string {
		return []string{"patch", "pod", "-n", a.namespace, a.pod, "--subresource=resize", "-p", `{"spec": {"` + containers + `": [` + fields + `]}}`}
	}
	for _, row := range []struct {
		says string
		args []string
	}{
		{"spec.initContainers[aegrail-engine].resources", resize("initContainers", `{"name": "aegrail-engine", "resources": {"limits": {"memory": "65Mi"}}}`)},
		{"metadata.labels[aegrail.io/injected]", []string{"label", "pod", "-n", a.namespace, a.pod, "aegrail.io/injected-"}},
		{"metadata.annotations[aegrail.io/inject]", []string{"annotate", "pod", "-n", a.namespace, a.pod, "aegrail.io/inject=false"}},
		{"metadata.annotations[aegrail.io/engine-uid]", []string{"annotate", "--overwrite", "pod", "-n", a.namespace, a.pod, "aegrail.io/engine-uid=1000"}},
		{"spec.initContainers[aegrail-engine].image", []string{"set", "image", "-n", a.namespace, "pod/" + a.pod, "aegrail-engine=" + agentImage}},
		{"aegrail-control alone writes it", []string{"annotate", "configmap", "-n", a.namespace, "aegrail-ca-bundle", "a=b"}},
		{"aegrail-control alone writes it", []string{"delete", "configmap", "-n", a.namespace, "--all"}},
		{"exec into aegrail-engine is not held", []string{"exec", "-n", a.namespace, a.pod, "-c", "aegrail-engine", "--", "/aegrail-engine", "serve"}},
		{"attach into aegrail-engine", []string{"attach", "-n", a.namespace, a.pod, "-c", "aegrail-engine"}},
		{"SYS_PTRACE", []string{"debug", "-n", a.namespace, a.pod, "--image=" + agentImage, "--attach=false"}},
		{"targetContainerName", []string{"debug", "-n", a.namespace, a.pod, "--image=" + agentImage, "--attach=false", "--profile=baseline", "--target=aegrail-engine"}},
	} {
		if _, err := command("", "kubectl", row.args...); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%v: %v", row.args, err)
		}
	}
	kubectl(t, "label", "pod", "-n", a.namespace, a.pod, "team=support") // what is not ours
	kubectl(t, resize("containers", `{"name": "agent", "resources": {"requests": {"cpu": "11m"}}}`)...)
	kubectl(t, "exec", "-n", a.namespace, a.pod, "-c", "aegrail-engine", "--", "/aegrail-engine", "audit", "verify", "/var/log/aegrail/audit.log")
}
