package fuzz

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/arpitcoder/aegrail-engine/internal/admission"
	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// oneNamespace is what is known of every namespace.
type oneNamespace admission.Namespace

func (n oneNamespace) Namespace(context.Context, string) (admission.Namespace, error) {
	return admission.Namespace(n), nil
}

// FuzzAdmissionReview: whatever is sent to the webhooks, what comes back is an answer to the question or no answer. A pod that is let in by
// the first is, with the patch applied, injected, let in by the second, and not changed by being injected again.
func FuzzAdmissionReview(f *testing.F) {
	c := inject.Config{
		Image: "engine:1", Enforcement: inject.Transparent, ControlAddress: "control.aegrail-system.svc:8443", CAGeneration: 1,
		UID: func() (uint32, error) { return inject.FirstUID, nil },
	}
	handler, err := admission.New(admission.Options{
		Config: c, Namespaces: oneNamespace{Inject: inject.InjectNamespace, Bundle: true, CAGeneration: 1},
		Writers: []string{"control"}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		f.Fatal(err)
	}
	paths := []string{admission.PathMutatePod, admission.PathValidatePod, admission.PathValidatePolicy, admission.PathValidateBundle}
	for _, seed := range reviews() {
		for i := range paths {
			f.Add(uint8(i), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, at uint8, body []byte) {
		path := paths[int(at)%len(paths)]
		req, answer := ask(t, handler, path, body)
		if answer == nil || !answer.Allowed || path != admission.PathMutatePod || req.Operation != admissionv1.Create {
			return
		}
		before := new(corev1.Pod)
		if err := kubejson.Unmarshal(req.Object.Raw, before); err != nil {
			t.Fatalf("a pod that cannot be read is let in: %v", err)
		}
		pod := patched(t, before, answer)
		if err := inject.Check(pod, c); err != nil {
			t.Fatalf("what was injected is refused: %v", err)
		}
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		req.Object = runtime.RawExtension{Raw: raw}
		review, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: typeMeta(), Request: req})
		if err != nil {
			t.Fatal(err)
		}
		if _, answer := ask(t, handler, admission.PathValidatePod, review); answer == nil || !answer.Allowed {
			t.Fatalf("what was injected is refused: %+v", answer)
		}
		if _, answer := ask(t, handler, admission.PathMutatePod, review); answer == nil || !answer.Allowed || answer.Patch != nil {
			t.Fatalf("what was injected is changed again: %+v", answer)
		}
	})
}

// ask returns the question in body as it is read, and the answer; nil and nil if there is none.
func ask(t *testing.T, handler http.Handler, path string, body []byte) (*admissionv1.AdmissionRequest, *admissionv1.AdmissionResponse) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	switch w.Code {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return nil, nil
	default:
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	var in, out admissionv1.AdmissionReview
	if err := kubejson.Unmarshal(body, &in); err != nil || in.Request == nil {
		t.Fatalf("what is no review is answered: %v", err)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Response == nil || out.Response.UID != in.Request.UID || out.TypeMeta != typeMeta() {
		t.Fatalf("no answer to the question: %v\n%s", err, w.Body)
	}
	if !out.Response.Allowed && (out.Response.Result == nil || out.Response.Result.Message == "") {
		t.Fatalf("refused without a word: %s", w.Body)
	}
	return in.Request, out.Response
}

// patched is before, as the API server has it and writes it, with the answer's patch.
func patched(t *testing.T, before *corev1.Pod, answer *admissionv1.AdmissionResponse) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Patch != nil {
		patch, err := jsonpatch.DecodePatch(answer.Patch)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = patch.Apply(raw); err != nil {
			t.Fatalf("the patch does not fit: %v", err)
		}
	}
	pod := new(corev1.Pod)
	if err := kubejson.Unmarshal(raw, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func typeMeta() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}
}

// reviews are questions of every kind, and what is none.
func reviews() []string {
	review := func(operation, resource, sub, object, old string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"` + operation + `","namespace":"n","resource":{"group":"","version":"v1","resource":"` + resource +
			`"},"subResource":"` + sub + `","userInfo":{"username":"control"},"object":` + object + `,"oldObject":` + old + `}}`
	}
	pod := func(metadata, spec string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{` + metadata + `},"spec":{` + spec + `}}`
	}
	const one = `"containers":[{"name":"a","image":"b"}]`
	out := []string{
		"", "{", "[]", "null", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`,
		review("CREATE", "pods", "", "null", "null"),
		review("CREATE", "pods", "", `{"apiVersion":"v1","kind":"Pod"}`, "null"),
		review("CREATE", "configmaps", "", `{"metadata":{"labels":{"aegrail.io/policy":"true"}},"data":{"p":"apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec: {agents: {namespaces: [n]}, allowlist: [a.test]}\n"}}`, "null"),
		review("CONNECT", "pods", "exec", `{"container":"aegrail-engine","command":["/aegrail-engine","audit","show","/var/log/aegrail/audit.log"]}`, "null"),
	}
	for _, p := range []string{
		pod(``, one),
		pod(`"labels":{"aegrail.io/inject":"true"},"annotations":{"a/b~c":"d"}`, one),
		pod(`"labels":{"aegrail.io/injected":"true"},"annotations":{"aegrail.io/engine-uid":"2000000000","aegrail.io/ca-generation":"1"}`,
			`"initContainers":[{"name":"aegrail-engine","image":"engine:1"},{"name":"x","image":"y","restartPolicy":"Always"},{"name":"aegrail-init","image":"engine:1"}],"volumes":[{"name":"aegrail-log"},{"name":"v"}],`+one),
		pod(``, `"containers":[{"name":"a","env":[{"name":"JAVA_TOOL_OPTIONS","value":"-Xmx1g"},{"name":"JAVA_TOOL_OPTIONS","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"HTTPS_PROXY","value":"p"},{"name":"","value":"="}],"volumeMounts":[{"name":"aegrail-ca","mountPath":"/etc/aegrail/ca","readOnly":true}]},{"name":"a"}],"ephemeralContainers":[{"name":"e"}]`),
		pod(``, `"securityContext":{"runAsUser":5,"seccompProfile":{"type":"RuntimeDefault"}},"containers":[{"name":"a","securityContext":{"capabilities":{"add":["KILL"],"drop":["ALL"]}}}]`),
		pod(``, `"hostNetwork":true,`+one),
	} {
		out = append(out, review("CREATE", "pods", "", p, "null"), review("UPDATE", "pods", "", p, p), review("UPDATE", "pods", "ephemeralcontainers", p, p))
	}
	return out
}
