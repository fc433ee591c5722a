package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// load is traffic of an agent that runs until it is told to end.
type load struct {
	agent agent
	stop  string
	done  chan error
	out   string
}

// loadLasts is how long a load goes on at most. A root that was replaced is gone after two minutes and more.
const loadLasts = 3 * patience

// loadFrom has the agent post to what policy allows, without a pause, with 4
// workers (agent/load.go says how they differ).
func loadFrom(t *testing.T, a agent) *load {
	t.Helper()
	l := &load{agent: a, stop: "/tmp/stop-" + strings.ReplaceAll(t.Name(), "/", "-"), done: make(chan error, 1)}
	go func() {
		out, err := commandWithin(loadLasts, "", "kubectl", "exec", "-n", a.namespace, a.pod, "-c", a.container, "--",
			"/agent", "load", "-stop", l.stop, "https://"+modelHost+"/v1/chat/completions")
		l.out = out
		l.done <- err
	}()
	t.Cleanup(func() { l.agent.touch(l.stop) })
	moreArrive(t, "the load arrives", anything) // it is under way then
	return l
}

func anything(seen) bool { return true }

// moreArrive waits until more requests that match have arrived than had before.
func moreArrive(t *testing.T, what string, match func(seen) bool) {
	t.Helper()
	before := len(suite.origins.arrived(match))
	await(t, what, func(context.Context) error {
		if n := len(suite.origins.arrived(match)) - before; n < 20 {
			return fmt.Errorf("%d requests since", n)
		}
		return nil
	})
}

func (a agent) touch(file string) error {
	_, err := shellLine(a, "touch "+file)
	return err
}

// end stops the load and fails the test if a single request failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	tallied(t, l.stopped(t))
}

// stopped stops the load and returns what the agent program says of it.
func (l *load) stopped(t *testing.T) string {
	t.Helper()
	if err := l.agent.touch(l.stop); err != nil {
		t.Fatal(err)
	}
	if err := <-l.done; err != nil {
		t.Fatal(err)
	}
	return l.out
}

// stopFile ends the load of a pod that is made for nothing else.
const stopFile = "/tmp/stop"

