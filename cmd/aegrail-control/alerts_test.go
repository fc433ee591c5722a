package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/admission"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// TestEveryMetricOfControlInAlertsAndDashboardExists: an alert on a metric that
// is spelled otherwise never fires. internal/charts has the same test for the
// engine's.
func TestEveryMetricOfControlInAlertsAndDashboardExists(t *testing.T) {
	c := newCounters()
	c.admitted(admission.Observation{Path: "/mutate-pod", Duration: time.Millisecond})
	c.called(podca.Engine, "signed")
	c.loaded(itemPolicy, nil)
	families, err := c.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{} // :: metric → its labels
	for _, f := range families {
		labels[f.GetName()] = []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels[f.GetName()] = append(labels[f.GetName()], l.GetName())
		}
	}
	for _, file := range []string{"../../deploy/alerts/aegrail.yaml", "../../deploy/grafana/aegrail.json"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		uses := regexp.MustCompile(`\b(aegrail_control_[a-z_]+?)(?:_bucket)?\b(?:\{([^}]*)\})?`).FindAllStringSubmatch(strings.ReplaceAll(string(data), `\"`, `"`), -1)
		if len(uses) < 4 {
			t.Errorf("%s asks for %d metrics of control", file, len(uses))
		}
		for _, use := range uses {
			has, ok := labels[use[1]]
			if !ok {
				t.Errorf("%s asks for %s, which control does not have", file, use[1])
			}
			for _, label := range regexp.MustCompile(`(\w+)\s*(?:=~|!=|!~|=)`).FindAllStringSubmatch(use[2], -1) {
				if ok && !slices.Contains(has, label[1]) {
					t.Errorf("%s selects %s by %s, which it does not have", file, use[1], label[1])
				}
			}
		}
	}
}
