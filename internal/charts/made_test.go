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
