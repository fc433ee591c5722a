package charts

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// series is what a metric has been seen with.
type series map[string][]string // :: name → its labels

// scraped reads the names and labels in the Prometheus text format. A
// histogram is there under its own name too.
func scraped(text string) series {
	out := series{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? `).FindAllStringSubmatch(text, -1) {
		labels := labelNames(m[2])
		out[m[1]] = append(out[m[1]], labels...)
		if base, ok := strings.CutSuffix(m[1], "_bucket"); ok {
			out[base] = append(out[base], labels...)
		}
	}
	return out
}

func labelNames(selector string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(\w+)\s*(?:=~|!=|!~|=)\s*"`).FindAllStringSubmatch(selector, -1) {
		out = append(out, m[1])
	}
	return out
}

// used finds the metrics of ours in PromQL, with the labels by which they are
// selected.
func used(promql string) series {
	out := series{}
	for _, m := range regexp.MustCompile(`\b(aegrail_[a-z0-9_]+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(promql, -1) {
		out[m[1]] = append(out[m[1]], labelNames(m[2])...)
	}
	return out
}

// startEngine runs an engine that has everything that has metrics, lets it
// refuse one request, and returns what it says at /metrics.
func startEngine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	t.Cleanup(sink.Close)
	if _, err := output(exec.Command(engine, "ca", "init", "--dir", filepath.Join(dir, "ca"))); err != nil {
		t.Fatal(err)
	}
	serve := exec.Command(engine, "serve", "--ca-dir", filepath.Join(dir, "ca"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--audit-file", filepath.Join(dir, "audit.log"), "--audit-anchor", filepath.Join(dir, "anchor"), "--audit-sink", sink.URL, "--enforcement", "advisory", "--log-format", "json")
	stderr, err := serve.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		_ = serve.Wait()
	})
	var at struct{ Msg, Listen, Admin string }
	for lines := bufio.NewScanner(stderr); at.Msg != "serving" && lines.Scan(); {
		if err := json.Unmarshal(lines.Bytes(), &at); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	if at.Admin == "" {
		t.Fatal("the engine did not start")
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: at.Listen})}}
	if resp, err := client.Get("http://api.openai.com/"); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Fatalf("%v %v, want a refusal", resp, err)
	}
	resp, err := http.Get("http://" + at.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEveryMetricInAlertsAndDashboardExists asks a running engine: an alert on
// a metric that is spelled otherwise never fires, and nobody notices.
func TestEveryMetricInAlertsAndDashboardExists(t *testing.T) {
	there := scraped(startEngine(t))
	scrape := []string{"namespace", "pod"} // from the scrape's own labels
	for _, name := range []string{"alerts.yaml", "dashboard.json"} {
		data, err := os.ReadFile(filepath.Join(chart, "files", name))
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if name == "dashboard.json" {
			text = strings.ReplaceAll(text, `\"`, `"`)
		}
		asked := used(text)
		if len(asked) < 8 {
			t.Errorf("%s asks for %d metrics only", name, len(asked))
		}
		for metric, labels := range asked {
			has, ok := there[metric]
			if strings.HasPrefix(metric, "aegrail_control_") {
				continue // control's, which does not run without a cluster: cmd/aegrail-control has the same test
			}
			if !ok {
				t.Errorf("%s asks for %s, which the engine does not have", name, metric)
			}
			for _, label := range labels {
				if ok && !slices.Contains(has, label) && !slices.Contains(scrape, label) {
					t.Errorf("%s selects %s by %s, which it does not have: %v", name, metric, label, has)
				}
			}
		}
	}
}

// TestEveryQueryOfTheDashboardIsPromQL has promtool read them as recording
// rules, with Grafana's variables filled in.
func TestEveryQueryOfTheDashboardIsPromQL(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "files", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			expr := strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*", "$pod", ".*").Replace(target.Expr)
			quoted, err := json.Marshal(expr)
			if err != nil {
				t.Fatal(err)
			}
			rules += fmt.Sprintf("      - record: query:%d\n        expr: %s\n", queries, quoted)
		}
	}
	if queries < 20 {
		t.Fatalf("%d queries", queries)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := output(exec.Command("promtool", "check", "rules", file)); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, rules)
	}
}

// TestEveryAlertSaysWhatToDo: whoever is woken by one has its text alone.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "files", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	alerts := strings.Split(string(data), "- alert: ")[1:]
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		for _, part := range []string{"severity:", "summary:", "description:"} {
			if !strings.Contains(alert, part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
		_, description, _ := strings.Cut(alert, "description:")
		for _, m := range regexp.MustCompile("`aegrail-engine ([a-z ]+[a-z])([^`]*)`").FindAllStringSubmatch(description, -1) {
			flags := known(t, engine, strings.Fields(m[1])...)
			for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(m[2], -1) {
				if !flags[flag] {
					t.Errorf("%s names %s of %s, which it does not have", name, flag, m[1])
				}
			}
		}
	}
	if out, err := output(exec.Command("promtool", "check", "rules", filepath.Join(chart, "files", "alerts.yaml"))); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlertsFireForWhatTheyAreAbout has promtool feed them with series.
func TestAlertsFireForWhatTheyAreAbout(t *testing.T) {
	files, err := filepath.Glob("testdata/*.alerts.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	if out, err := output(exec.Command("promtool", append([]string{"test", "rules"}, files...)...)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
