package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestUninstallLeavesNothingInTheWay takes the product off the cluster by the
// commands of the chart's README, which is why it comes last: pods start, and what
// is left is what the README names.
func TestUninstallLeavesNothingInTheWay(t *testing.T) {
	a := injected(t)
	kubectl(t, "label", "namespace", "--all", "aegrail.io/inject-", "aegrail.io/ca-")
	for _, ns := range strings.Fields(kubectl(t, "get", "pods", "-A", "-l", "aegrail.io/injected=true", "-o", `jsonpath={.items[*].metadata.namespace}`)) {
		if ns != "default" { // what helm test has left there has ended
			kubectl(t, "delete", "pods", "-n", ns, "-l", "aegrail.io/injected=true")
		}
	}
	await(t, "control takes back every CA and bundle", func(context.Context) error {
		left, err := command("", "kubectl", "get", "configmap", "--all-namespaces", "--field-selector", "metadata.name=aegrail-ca-bundle",
			"-o", `jsonpath={.items[*].metadata.namespace}`)
		if err != nil {
			return err
		}
		for _, ns := range strings.Fields(left) {
			if ns != "agents" { // published by hand, beside control
				return fmt.Errorf("the bundle is still in %s", left)
			}
		}
		return nil
	})
	if _, err := command("", "helm", "uninstall", "aegrail", "--namespace", control, "--wait", "--timeout", "100s"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "delete", "namespace", control, "--timeout=100s")
	suite.installed = false
	kubectl(t, "delete", "pod", "aegrail-doctor", "--namespace", "default", "--ignore-not-found")

	botIn(t, a.namespace) // nothing keeps it from starting
	if got := kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath={.spec.initContainers[*].name}"); got != "" {
		t.Errorf("a pod that starts now has %s", got)
	}
	for _, kind := range strings.Fields(kubectl(t, "api-resources", "--verbs=list", "-o", "name")) {
		if strings.HasPrefix(kind, "events") {
			continue
		}
		left, err := command("", "kubectl", "get", kind, "-A", "--ignore-not-found", "-o", `jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {end}`)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range strings.Fields(left) {
			ns, name, _ := strings.Cut(object, "/")
			if strings.Contains(name, "aegrail") && !slices.Contains([]string{"agents", "aegrail-plain"}, ns) && name != "aegrail-plain" {
				t.Errorf("%s %s is left", kind, object)
			}
		}
	}
}
