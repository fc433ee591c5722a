package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const writer = "system:serviceaccount:aegrail-system:aegrail-control"

// known are namespaces by name.
type known map[string]Namespace

func (k known) Namespace(_ context.Context, name string) (Namespace, error) {
	ns, ok := k[name]
	if !ok {
		return ns, errors.New("not found")
	}
	return ns, nil
}

func namespaces() known {
	return known{
		"support": {Inject: "enabled", Bundle: true, CAGeneration: 1},
		"optin":   {Bundle: true, CAGeneration: 4},
		"new":     {Inject: "enabled", NotReady: "NoCertManager: the API server knows no cert-manager.io/v1"},
		"held":    {Inject: "enabled", Bundle: true, CAGeneration: 1, PodSecurity: "baseline"},
		"typo":    {Inject: "true", Bundle: true, CAGeneration: 1},
		"other":   {},
	}
}

// hook is a server with all webhooks.
type hook struct {
	t   *testing.T
	url string

	mu   sync.Mutex
	seen []Observation
}

func options() Options {
	return Options{
		Config: inject.Config{
			Image: "engine:1", Enforcement: inject.Transparent, ControlAddress: "aegrail-control.aegrail-system.svc:8443",
			UID: func() (uint32, error) { return inject.FirstUID + 7, nil },
		},
		Namespaces: namespaces(), Writers: []string{writer}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func newHook(t *testing.T, edit func(*Options)) *hook {
	t.Helper()
	h, o := &hook{t: t}, options()
	o.Observe = func(one Observation) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.seen = append(h.seen, one)
	}
	if edit != nil {
		edit(&o)
	}
	handler, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

// question is an AdmissionRequest in few words: "CREATE pods", "UPDATE pods/ephemeralcontainers".
func question(t testing.TB, what, namespace string, object, old any) *admissionv1.AdmissionRequest {
	t.Helper()
	operation, resource, _ := strings.Cut(what, " ")
	resource, sub, _ := strings.Cut(resource, "/")
	raw := func(v any) runtime.RawExtension {
		if v == nil {
			return runtime.RawExtension{}
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: b}
	}
	return &admissionv1.AdmissionRequest{
		UID: "u-1", Operation: admissionv1.Operation(operation), Namespace: namespace, SubResource: sub,
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: resource},
		Object:   raw(object), OldObject: raw(old), UserInfo: authenticationv1.UserInfo{Username: "dev"},
	}
}

// ask asks at path and returns the answer, which is for the question.
func (h *hook) ask(path string, req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	h.t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: req})
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.Post(h.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out admissionv1.AdmissionReview
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
		h.t.Fatalf("%s: %v", resp.Status, err)
	}
	if out.Kind != "AdmissionReview" || out.APIVersion != "admission.k8s.io/v1" || out.Response == nil || out.Response.UID != req.UID {
		h.t.Fatalf("no answer to the question: %+v", out)
	}
	return out.Response
}

// wantRefused fails unless answer refuses and says all of words.
func wantRefused(t *testing.T, what string, answer *admissionv1.AdmissionResponse, words ...string) {
	t.Helper()
	if answer.Allowed || answer.Result == nil || answer.Result.Code != http.StatusForbidden || len(answer.Patch) > 0 {
		t.Errorf("%s: %+v", what, answer)
		return
	}
	for _, w := range words {
		if !strings.Contains(answer.Result.Message, w) {
			t.Errorf("%s: %q does not say %q", what, answer.Result.Message, w)
		}
	}
}

