package charts

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "make the files in deploy and the chart's README anew")

const (
	root      = "../.."
	chart     = root + "/charts/aegrail-engine"
	manifests = root + "/deploy/manifests"
	namespace = "aegrail-system"
)

// engine and control are programs of this tree, built once for all tests.
var engine, control string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(withPrograms(m))
}

func withPrograms(m *testing.M) int {
	if _, err := exec.LookPath("helm"); err != nil {
		fmt.Fprintln(os.Stderr, "no helm; run make chart, which installs it")
		return 1
	}
	dir, err := os.MkdirTemp("", "aegrail-charts")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	engine, control = filepath.Join(dir, "aegrail-engine"), filepath.Join(dir, "aegrail-control")
	build := exec.Command("go", "build", "-o", dir, "./cmd/aegrail-engine", "./cmd/aegrail-control")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building engine and control: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// render is helm template of the chart with these arguments.
func render(args ...string) (string, error) { return renderChart(chart, args...) }

func renderChart(dir string, args ...string) (string, error) {
	// helm believes in its own idea of a cluster where it is not told.
	args = append([]string{"template", "aegrail", dir, "--namespace", namespace, "--kube-version", "1.37.2"}, args...)
	return output(exec.Command("helm", args...))
}

// output is what a command printed; its error has what it complained about.
func output(c *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, stderr.String())
	}
	return stdout.String(), nil
}

func mustRender(t *testing.T, args ...string) []object {
	t.Helper()
	out, err := render(args...)
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, out)
}

// object is a rendered manifest.
type object struct {
	Kind     string
	Metadata struct {
		Name, Namespace     string
		Labels, Annotations map[string]string
	}
	Data map[string]string
}

func objects(t *testing.T, text string) []object {
	t.Helper()
	var out []object
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o object
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if o.Kind != "" {
			out = append(out, o)
		}
	}
}

// valueSets are the files of values that deploy/manifests is rendered from.
func valueSets(t *testing.T) []string {
	t.Helper()
	sets, err := filepath.Glob(manifests + "/*.values.yaml")
	if err != nil || len(sets) < 3 {
		t.Fatalf("%d sets of values in %s: %v", len(sets), manifests, err)
	}
	return sets
}

// policies are the policy files among the objects, by namespace/name.
func policies(all []object) map[string]string {
	found := map[string]string{}
	for _, o := range all {
		if file, ok := o.Data["policy.yaml"]; ok && o.Kind == "ConfigMap" {
			found[o.Metadata.Namespace+"/"+o.Metadata.Name] = file
		}
	}
	return found
}

// same compares a file with what it is made from, or makes it.
func same(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; run make manifests", err)
	}
	if string(got) == want {
		return
	}
	line := 0
	a, b := strings.Split(string(got), "\n"), strings.Split(want, "\n")
	for line < min(len(a), len(b)) && a[line] == b[line] {
		line++
	}
	at := func(s []string) string {
		if line < len(s) {
			return s[line]
		}
		return "(the end)"
	}
	t.Errorf("%s:%d is not what it is made from; run make manifests\n  there: %s\n  made:  %s", name, line+1, at(a), at(b))
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func kinds(all []object) []string {
	var out []string
	for _, o := range all {
		out = append(out, o.Kind+"/"+o.Metadata.Name)
	}
	slices.Sort(out)
	return out
}
