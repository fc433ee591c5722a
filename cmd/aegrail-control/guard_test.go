package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

// TestPodsThatNothingHoldsAreCountedAndNamedOnce has pods with and without an
// engine in namespaces that inject theirs and in one that does not.
func TestPodsThatNothingHoldsAreCountedAndNamedOnce(t *testing.T) {
	namespace := func(name string, labels map[string]string) client.Object {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	}
	pod := func(namespace, name string, injected bool, phase corev1.PodPhase) client.Object {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Status: corev1.PodStatus{Phase: phase}}
		if injected {
			p.Labels = map[string]string{inject.LabelInjected: "true"}
		}
		return p
	}
	labelled := map[string]string{inject.LabelInject: inject.InjectNamespace}
	objects := []client.Object{
		namespace("support", labelled), namespace("sales", labelled), namespace("default", nil),
		pod("support", "held", true, corev1.PodRunning), pod("support", "free", false, corev1.PodRunning), pod("support", "done", false, corev1.PodSucceeded),
		pod("sales", "waits", false, corev1.PodPending), pod("default", "other", false, corev1.PodRunning),
	}
	live := fake.NewClientBuilder().WithScheme(newScheme()).WithObjects(objects...).Build()
	var log bytes.Buffer
	g := &guard{live: live, count: func(float64) {}, logger: slog.New(slog.NewTextHandler(&log, nil))}
	for round := range 2 {
		n, err := g.look(t.Context())
		if err != nil || n != 2 {
			t.Errorf("round %d: %d pods, %v; want 2", round, n, err)
		}
	}
	for _, want := range []string{"pod=free", "pod=waits"} {
		if got := strings.Count(log.String(), want); got != 1 {
			t.Errorf("%s is %d times in the log, want once: %s", want, got, &log)
		}
	}
	if strings.Contains(log.String(), "held") || strings.Contains(log.String(), "pod=other") || strings.Contains(log.String(), "pod=done") {
		t.Errorf("the log names pods that are held, or need not be: %s", &log)
	}
	if err := live.Delete(t.Context(), objects[4]); err != nil {
		t.Fatal(err)
	}
	if n, err := g.look(t.Context()); err != nil || n != 1 {
		t.Errorf("after one was deleted: %d, %v", n, err)
	}
}

// TestNamespacesThatAreNotAsTheyShouldBeAreCounted follows what the leader says of namespaces.
func TestNamespacesThatAreNotAsTheyShouldBeAreCounted(t *testing.T) {
	c := newCounters()
	for i, step := range []struct {
		name              string
		state             namespaces.State
		unready, released int
	}{
		{"support", namespaces.NotReady, 1, 0},
		{"support", namespaces.NotReady, 1, 0},
		{"sales", namespaces.NotReady, 2, 0},
		{"support", namespaces.Ready, 1, 0},
		{"support", namespaces.Released, 1, 1},
		{"sales", namespaces.Gone, 0, 1},
		{"support", namespaces.Gone, 0, 0},
	} {
		c.namespace(step.name, step.state)
		_, body := get(c.handler(), "/metrics")
		for name, want := range map[string]int{"unready": step.unready, "released": step.released} {
			if !strings.Contains(body, fmt.Sprintf("aegrail_control_namespaces_%s %d\n", name, want)) {
				t.Errorf("step %d: %s is not %d", i, name, want)
			}
		}
	}
}