func podOf(t testing.TB, text string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

const simple = "{metadata: {name: bot}, spec: {containers: [{name: agent, image: 'bot:1'}]}}"

// apply does what the API server does with an answer.
func apply(t testing.TB, raw []byte, answer *admissionv1.AdmissionResponse) *corev1.Pod {
	t.Helper()
	if !answer.Allowed {
		t.Fatalf("refused: %s", answer.Result.Message)
	}
	if answer.Patch != nil {
		patch, err := jsonpatch.DecodePatch(answer.Patch)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = patch.Apply(raw); err != nil {
			t.Fatalf("the patch does not fit: %v\n%s", err, answer.Patch)
		}
	}
	pod := new(corev1.Pod)
	if err := json.Unmarshal(raw, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// injected takes a pod through the mutating webhook.
func (h *hook) injected(namespace, text string) *corev1.Pod {
	h.t.Helper()
	q := question(h.t, "CREATE pods", namespace, podOf(h.t, text), nil)
	return apply(h.t, q.Object.Raw, h.ask(PathMutatePod, q))
}

func TestAPodIsInjectedAndItsFinalFormIsLetIn(t *testing.T) {
	h := newHook(t, nil)
	pod := h.injected("support", simple)
	var names []string
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{inject.ContainerInit, inject.ContainerEngine}) || pod.Annotations[inject.AnnotationCAGeneration] != "1" {
		t.Errorf("%s in %v", names, pod.Annotations)
	}
	if answer := h.ask(PathValidatePod, question(t, "CREATE pods", "support", pod, nil)); !answer.Allowed {
		t.Error(answer.Result.Message)
	}
	answer := h.ask(PathValidatePod, question(t, "CREATE pods", "support", podOf(t, simple), nil))
	wantRefused(t, "not injected", answer, "metadata.labels[aegrail.io/injected]", "not injected")

	// A second call, as reinvocation makes it, has nothing to change.
	if again := h.ask(PathMutatePod, question(t, "CREATE pods", "support", pod, nil)); !again.Allowed || again.Patch != nil {
		t.Errorf("changed again: %s", again.Patch)
	}
}

// A patch goes to what the API server has, with all that this version does not know.
func TestFieldsThatAreNotKnownStay(t *testing.T) {
	h := newHook(t, nil)
	const raw = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bot","future":1},"spec":{"future":{"a":[1]},
		"initContainers":[{"name":"one","image":"i","future":"x"}],"containers":[{"name":"agent","image":"b","future":{"y":2}}]}}`
	q := question(t, "CREATE pods", "support", nil, nil)
	q.Object.Raw = []byte(raw)
	answer := h.ask(PathMutatePod, q)
	patch, err := jsonpatch.DecodePatch(answer.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata struct{ Future int }
		Spec     struct {
			Future     map[string][]int
			Containers []struct{ Future map[string]int }
		}
	}
	if err := json.Unmarshal(out, &got); err != nil || got.Metadata.Future != 1 || got.Spec.Future["a"][0] != 1 || got.Spec.Containers[0].Future["y"] != 2 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWhichPodsAreInjected(t *testing.T) {
	const label = "{metadata: {name: bot, labels: {aegrail.io/inject: 'true'}}, spec: {containers: [{name: agent, image: 'bot:1'}]}}"
	annotation, off, odd := strings.Replace(label, "labels", "annotations", 1), strings.Replace(label, "true", "false", 1), strings.Replace(label, "true", "yes", 1)
	h := newHook(t, nil)
	for _, row := range []struct{ what, namespace, pod string }{
		{"the namespace's label", "support", simple},
		{"and the pod's", "support", label},
		{"the pod's label", "optin", label},
		{"the pod's annotation", "optin", annotation},
	} {
		pod := h.injected(row.namespace, row.pod)
		if !inject.Marked(pod) {
			t.Errorf("%s: not injected", row.what)
		}
		if answer := h.ask(PathValidatePod, question(t, "CREATE pods", row.namespace, pod, nil)); !answer.Allowed {
			t.Errorf("%s: %s", row.what, answer.Result.Message)
		}
		answer := h.ask(PathValidatePod, question(t, "CREATE pods", row.namespace, podOf(t, row.pod), nil))
		wantRefused(t, row.what+", not injected", answer, "not injected")
	}
	for _, row := range []struct {
		what, namespace, pod string
		says                 []string
	}{
		{"asked without a CA", "other", label, []string{"namespace other has no CA", "kubectl label namespace other aegrail.io/inject=enabled"}},
		{"asked by annotation", "other", annotation, []string{"kubectl label namespace other"}},
		{"a CA that is not there yet", "new", simple, []string{"no CA yet", "NoCertManager", "kubectl describe namespace new"}},
		{"out of a labelled namespace", "support", off, []string{`"false"`, "cannot leave"}},
		{"out by annotation", "support", strings.Replace(annotation, "true", "false", 1), []string{"cannot leave"}},
		{"a value that means nothing", "optin", odd, []string{`"yes"`, `write "true"`}},
		{"a label that means nothing", "typo", simple, []string{"aegrail.io/inject=true, which means nothing", "--overwrite"}},
		{"Pod Security", "held", simple, []string{"pod-security.kubernetes.io/enforce", "baseline", "NET_ADMIN", "advisory"}},
		{"what cannot be held", "support", strings.Replace(simple, "spec: {", "spec: {hostNetwork: true, ", 1), []string{"spec.hostNetwork", "remove it"}},
	} {
		for _, path := range []string{PathMutatePod, PathValidatePod} {
			pod := podOf(t, row.pod)
			if path == PathValidatePod { // as somebody may have got it past the first
				good := h.injected("support", simple)
				pod.Annotations = merged(good.Annotations, pod.Annotations)
				pod.Labels = merged(good.Labels, pod.Labels)
				pod.Spec.InitContainers, pod.Spec.Volumes = good.Spec.InitContainers, good.Spec.Volumes
			}
			wantRefused(t, row.what+" at "+path, h.ask(path, question(t, "CREATE pods", row.namespace, pod, nil)), row.says...)
		}
	}
}

func merged(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// TestE07 is about getting a pod out: whatever is tried needs a right, and is refused where it can be seen.
func TestE07NoPodIsAnnotatedOutOrIn(t *testing.T) {
	h := newHook(t, nil)
	pod := h.injected("support", simple)

	forged := pod.DeepCopy()
	wantRefused(t, "a pod that says it is injected where nothing is", h.ask(PathValidatePod, question(t, "CREATE pods", "optin", forged, nil)), "aegrail.io/injected", "label the namespace")

	token := podOf(t, "{metadata: {name: t}, spec: {containers: [{name: a, image: b}], volumes: [{name: v, projected: {sources: [{serviceAccountToken: {audience: aegrail-control, path: t}}]}}]}}")
	wantRefused(t, "the engine's token in a pod without one", h.ask(PathValidatePod, question(t, "CREATE pods", "other", token, nil)), "spec.volumes[v].projected.sources[0].serviceAccountToken.audience")

	out := pod.DeepCopy()
	delete(out.Labels, inject.LabelInjected)
	for _, namespace := range []string{"support", "other"} { // also when the namespace has lost its label
		wantRefused(t, "the mark is taken off", h.ask(PathValidatePod, question(t, "UPDATE pods", namespace, out, pod)), "aegrail.io/injected")
	}
	engine := pod.DeepCopy()
	engine.Spec.InitContainers[1].Image = "evil:1"
	wantRefused(t, "another engine", h.ask(PathValidatePod, question(t, "UPDATE pods", "support", engine, pod)), "spec.initContainers[aegrail-engine].image")

	plain := podOf(t, simple)
	less := pod.DeepCopy()
	less.Spec.InitContainers[1].Resources.Limits = nil
	wantRefused(t, "the engine is resized", h.ask(PathValidatePod, question(t, "UPDATE pods/resize", "support", less, pod)), "spec.initContainers[aegrail-engine].resources", "engine.resources")
	more := pod.DeepCopy()
	more.Spec.Containers[0].Resources.Limits = less.Spec.InitContainers[0].Resources.Limits
	if answer := h.ask(PathValidatePod, question(t, "UPDATE pods/resize", "support", more, pod)); !answer.Allowed {
		t.Errorf("a resize of the agent: %+v", answer)
	}
	wantRefused(t, "the mark is put on", h.ask(PathValidatePod, question(t, "UPDATE pods", "support", pod, plain)), "says that it is")
	same := plain.DeepCopy()
	same.Labels = map[string]string{"app": "bot"}
	if answer := h.ask(PathValidatePod, question(t, "UPDATE pods", "support", same, plain)); !answer.Allowed {
		t.Errorf("a pod from before the label may not go on: %s", answer.Result.Message)
	}
}

// TestE06 is about containers that come to a running pod.
func TestE06EphemeralContainersAndExecAreHeld(t *testing.T) {
	h := newHook(t, nil)
	before := h.injected("support", simple)
	before.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: inject.ContainerEngine, Started: new(true), State: corev1.ContainerState{Running: new(corev1.ContainerStateRunning)},
	}}
	after := before.DeepCopy()
	after.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", Image: "busybox:1"}}}
	const update = "UPDATE pods/ephemeralcontainers"

	wantRefused(t, "not held", h.ask(PathValidatePod, question(t, update, "support", after, before)), "spec.ephemeralContainers[debugger]")
	q := question(t, update, "support", after, before)
	held := apply(t, q.Object.Raw, h.ask(PathMutatePod, q))
	if answer := h.ask(PathValidatePod, question(t, update, "support", held, before)); !answer.Allowed {
		t.Error(answer.Result.Message)
	}

	// What comes along with the update is not believed.
	lying := after.DeepCopy()
	lying.Labels, lying.Spec.InitContainers, lying.Spec.Volumes = nil, nil, nil
	q = question(t, update, "support", lying, before)
	if pod := apply(t, q.Object.Raw, h.ask(PathMutatePod, q)); pod.Spec.EphemeralContainers[0].SecurityContext == nil {
		t.Error("an update that leaves out the mark is not held")
	}
	lying.Status.InitContainerStatuses = before.Status.InitContainerStatuses
	early := before.DeepCopy()
	early.Status.InitContainerStatuses = nil
	wantRefused(t, "before the engine", h.ask(PathMutatePod, question(t, update, "support", lying, early)), "is not up")

	plain := podOf(t, simple)
	debug := plain.DeepCopy()
	debug.Spec.EphemeralContainers = after.Spec.EphemeralContainers
	for _, path := range []string{PathMutatePod, PathValidatePod} {
		if answer := h.ask(path, question(t, update, "support", debug, plain)); !answer.Allowed || answer.Patch != nil {
			t.Errorf("%s: a pod without an engine: %+v", path, answer)
		}
	}

	for _, row := range []struct {
		kind, container string
		command         []string
		allowed         bool
	}{
		{"exec", "agent", []string{"sh"}, true},
		{"exec", "", []string{"sh"}, true},
		{"exec", "aegrail-engine", []string{"sh"}, false},
		{"exec", "aegrail-init", []string{"/aegrail-init", "dump"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "serve", "--listen=:9999"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "exec", "--", "/aegrail-init"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "verify", "/var/log/aegrail/audit.log"}, true},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "show", "--verdict", "deny", "/var/log/aegrail/audit.log"}, true},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "unknown", "/var/log/aegrail/audit.log"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "show", "/var/run/secrets/aegrail/token"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "show", "/var/log/aegrail/../../run/secrets/aegrail/token"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "verify", "--anchor=/var/run/secrets/aegrail/token"}, false},
		{"exec", "aegrail-engine", []string{"/aegrail-engine", "audit", "show", "/var/log/aegrail/audit.log.key"}, false},
		{"attach", "aegrail-engine", nil, false},
		{"attach", "agent", nil, true},
	} {
		options := corev1.PodExecOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodExecOptions"}, Container: row.container, Command: row.command}
		answer := h.ask(PathValidatePod, question(t, "CONNECT pods/"+row.kind, "support", options, nil))
		if answer.Allowed != row.allowed {
			t.Errorf("%s into %q of %q: allowed is %v", row.kind, row.container, row.command, answer.Allowed)
		}
		if !row.allowed {
			wantRefused(t, row.kind, answer, "not held", "audit show")
		}
	}
}

func TestAdvisoryPodsSayThatNothingIsEnforced(t *testing.T) {
	h := newHook(t, func(o *Options) { o.Config.Enforcement = inject.Advisory })
	answer := h.ask(PathMutatePod, question(t, "CREATE pods", "held", podOf(t, simple), nil))
	if !answer.Allowed || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "NOT ENFORCED") {
		t.Errorf("%+v", answer)
	}
}

func TestPlainModeNeedsABundleAndNoGeneration(t *testing.T) {
	h := newHook(t, func(o *Options) {
		o.Config.ControlAddress, o.Config.Plain = "", inject.Plain{CASecret: "aegrail-ca", PolicyConfigMap: "aegrail-policy"}
		o.Namespaces = known{"plain": {Inject: "enabled", Bundle: true}, "none": {Inject: "enabled"}}
	})
	pod := h.injected("plain", simple)
	if answer := h.ask(PathValidatePod, question(t, "CREATE pods", "plain", pod, nil)); !answer.Allowed {
		t.Error(answer.Result.Message)
	}
	wantRefused(t, "no bundle", h.ask(PathMutatePod, question(t, "CREATE pods", "none", podOf(t, simple), nil)), "no CA yet")
}

func TestEveryAnswerIsObserved(t *testing.T) {
	h := newHook(t, nil)
	h.injected("support", simple)
	h.ask(PathMutatePod, question(t, "CREATE pods", "other", podOf(t, simple), nil))
	h.ask(PathMutatePod, question(t, "CREATE pods", "nowhere", podOf(t, simple), nil))
	h.ask(PathValidatePod, question(t, "UPDATE pods", "support", podOf(t, simple), podOf(t, simple)))
	h.mu.Lock()
	defer h.mu.Unlock()
	var got []string
	for _, one := range h.seen {
		if one.Duration <= 0 {
			t.Errorf("%+v took no time", one)
		}
		got = append(got, one.Path+" "+string(one.Outcome))
	}
	want := []string{PathMutatePod + " injected", PathMutatePod + " refused", PathMutatePod + " failed", PathValidatePod + " allowed"}
	if !slices.Equal(got, want) {
		t.Errorf("observed %q, want %q", got, want)
	}
}

func TestOptionsThatAnswerNothing(t *testing.T) {
	for want, edit := range map[string]func(*Options){
		"namespaces": func(o *Options) { o.Namespaces = nil },
		"logger":     func(o *Options) { o.Logger = nil },
		"image":      func(o *Options) { o.Config.Image = "" },
	} {
		o := options()
		edit(&o)
		if h, err := New(o); h != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func BenchmarkMutate(b *testing.B) {
	handler, err := New(options())
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request:  question(b, "CREATE pods", "support", podOf(b, simple), nil),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, PathMutatePod, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
