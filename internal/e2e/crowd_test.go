package e2e

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTwoHundredPodsAreInjectedThroughTheAPIServer(t *testing.T) {
	labelled(t, "crowd")
	t.Cleanup(func() { kubectl(t, "delete", "namespace", "crowd", "--wait=false") })
	const pods, atOnce = 200, 8
	took := make([]time.Duration, pods)
	errs := make(chan error, pods)
	slots := make(chan struct{}, atOnce)
	for i := range pods {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			begun := time.Now()
			_, err := suite.kube.CoreV1().Pods("crowd").Create(context.Background(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bot-%d", i)},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{"no": "node"}, // what kubelet would do is not asked here
					Containers:   []corev1.Container{{Name: "agent", Image: agentImage}},
				},
			}, metav1.CreateOptions{})
			took[i] = time.Since(begun)
			errs <- err
		}()
	}
	for range pods {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	all, err := suite.kube.CoreV1().Pods("crowd").List(context.Background(), metav1.ListOptions{LabelSelector: "aegrail.io/injected=true"})
	if err != nil {
		t.Fatal(err)
	}
	users := map[int64]bool{}
	for _, p := range all.Items {
		for _, c := range p.Spec.InitContainers {
			if c.Name == "aegrail-engine" {
				users[*c.SecurityContext.RunAsUser] = true
			}
		}
	}
	if len(all.Items) != pods {
		t.Errorf("%d pods are injected, want %d", len(all.Items), pods)
	}
	if len(users) < pods-2 { // drawn from a million: two of 200 are the same in one run of fifty
		t.Errorf("the engines have %d users", len(users))
	}
	slices.Sort(took)
	progress("%d pods created, %d at once: p50 %v, p99 %v; the webhooks' own: %s", pods, atOnce,
		took[pods/2].Round(time.Millisecond), took[pods*99/100].Round(time.Millisecond), webhookTimes(t))
}

// webhookTimes is the p99 of each of our webhooks, as the API server has measured them.
func webhookTimes(t *testing.T) string {
	t.Helper()
	const metric = "apiserver_admission_webhook_admission_duration_seconds_bucket{"
	buckets := map[string]map[float64]float64{} // :: webhook -> upper bound -> calls up to it
	for line := range strings.Lines(kubectl(t, "get", "--raw", "/metrics")) {
		if !strings.HasPrefix(line, metric) || !strings.Contains(line, "pods.aegrail.io") || !strings.Contains(line, `operation="CREATE"`) {
			continue
		}
		bound, err := strconv.ParseFloat(label(line, "le"), 64) // +Inf too
		if err != nil {
			t.Fatal(err)
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
		if err != nil {
			t.Fatal(err)
		}
		name := label(line, "type") + " " + label(line, "name")
		if buckets[name] == nil {
			buckets[name] = map[float64]float64{}
		}
		buckets[name][bound] += count // of those that were refused and those that were not
	}
	var out []string
	for name, b := range buckets {
		for _, bound := range slices.Sorted(maps.Keys(b)) {
			if total := b[math.Inf(1)]; b[bound] >= 0.99*total {
				out = append(out, fmt.Sprintf("%s p99 at most %v s of %v calls", name, bound, total))
				break
			}
		}
	}
	if len(out) == 0 {
		t.Error("the API server has called no webhook of ours")
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// label is the value of a label in a line of metrics.
func label(line, name string) string {
	_, rest, _ := strings.Cut(line, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
