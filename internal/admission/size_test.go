package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
)

// many is a pod with n containers of two bytes each.
func many(t *testing.T, n int) *admissionv1.AdmissionRequest {
	t.Helper()
	q := question(t, "CREATE pods", "support", nil, nil)
	q.Object = kuberuntime.RawExtension{Raw: []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[` + strings.Repeat("{},", n-1) + `{}]}}`)}
	return q
}

func reviewOf(t *testing.T, q *admissionv1.AdmissionRequest) string {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: q})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// serve asks handler without a network, and says how many bytes were allocated for the answer, the recorder's copy of it included.
func serve(ctx context.Context, handler http.Handler, body string) (*httptest.ResponseRecorder, uint64) {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, PathMutatePod, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	handler.ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	return w, after.TotalAlloc - before.TotalAlloc
}

func TestAFewBytesTakeNoMoreMemoryThanTheyAreWorth(t *testing.T) {
	handler, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	good := reviewOf(t, question(t, "CREATE pods", "support", podOf(t, simple), nil))
	if w, _ := serve(t.Context(), handler, good); w.Code != http.StatusOK { // and what is made once is there
		t.Fatal(w.Body)
	}
	for what, body := range map[string]string{
		"55 000 containers":           reviewOf(t, many(t, 55_000)),
		"as many as pass the count":   reviewOf(t, many(t, maxElements/2-20)),
		"one more than is injected":   reviewOf(t, many(t, maxContainers+1)),
		"nulls":                       strings.ReplaceAll(reviewOf(t, many(t, 300_000)), "{},", "null,"),
		"a list that is no review":    "[" + strings.Repeat("{},", 500_000) + "{}]",
		"lists in lists":              strings.Repeat("[", 1_500_000),
		"a list where a name belongs": `{"request":{"userInfo":{"groups":[` + strings.Repeat("{},", 500_000) + `{}]}}}`,
	} {
		w, allocated := serve(t.Context(), handler, body)
		if strings.Contains(w.Body.String(), `"allowed":true`) {
			t.Errorf("%s: is let in", what)
		}
		if most := uint64(32 << 20); allocated > most {
			t.Errorf("%s: %d bytes take %d MiB of memory", what, len(body), allocated>>20)
		}
	}
}

func TestALargePodIsInjected(t *testing.T) {
	h := newHook(t, nil)
	pod := podOf(t, simple)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "TEXT", Value: strings.Repeat(`[{"a":1,"b\\":null},`, (3<<20)/20)}}
	for i := range 100 {
		c := corev1.Container{Name: fmt.Sprintf("c%d", i), Image: "i"}
		for j := range 100 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", j), Value: "x"})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	if answer := h.ask(PathMutatePod, question(t, "CREATE pods", "support", pod, nil)); !answer.Allowed {
		t.Error(answer.Result.Message)
	}
	for _, path := range []string{PathMutatePod, PathValidatePod} {
		answer := h.ask(path, many(t, maxContainers+1))
		if answer.Patch = nil; answer.Allowed {
			t.Fatalf("%s: too many containers are let in", path)
		}
		wantRefused(t, path, answer, "257 containers", "at most 256")
	}
	pod = podOf(t, simple)
	pod.Spec.Volumes = make([]corev1.Volume, maxVolumes+1)
	wantRefused(t, "volumes", h.ask(PathMutatePod, question(t, "CREATE pods", "support", pod, nil)), "1025 volumes")
}

func TestElementsAreCountedOutsideOfText(t *testing.T) {
	for text, want := range map[string]int{
		``: 0, `{}`: 1, `[{},null,[1,2]]`: 6, `{"a":"[{,","b\\\",{":"\\"}`: 2, `"\\\\",`: 1, `"\\`: 0, `"a,`: 0,
	} {
		if got := elements([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestReviewsWaitForTheirTurnAndNotForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside atomic.Int32
		leave := make(chan struct{})
		o := options()
		o.Namespaces = asking(func(context.Context, string) (Namespace, error) {
			inside.Add(1)
			<-leave
			return namespaces()["support"], nil
		})
		handler, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		body := reviewOf(t, question(t, "CREATE pods", "support", podOf(t, simple), nil))
		answers := make(chan string, maxAtOnce+1)
		for range maxAtOnce + 1 {
			go func() {
				w, _ := serve(t.Context(), handler, body)
				answers <- fmt.Sprint(w.Code, strings.Contains(w.Body.String(), `"allowed":true`))
			}()
		}
		synctest.Wait()
		if n := inside.Load(); n != maxAtOnce {
			t.Errorf("%d reviews at once, want %d", n, maxAtOnce)
		}
		if got := <-answers; got != "503 false" { // time passes until somebody gives up
			t.Errorf("the one that waited: %s", got)
		}
		close(leave)
		for range maxAtOnce {
			<-answers
		}
		if w, _ := serve(t.Context(), handler, body); w.Code != http.StatusOK {
			t.Errorf("a place is not given back: %d", w.Code)
		}
	})
}

func TestAnAnswerThatNobodyWaitsForAllowsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := options()
	o.Namespaces = asking(func(context.Context, string) (Namespace, error) {
		cancel()
		return namespaces()["support"], nil
	})
	handler, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := serve(ctx, handler, reviewOf(t, question(t, "CREATE pods", "support", podOf(t, simple), nil)))
	if !strings.Contains(w.Body.String(), `"allowed":false`) {
		t.Error("is allowed")
	}
}
