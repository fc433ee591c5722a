package charts

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const certManager = "v1.21.2"

// withCertManager is a copy of the chart with the dependency that helm fetches
// for users, here from cert-manager's Go module, which has the chart in it
// without a version.
func withCertManager(t *testing.T) string {
	t.Helper()
	out, err := output(exec.Command("go", "mod", "download", "-json", "github.com/cert-manager/cert-manager@"+certManager))
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	vendored := filepath.Join(dir, "cert-manager")
	copyTree(t, filepath.Join(module.Dir, "deploy", "charts", "cert-manager"), vendored)
	replace(t, filepath.Join(vendored, "Chart.yaml"), "version: v0.0.0", "version: "+certManager)
	ours := filepath.Join(dir, "aegrail-engine")
	copyTree(t, chart, ours)
	replace(t, filepath.Join(ours, "Chart.yaml"), "https://charts.jetstack.io", "file://../cert-manager")
	if _, err := output(exec.Command("helm", "dependency", "build", ours)); err != nil {
		t.Fatal(err)
	}
	return ours
}

// copyTree copies files, writable whatever they were.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, name, old, text string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s has no %q", name, old)
	}
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(data), old, text)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertManagerIsAConditionalDependency: with its chart there it comes and
// goes with its value, and what needs its kinds is made after them.
func TestCertManagerIsAConditionalDependency(t *testing.T) {
	dir := withCertManager(t)

	without, err := renderChart(dir)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := render(); err != nil || plain != without {
		t.Errorf("the fetched chart changes what is rendered while it is off: %v", err)
	}

	with, err := renderChart(dir, "--set", "cert-manager.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, with)
	names := kinds(all)
	for _, want := range []string{"Deployment/aegrail-cert-manager", "Deployment/aegrail-control", "CustomResourceDefinition/certificates.cert-manager.io"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	for _, o := range all {
		if o.Kind != "Certificate" && o.Kind != "Issuer" {
			continue
		}
		// cert-manager's own check that its API answers has the weight 1.
		if hook, weight := o.Metadata.Annotations["helm.sh/hook"], o.Metadata.Annotations["helm.sh/hook-weight"]; hook != "post-install,post-upgrade" || len(weight) != 2 {
			t.Errorf("%s %s is made with the hook %q and weight %q, before its kind is there", o.Kind, o.Metadata.Name, hook, weight)
		}
	}
	if out, err := output(exec.Command("helm", "package", dir, "--destination", t.TempDir())); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
