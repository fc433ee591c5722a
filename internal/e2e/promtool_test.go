package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const alertsFile = "../../charts/aegrail-engine/files/alerts.yaml"

// scrape is what all of control's and the engines' pods said of themselves at
// one time: series, as promtool writes them, and values.
type scrape struct {
	at     time.Time
	values map[string]float64
}

// scraped asks control and the engines of a namespace, as the chart's
// ServiceMonitor and PodMonitor have it done.
func scraped(ctx context.Context, agents string) (scrape, error) {
	s := scrape{time.Now(), map[string]float64{}}
	for _, target := range []struct{ job, namespace, selector, port string }{
		{"aegrail-control", control, "app.kubernetes.io/component=control", "8080"},
		{"aegrail-engines", agents, "aegrail.io/injected=true", "15020"},
	} {
		pods, err := suite.kube.CoreV1().Pods(target.namespace).List(ctx, metav1.ListOptions{LabelSelector: target.selector, FieldSelector: "status.phase=Running"})
		if err != nil {
			return s, err
		}
		if len(pods.Items) == 0 {
			return s, fmt.Errorf("no pod of %s runs", target.job)
		}
		for _, p := range pods.Items {
			if err := s.add(target.job, target.port, &p); err != nil {
				return s, fmt.Errorf("%s of %s: %w", p.Name, target.job, err)
			}
		}
	}
	return s, nil
}

func mustScrape(t *testing.T, agents string) scrape {
	t.Helper()
	s, err := scraped(t.Context(), agents)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// add asks one pod.
func (s *scrape) add(job, port string, p *corev1.Pod) error {
	address := p.Status.PodIP + ":" + port
	got, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + address + "/metrics")
	if err != nil {
		return err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return err
	}
	of := fmt.Sprintf("job=%q,instance=%q,namespace=%q,pod=%q", job, address, p.Namespace, p.Name)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "aegrail_") {
			continue
		}
		series, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		if at := strings.LastIndex(line, "} "); at >= 0 { // a label's value may have a space
			series, number = line[:at+1], strings.TrimSpace(line[at+2:])
		}
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return err
		}
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if labels != "" {
			labels += ","
		}
		s.values[name+"{"+labels+of+"}"] = value
	}
	return nil
}

// highest is the greatest value of a metric, whosever it is.
func (s scrape) highest(metric string) float64 {
	out := math.Inf(-1)
	for series, v := range s.values {
		if strings.HasPrefix(series, metric+"{") {
			out = max(out, v)
		}
	}
	return out
}

// metrics are the names of all series.
func (s scrape) metrics() map[string]bool {
	out := map[string]bool{}
	for series := range s.values {
		name, _, _ := strings.Cut(series, "{")
		out[name] = true
	}
	return out
}

// era is how long each scrape stands for in promtool's time: longer than any
// alert waits, and than any looks back.
const era = 70 // min

// question is an expression at a minute of promtool's time, and the labels of
// the samples that it is to have, each with the value 1.
type question struct {
	expr   string
	minute int
	labels []string
}

// ask has promtool evaluate the chart's alerts, and answer questions, over a
// time in which each scrape stands for an era, one after the other.
func ask(t *testing.T, scrapes []scrape, questions []question) error {
	t.Helper()
	series := map[string]bool{}
	for _, s := range scrapes {
		for name := range s.values {
			series[name] = true
		}
	}
	type input struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	var inputs []input
	for name := range series {
		var values []string
		for i, s := range scrapes {
			v, there := s.values[name]
			if !there {
				values = append(values, fmt.Sprintf("_x%d", era))
				continue
			}
			if strings.Contains(name, "_timestamp_seconds{") { // as far from promtool's now as from ours
				v += float64(i*era*60) - float64(s.at.Unix())
			}
			values = append(values, fmt.Sprintf("%s+0x%d", strconv.FormatFloat(v, 'f', -1, 64), era-1))
		}
		inputs = append(inputs, input{name, strings.Join(values, " ")})
	}
	type sample struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
	type expression struct {
		Expr    string   `json:"expr"`
		Time    string   `json:"eval_time"`
		Samples []sample `json:"exp_samples"`
	}
	var expressions []expression
	for _, q := range questions {
		e := expression{Expr: q.expr, Time: fmt.Sprintf("%dm", q.minute), Samples: []sample{}}
		for _, l := range q.labels {
			e.Samples = append(e.Samples, sample{l, 1})
		}
		expressions = append(expressions, e)
	}
	rules, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(inputs, func(a, b input) int { return strings.Compare(a.Series, b.Series) })
	text, err := json.MarshalIndent(map[string]any{
		"rule_files": []string{rules}, "evaluation_interval": "1m",
		"tests": []any{map[string]any{"interval": "1m", "input_series": inputs, "promql_expr_test": expressions}},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(filepath.Join(suite.dir, "bin", "promtool"), "test", "rules", file).CombinedOutput(); err != nil {
		return fmt.Errorf("promtool: %w\n%s", err, said)
	}
	return nil
}

// firing asks that at the end of an era these alerts fire and no other. Each is
// NAME/SEVERITY.
func firing(number int, alerts ...string) question {
	q := question{expr: `ALERTS{alertstate="firing"}`, minute: (number+1)*era - 1}
	for _, a := range alerts {
		name, severity, _ := strings.Cut(a, "/")
		q.labels = append(q.labels, fmt.Sprintf(`{__name__="ALERTS", alertname=%q, alertstate="firing", severity=%q}`, name, severity))
	}
	return q
}
