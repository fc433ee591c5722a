package charts

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// containerArgs are the arguments of the one container of a Deployment.
func containerArgs(t *testing.T, text, name string) []string {
	t.Helper()
	for _, doc := range strings.Split(text, "\n---\n") {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind == "Deployment" && o.Metadata.Name == name {
			return o.Spec.Template.Spec.Containers[0].Args
		}
	}
	t.Fatalf("no Deployment %s", name)
	return nil
}

// known are the flags of a command, from its help.
func known(t *testing.T, program string, command ...string) map[string]bool {
	t.Helper()
	help, err := output(exec.Command(program, append(command, "--help")...))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z0-9-]+)`).FindAllStringSubmatch(help, -1) {
		out[m[1]] = true
	}
	return out
}

// TestEnginesAreGivenFlagsThatExist: control passes them on as they are, so a
// wrong one would be found by every injected pod.
func TestEnginesAreGivenFlagsThatExist(t *testing.T) {
	text, err := render("--values", manifests+"/everything.values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	serve, given := known(t, engine, "serve"), 0
	for _, arg := range containerArgs(t, text, "aegrail-control") {
		flag, ok := strings.CutPrefix(arg, "--engine-arg=")
		if !ok {
			continue
		}
		given++
		if name, _, _ := strings.Cut(flag, "="); !serve[name] {
			t.Errorf("engines are given %s, which serve does not have", flag)
		}
	}
	if given < 6 {
		t.Errorf("%d flags", given)
	}
}

// TestControlTakesItsArguments starts control with what the chart gives it, for
// each set of values: it must get as far as the files that a pod would have.
func TestControlTakesItsArguments(t *testing.T) {
	for _, set := range valueSets(t) {
		text, err := render("--values", set)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, "\nkind: Deployment\n") {
			continue // control is off
		}
		_, err = output(exec.Command(control, containerArgs(t, text, "aegrail-control")...))
		if err == nil || !strings.Contains(err.Error(), "/etc/aegrail/tls/tls.crt: no such file") {
			t.Errorf("%s: %v, want it to look for its certificate", set, err)
		}
	}
}

// TestAGatewayTakesItsArguments does the same with the engine as a gateway.
func TestAGatewayTakesItsArguments(t *testing.T) {
	text, err := render("--values", manifests+"/everything.values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aegrail-gateway-batch", "aegrail-gateway-lab"} {
		_, err := output(exec.Command(engine, containerArgs(t, text, name)...))
		if err == nil || !strings.Contains(err.Error(), "/etc/aegrail/control/ca.crt: no such file") {
			t.Errorf("%s: %v, want it to look for control's CA", name, err)
		}
	}
}