// postingPod makes a pod whose only process posts to what policy allows until
// stopFile is there, and waits until it is ready.
func postingPod(t *testing.T, a agent, image string, args ...string) {
	t.Helper()
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  serviceAccountName: bot
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - {name: %s, image: %q, args: ["%s"]}
`, a.pod, a.namespace, a.container, image, strings.Join(args, `", "`)))
	ready(t, a.namespace, a.pod)
}

// endPosting ends such a load and with it its pod, and fails the test for each
// request that failed. Of a process that was started again it sees the last life.
func (a agent) endPosting(t *testing.T) {
	t.Helper()
	if err := a.touch(stopFile); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "-n", a.namespace, "pod/"+a.pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	tallied(t, kubectl(t, "logs", "-n", a.namespace, a.pod, "-c", a.container))
}

// restarts are how often each of a pod's containers was started again, the init containers first.
func (a agent) restarts(t *testing.T) []string {
	t.Helper()
	const counts = "jsonpath={.status.initContainerStatuses[*].restartCount} {.status.containerStatuses[*].restartCount}"
	return strings.Fields(kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", counts))
}

// tally is what the agent program says of a load at its end.
type tally struct {
	Sent   int            `json:"sent"`
	Failed map[string]int `json:"failed"` // by why
}

func tallyOf(t *testing.T, out string) (got tally) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

// tallied fails the test for each request of a load that failed.
func tallied(t *testing.T, out string) {
	t.Helper()
	got := tallyOf(t, out)
	t.Logf("%d requests", got.Sent)
	for why, n := range got.Failed {
		t.Errorf("%d of %d requests failed: %s", n, got.Sent, why)
	}
}

// metrics are a pod's engine's, as a scraper on the node reads them.
func (a agent) metrics() (string, error) {
	ip, err := command("", "kubectl", "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath={.status.podIP}")
	if err != nil {
		return "", err
	}
	got, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + ip + ":15020/metrics")
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	out, err := io.ReadAll(got.Body)
	return string(out), err
}

// authoritiesLoaded counts those that an engine took. One that the pod's clients
// do not trust it counts as a failure, and goes on with what it has.
const authoritiesLoaded = `aegrail_ca_reloads_total{result="success"}`

// metric is the sum of a metric's values, or that of one series.
func (a agent) metric(name string) (sum float64, err error) {
	all, err := a.metrics()
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(all) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] != name && !strings.HasPrefix(f[0], name+"{") {
			continue
		}
		value, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return sum, nil
}

// revision is that of the policy in force.
func (a agent) revision(t *testing.T) string {
	t.Helper()
	all, err := a.metrics()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "aegrail_policy_info{") && strings.HasSuffix(strings.TrimSpace(line), " 1") {
			return label(line, "revision")
		}
	}
	t.Fatalf("there is no metric aegrail_policy_info in\n%s", all)
	return ""
}

// grows waits until a metric is above what it was.
func (a agent) grows(t *testing.T, name string, from float64) {
	t.Helper()
	await(t, name+" grows", func(context.Context) error {
		now, err := a.metric(name)
		if err == nil && now <= from {
			err = fmt.Errorf("it is still %v", now)
		}
		return err
	})
}

func (a agent) mustMetric(t *testing.T, name string) float64 {
	t.Helper()
	v, err := a.metric(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// renew has cert-manager issue a certificate again, as `cmctl renew` does.
func renew(t *testing.T, namespace, certificate string) {
	t.Helper()
	before := kubectl(t, "get", "certificate", "-n", namespace, certificate, "-o", "jsonpath={.status.revision}")
	await(t, "the renewal is asked for", func(context.Context) error {
		_, err := command("", "kubectl", "patch", "certificate", "-n", namespace, certificate, "--subresource=status", "--type=json", "-p",
			`[{"op": "add", "path": "/status/conditions/-", "value": {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test", "lastTransitionTime": "2026-01-01T00:00:00Z"}}]`)
		return err
	})
	await(t, "the certificate is another", func(context.Context) error {
		now, err := command("", "kubectl", "get", "certificate", "-n", namespace, certificate, "-o", "jsonpath={.status.revision}")
		if err == nil && now == before {
			err = fmt.Errorf("it is still revision %s", now)
		}
		return err
	})
}

func TestK02AnAuthorityIsRenewedUnderLoadInPlainMode(t *testing.T) {
	a := byHand(t)
	reloads := a.mustMetric(t, authoritiesLoaded)
	l := loadFrom(t, a)
	renew(t, a.namespace, "aegrail-ca")
	a.grows(t, authoritiesLoaded, reloads)
	l.end(t)
	records(t, a.log(t))
}

func TestAPolicyChangesUnderLoadInPlainMode(t *testing.T) {
	a := byHand(t)
	embeddings := "https://" + modelHost + "/v1/embeddings"
	if got := a.send(t, "POST", embeddings, "x"); got.Status != 403 {
		t.Fatalf("before the change: %+v", got)
	}
	l := loadFrom(t, a)
	upgrade(t, "--set", "policy.rules[0].paths[1]=/v1/embeddings")
	await(t, "the new rule is in force", func(context.Context) error {
		if got := a.send(t, "POST", embeddings, "x"); got.Status != 200 {
			return fmt.Errorf("it is %d", got.Status)
		}
		return nil
	})
	l.end(t)

	// One that does not compile, past the chart's check, leaves the last good one in force.
	failing := a.mustMetric(t, "aegrail_policy_reloads_total")
	policy := kubectl(t, "get", "configmap", "-n", a.namespace, "aegrail-policy", "-o", `go-template={{index .data "policy.yaml"}}`)
	broken, err := json.Marshal(map[string]any{"data": map[string]string{"policy.yaml": strings.Replace(policy, "methods:", "method:", 1)}})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "patch", "configmap", "-n", a.namespace, "aegrail-policy", "--type=merge", "-p", string(broken))
	a.grows(t, "aegrail_policy_reloads_total", failing)
	if got := a.send(t, "POST", embeddings, "x"); got.Status != 200 {
		t.Errorf("with a broken policy: %+v", got)
	}
	upgrade(t)
	records(t, a.log(t))
}

// upgrade installs the chart without control again, with more values.
func upgrade(t *testing.T, more ...string) {
	t.Helper()
	if _, err := command("", "helm", append([]string{"upgrade", "plain", "../../charts/aegrail-engine", "--namespace", "aegrail-plain",
		"--values", "testdata/plain.values.yaml", "--wait", "--timeout", "100s"}, more...)...); err != nil {
		t.Fatal(err)
	}
}
