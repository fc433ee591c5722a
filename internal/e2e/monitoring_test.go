package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The alerts that ship are evaluated over what control and the engines really
// say of themselves: while nothing is wrong, while the policy does not load,
// while somebody who may (no agent does) takes the namespace's label off and
// has a pod start, and after the label was put back.
func TestE07WhoeverLiftsTheRulesIsSeenInAnAlert(t *testing.T) {
	a := injected(t)
	scrapes := []scrape{mustScrape(t, a.namespace)}
	a.holds(t, "/monitoring")
	scrapes = append(scrapes, mustScrape(t, a.namespace))

	// Past the webhook: the ConfigMap is made anew without the label by which it is looked at.
	good := kubectl(t, "get", "configmap", "-n", control, "aegrail-policy", "-o", "json")
	t.Cleanup(func() { replacePolicy(t, good) })
	replacePolicy(t, brokenPolicy(t, good))
	scrapes = append(scrapes, scrapedWhen(t, a.namespace, "aegrail_control_policy_stale", 1))
	replacePolicy(t, good)
	scrapedWhen(t, a.namespace, "aegrail_control_policy_stale", 0)

	kubectl(t, "label", "namespace", a.namespace, "aegrail.io/inject-")
	t.Cleanup(func() { kubectl(t, "label", "namespace", a.namespace, "--overwrite", "aegrail.io/inject=enabled") })
	loose := looseIn(t, a.namespace)
	scrapes = append(scrapes, scrapedWhen(t, a.namespace, "aegrail_control_namespaces_released", 1))
	if o := loose.try(t, "udp", "1.2.3.4:9999"); !o.Succeeded {
		t.Errorf("the pod without an engine does not get out, so that there is nothing to see: %+v", o)
	}
	suite.origins.forget() // it was let out on purpose

	kubectl(t, "label", "namespace", a.namespace, "aegrail.io/inject=enabled")
	scrapedWhen(t, a.namespace, "aegrail_control_namespaces_released", 0)
	scrapes = append(scrapes, scrapedWhen(t, a.namespace, "aegrail_control_unheld_pods", 1))

	if err := ask(t, scrapes, []question{
		firing(0), firing(1),
		firing(2, "AegrailControlPolicyStale/warning"),
		firing(3, "AegrailNamespaceReleased/critical"),
		firing(4, "AegrailUnheldPods/critical"),
	}); err != nil {
		t.Error(err)
	}
	noPanelIsEmpty(t, scrapes[:2])
}

// scrapedWhen scrapes until a metric is at a value somewhere.
func scrapedWhen(t *testing.T, agents, metric string, value float64) (s scrape) {
	t.Helper()
	await(t, fmt.Sprintf("%s is %v", metric, value), func(ctx context.Context) (err error) {
		if s, err = scraped(ctx, agents); err == nil && s.highest(metric) != value {
			err = fmt.Errorf("it is %v", s.highest(metric))
		}
		return err
	})
	return s
}

// replacePolicy makes the ConfigMap that control serves anew, so that no update is seen.
func replacePolicy(t *testing.T, object string) {
	t.Helper()
	kubectl(t, "delete", "configmap", "-n", control, "aegrail-policy", "--ignore-not-found")
	if _, err := command(object, "kubectl", "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// brokenPolicy is the ConfigMap with a policy that does not compile, and without the label that has it checked.
func brokenPolicy(t *testing.T, good string) string {
	t.Helper()
	var object struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   map[string]any    `json:"metadata"`
		Data       map[string]string `json:"data"`
	}
	if err := json.Unmarshal([]byte(good), &object); err != nil {
		t.Fatal(err)
	}
	object.Metadata = map[string]any{"name": "aegrail-policy", "namespace": control}
	object.Data["policy.yaml"] = strings.Replace(object.Data["policy.yaml"], "methods:", "method:", 1)
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// looseIn is a pod that starts without an engine.
func looseIn(t *testing.T, namespace string) agent {
	t.Helper()
	a := agent{namespace, "loose", "agent"}
	apply(t, a.waiting(agentImage))
	t.Cleanup(func() { kubectl(t, "delete", "pod", "-n", namespace, a.pod) })
	ready(t, namespace, a.pod)
	return a
}

// noPanelIsEmpty has promtool evaluate every query of the dashboard over what
// was scraped before and after some traffic: each has samples, by each label
// that its legend names.
func noPanelIsEmpty(t *testing.T, scrapes []scrape) {
	t.Helper()
	data, err := os.ReadFile("../../deploy/grafana/aegrail.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	alerts, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	queries, there := 0, scrapes[1].metrics()
	legend, metric := regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`), regexp.MustCompile(`\baegrail_[a-z0-9_]+`)
	for _, name := range metric.FindAllString(string(alerts), -1) {
		if !there[name] && !there[name+"_bucket"] {
			t.Errorf("an alert looks at %s, which nobody serves", name)
		}
	}
	var questions []question
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			// A zero for nothing, and a selection of what is wrong, would hide that a name is.
			expr := strings.NewReplacer("$__rate_interval", "1h", "$namespace", ".+", "$pod", ".+", " or vector(0)", "", " == 0)", " >= 0)").Replace(target.Expr)
			questions = append(questions, question{"count(" + expr + ") > bool 0", 2*era - 15, []string{"{}"}})
			for _, l := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				questions = append(questions, question{fmt.Sprintf("count((%s) unless on (%s) vector(0)) > bool 0", expr, l[1]), 2*era - 15, []string{"{}"}})
			}
		}
	}
	if queries < 20 {
		t.Errorf("%d queries", queries)
	}
	if err := ask(t, scrapes, questions); err != nil {
		t.Errorf("of the dashboard: %v", err)
	}
	t.Logf("%d queries of the dashboard, in %d questions, over %d series", queries, len(questions), len(scrapes[1].values))
}
