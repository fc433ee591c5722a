package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManifestsAreCurrent keeps what the chart renders in sight of reviews,
// and of those who install without helm. Hooks are left out: they mean
// nothing to kubectl.
func TestManifestsAreCurrent(t *testing.T) {
	for _, set := range valueSets(t) {
		name := strings.TrimSuffix(filepath.Base(set), ".values.yaml")
		t.Run(name, func(t *testing.T) {
			out, err := render("--values", set, "--no-hooks")
			if err != nil {
				t.Fatal(err)
			}
			same(t, filepath.Join(manifests, name+".yaml"), "# Made by `make manifests` from "+name+".values.yaml and the chart; release aegrail in "+namespace+".\n"+out)
		})
	}
}

// TestCopiesInDeployAreCurrent: a chart can read only what is in it, and
// people who do not use it look in deploy.
func TestCopiesInDeployAreCurrent(t *testing.T) {
	for from, to := range map[string]string{"dashboard.json": "grafana/aegrail.json", "alerts.yaml": "alerts/aegrail.yaml"} {
		data, err := os.ReadFile(filepath.Join(chart, "files", from))
		if err != nil {
			t.Fatal(err)
		}
		same(t, filepath.Join(root, "deploy", to), string(data))
	}
}

// TestThePodForPlainModeIsCurrent: what somebody writes by hand where there is
// no webhook is what the webhook would have made.
func TestThePodForPlainModeIsCurrent(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "internal", "inject", "testdata", "plain.out.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	image := imagePart(t, "values.yaml", "repository") + ":" + imagePart(t, "Chart.yaml", "appVersion")
	pod := strings.TrimSuffix(string(data), "status: {}\n")
	pod = strings.ReplaceAll(pod, "namespace: support\n", "namespace: agents\n")
	pod = strings.ReplaceAll(pod, "registry.example/aegrail-engine:1.0.0", image)
	same(t, filepath.Join(manifests, "plain-agent.yaml"), "# Made by `make manifests`: an agent's pod for plain.yaml as control would have written it.\n"+
		"# The agent is the container \"agent\"; deny-cidr names the cluster's own ranges.\n"+pod)
}

// imagePart is a part of the image's name, from a file of the chart.
func imagePart(t *testing.T, file, key string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(chart, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+": "); ok {
			return strings.Trim(value, `"`)
		}
	}
	t.Fatalf("%s has no %s", file, key)
	return ""
}

// TestTheREADMEIsCurrent makes the chart's README from its template and the
// comments in values.yaml.
func TestTheREADMEIsCurrent(t *testing.T) {
	out, err := output(exec.Command("go", "tool", "helm-docs", "--chart-search-root", chart,
		"--sort-values-order", "file", "--log-level", "error", "--dry-run"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(out, "\n## Values\n")
	if !ok {
		t.Fatalf("no values in what helm-docs made:\n%s", out)
	}
	for row := range strings.Lines(table) {
		if strings.HasSuffix(strings.TrimSpace(row), "|  |") {
			t.Errorf("a value without a comment that begins with \"# --\": %s", row)
		}
	}
	same(t, filepath.Join(chart, "README.md"), strings.TrimSpace(out)+"\n")
}
