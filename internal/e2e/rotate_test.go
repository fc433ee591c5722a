package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// root is the common name of what a chain leads to that the agent is shown.
func (a agent) root(t *testing.T) string {
	t.Helper()
	got := a.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", "whose is the root")
	if got.Status != 200 {
		t.Errorf("%s is not served: %+v", a.pod, got)
	}
	return got.Root
}

// bundled are the namespace's own roots in its bundle, and the generation that it says it has.
func bundled(namespace string) (generation string, roots []string, err error) {
	out, err := command("", "kubectl", "get", "configmap", "-n", namespace, "aegrail-ca-bundle", "-o",
		`go-template={{index .metadata.annotations "aegrail.io/ca-generation"}} {{index .data "ca-bundle.pem"}}`)
	if err != nil {
		return "", nil, err
	}
	generation, text, _ := strings.Cut(out, " ")
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", nil, err
		}
		if slices.Contains(c.Subject.OrganizationalUnit, namespace) {
			roots = append(roots, c.Subject.CommonName)
		}
	}
	slices.Sort(roots)
	return generation, roots, nil
}

// mustBundle waits until a namespace's bundle is of a generation and has these roots.
func mustBundle(t *testing.T, namespace, generation string, roots ...string) {
	t.Helper()
	await(t, "the bundle is of generation "+generation+" and has "+strings.Join(roots, ", "), func(context.Context) error {
		g, r, err := bundled(namespace)
		if err == nil && (g != generation || !slices.Equal(r, roots)) {
			err = fmt.Errorf("it is of generation %s and has %v", g, r)
		}
		return err
	})
}

// authorities are the Certificates, Issuers and Secrets of a namespace's authorities.
func authorities(namespace string) ([]string, error) {
	out, err := command("", "kubectl", "get", "certificates.cert-manager.io,issuers.cert-manager.io,secrets", "-n", control,
		"--selector=aegrail.io/namespace="+namespace, "-o", "name")
	return strings.Fields(out), err
}

// Go and Node read what they trust once, when they start.
func TestK02TheRootsKeyIsChangedUnderLoadWithAgentsThatStartedBefore(t *testing.T) {
	const name, root1, root2 = "rotated", "aegrail-engine root 1", "aegrail-engine root 2"
	labelled(t, name)
	botIn(t, name)
	before := agent{name, "bot", "agent"}
	mustBundle(t, name, "1", root1)
	node := nodeLoadIn(t, name)
	l := loadFrom(t, before)

	kubectl(t, "annotate", "namespace", name, "aegrail.io/rotate-root=1")
	mustBundle(t, name, "2", root1, root2)
	after := waitingPod(t, name, "later")
	served(t, after)
	if got := after.root(t); got != root2 {
		t.Errorf("the pod that started after the change is shown a chain to %q", got)
	}
	if got := before.root(t); got != root1 {
		t.Errorf("the pod that started before is shown a chain to %q", got)
	}
	node.goesOn(t)

	// Its engine needs another intermediate for a policy with one more host, and
	// gets it from the root that the agent has read.
	reloads, nodes := before.mustMetric(t, authoritiesLoaded), node.mustMetric(t, authoritiesLoaded)
	upgradeProduct(t, "--set", "policies.support-bot.rules[1].name=more", "--set", "policies.support-bot.rules[1].hosts[0]=more.model.example")
	before.grows(t, authoritiesLoaded, reloads)
	node.grows(t, authoritiesLoaded, nodes)
	if got := before.root(t); got != root1 {
		t.Errorf("with another intermediate, the pod that started before is shown a chain to %q", got)
	}
	node.goesOn(t)
	l.end(t)
	records(t, before.log(t))
	records(t, node.log(t)) // kubelet removes it when the pod has ended
	node.end(t)
	if all, err := authorities(name); err != nil || len(all) != 6 {
		t.Errorf("two generations are %v (%v), want a Certificate, an Issuer and a Secret of each", all, err)
	}

	l = loadFrom(t, after)
	kubectl(t, "delete", "pod", "-n", name, before.pod, node.pod)
	upgradeProduct(t)
	// A minute after the last pod of a generation (namespaces.RetireAfter).
	if err := within(3*time.Minute, "the first generation is gone", func(context.Context) error {
		all, err := authorities(name)
		if err == nil && (len(all) != 3 || slices.ContainsFunc(all, func(o string) bool { return !strings.HasSuffix(o, "/aegrail-ca-rotated-2") })) {
			err = fmt.Errorf("there are %v", all)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	mustBundle(t, name, "2", root2)
	l.end(t)
	if got := after.root(t); got != root2 {
		t.Errorf("without the first generation, the pod that stays is shown a chain to %q", got)
	}
	records(t, after.log(t))
}
