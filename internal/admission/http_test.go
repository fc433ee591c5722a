package admission

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// asking is a Namespaces that does what it says.
type asking func(ctx context.Context, name string) (Namespace, error)

func (a asking) Namespace(ctx context.Context, name string) (Namespace, error) { return a(ctx, name) }

func TestWhatIsNoReviewGetsNoAnswer(t *testing.T) {
	h := newHook(t, nil)
	good, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: question(t, "CREATE pods", "support", podOf(t, simple), nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(from, to string) string { return strings.Replace(string(good), from, to, 1) }
	for what, row := range map[string]struct {
		method, path, contentType, body string
		status                          int
	}{
		"the method":          {"GET", PathMutatePod, "application/json", "", http.StatusMethodNotAllowed},
		"another method":      {"PUT", PathValidatePod, "application/json", string(good), http.StatusMethodNotAllowed},
		"the path":            {"POST", "/mutate", "application/json", string(good), http.StatusNotFound},
		"no type":             {"POST", PathMutatePod, "", string(good), http.StatusUnsupportedMediaType},
		"another type":        {"POST", PathMutatePod, "application/yaml", string(good), http.StatusUnsupportedMediaType},
		"a broken type":       {"POST", PathMutatePod, "application/json; x", string(good), http.StatusUnsupportedMediaType},
		"no body":             {"POST", PathMutatePod, "application/json", "", http.StatusBadRequest},
		"no JSON":             {"POST", PathMutatePod, "application/json", "{", http.StatusBadRequest},
		"trailing data":       {"POST", PathMutatePod, "application/json", string(good) + "{}", http.StatusBadRequest},
		"JSON of another":     {"POST", PathMutatePod, "application/json", `{"request": 5}`, http.StatusBadRequest},
		"the kind":            {"POST", PathMutatePod, "application/json", edit("AdmissionReview", "Pod"), http.StatusBadRequest},
		"an older version":    {"POST", PathMutatePod, "application/json", edit("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), http.StatusBadRequest},
		"no question":         {"POST", PathMutatePod, "application/json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, http.StatusBadRequest},
		"no UID":              {"POST", PathMutatePod, "application/json", edit(`"u-1"`, `""`), http.StatusBadRequest},
		"more than the limit": {"POST", PathMutatePod, "application/json", string(good) + strings.Repeat(" ", maxReview), http.StatusRequestEntityTooLarge},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, h.url+row.path, strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", row.contentType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != row.status || strings.Contains(string(body), `"allowed"`) {
			t.Errorf("%s: %s, want %d\n%s", what, resp.Status, row.status, body)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.seen {
		if one.Outcome != Failed {
			t.Errorf("observed %+v", one)
		}
	}
}

func TestAReviewThatBreaksOffGetsNoAnswer(t *testing.T) {
	h := newHook(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), "POST", h.url+PathMutatePod, io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("answered")
		}
	}
}

// What cannot be decided is refused, and says that it was not the pod's fault.
func TestWhatCannotBeDecidedIsRefused(t *testing.T) {
	h := newHook(t, nil)
	noPod := question(t, "CREATE pods", "support", map[string]any{"apiVersion": "v1", "kind": "Node"}, nil)
	broken := question(t, "CREATE pods", "support", podOf(t, simple), nil)
	broken.Object.Raw = []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":5}}`)
	other := question(t, "CREATE pods", "support", podOf(t, simple), nil)
	other.Resource.Group = "apps"
	for what, row := range map[string]struct {
		req  *admissionv1.AdmissionRequest
		says string
	}{
		"a namespace that is not known": {question(t, "CREATE pods", "nowhere", podOf(t, simple), nil), "looking up namespace nowhere"},
		"another kind":                  {noPod, "Node"},
		"a pod that is none":            {broken, "reading the pod"},
		"no object":                     {question(t, "CREATE pods", "support", nil, nil), "reading the pod"},
		"another group":                 {other, "configuration"},
		"another operation":             {question(t, "DELETE pods", "support", nil, podOf(t, simple)), "DELETE of v1 pods is nothing"},
		"another subresource":           {question(t, "UPDATE pods/status", "support", podOf(t, simple), podOf(t, simple)), "pods/status"},
		"an update of nothing":          {question(t, "UPDATE pods/ephemeralcontainers", "support", podOf(t, simple), nil), "as it was"},
	} {
		for _, path := range []string{PathMutatePod, PathValidatePod, PathValidatePolicy, PathValidateBundle} {
			answer := h.ask(path, row.req)
			if answer.Allowed || answer.Result.Code != http.StatusInternalServerError {
				t.Errorf("%s at %s: %+v", what, path, answer)
			}
			if path == PathMutatePod && !strings.Contains(answer.Result.Message, row.says) {
				t.Errorf("%s: %q does not say %q", what, answer.Result.Message, row.says)
			}
		}
	}
	options := question(t, "CONNECT pods/exec", "support", nil, nil)
	options.Object.Raw = []byte(`{"container":5}`)
	if answer := h.ask(PathValidatePod, options); answer.Allowed {
		t.Error("exec options that cannot be read are let in")
	}
	unmarked := question(t, "CREATE pods", "nowhere", podOf(t, "{metadata: {labels: {aegrail.io/injected: 'true'}}, spec: {containers: []}}"), nil)
	if answer := h.ask(PathValidatePod, unmarked); answer.Allowed {
		t.Error("a mark in a namespace that is not known is let in")
	}
}

func TestAPanicRefuses(t *testing.T) {
	h := newHook(t, func(o *Options) {
		o.Namespaces = asking(func(context.Context, string) (Namespace, error) { panic("boom") })
	})
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: question(t, "CREATE pods", "support", podOf(t, simple), nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(h.url+PathMutatePod, "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusInternalServerError || strings.Contains(string(text), "boom") {
		t.Errorf("%s: %s", resp.Status, text)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) != 1 || h.seen[0].Outcome != Failed {
		t.Errorf("observed %+v", h.seen)
	}
}

func TestALookUpHasADeadline(t *testing.T) {
	deadlines := make(chan bool, 1)
	h := newHook(t, func(o *Options) {
		o.Namespaces = asking(func(ctx context.Context, _ string) (Namespace, error) {
			_, has := ctx.Deadline()
			deadlines <- has
			return Namespace{}, errors.New("no")
		})
	})
	h.ask(PathMutatePod, question(t, "CREATE pods", "support", podOf(t, simple), nil))
	if !<-deadlines {
		t.Error("the API server would wait for nothing")
	}
}
