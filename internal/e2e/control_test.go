package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// upgradeProduct installs the chart with control again, with more values.
func upgradeProduct(t *testing.T, more ...string) {
	t.Helper()
	if _, err := command("", "helm", append([]string{"upgrade", "aegrail", "../../charts/aegrail-engine", "--namespace", control,
		"--values", "testdata/values.yaml", "--wait", "--timeout", "110s"}, more...)...); err != nil {
		t.Fatal(err)
	}
}

func TestK02APolicyThatGainsAHostBringsANewAuthorityUnderLoad(t *testing.T) {
	a := injected(t)
	if got := a.send(t, "GET", "https://"+otherHost+"/k02", ""); got.Error == "" {
		t.Fatalf("before the change: %+v", got)
	}
	reloads := a.mustMetric(t, authoritiesLoaded)
	l := loadFrom(t, a)
	upgradeProduct(t, "--set", "policies.support-bot.rules[1].name=files", "--set", "policies.support-bot.rules[1].hosts[0]="+otherHost)
	await(t, "the new host can be reached", func(context.Context) error {
		if got := a.send(t, "GET", "https://"+otherHost+"/k02", ""); got.Status != 200 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	if now := a.mustMetric(t, authoritiesLoaded); now <= reloads {
		t.Errorf("the authority was loaded %v times before and %v after: the old one cannot sign for the new host", reloads, now)
	}
	upgradeProduct(t)
	await(t, "the host is gone again", func(context.Context) error {
		if got := a.send(t, "GET", "https://"+otherHost+"/k02", ""); got.Status == 200 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	l.end(t)
	records(t, a.log(t))
}

func TestControlIsKilledAndStartedUnderLoad(t *testing.T) {
	a := injected(t)
	l := loadFrom(t, a)
	kubectl(t, "scale", "-n", control, "deployment/aegrail-control", "--replicas=0")
	kubectl(t, "delete", "pods", "-n", control, "--selector=app.kubernetes.io/component=control", "--grace-period=0", "--force")
	await(t, "the engine misses control", func(context.Context) error {
		connected, err := a.metric("aegrail_control_connected")
		if err == nil && connected != 0 {
			err = fmt.Errorf("it is connected")
		}
		return err
	})
	// What was there goes on, and nothing new starts without an engine in it.
	if got := a.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", "without control"); got.Status != 200 {
		t.Errorf("without control: %+v", got)
	}
	said := refused(t, `
apiVersion: v1
kind: Pod
metadata: {name: without-control, namespace: support}
spec: {containers: [{name: agent, image: "docker.io/local/agent:1"}]}
`)
	if !strings.Contains(said, "pods.aegrail.io") {
		t.Errorf("a pod without control is refused with %s", said)
	}
	kubectl(t, "scale", "-n", control, "deployment/aegrail-control", "--replicas=2")
	kubectl(t, "rollout", "status", "-n", control, "deployment/aegrail-control", "--timeout=100s")
	await(t, "the engine has control back", func(context.Context) error {
		connected, err := a.metric("aegrail_control_connected")
		if err == nil && connected != 1 {
			err = fmt.Errorf("it is not connected")
		}
		return err
	})
	l.end(t)
	records(t, a.log(t))
}
