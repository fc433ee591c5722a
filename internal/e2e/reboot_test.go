package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// machine is the power switch of the node: cluster/node.sh, by its standard input and output.
type machine struct {
	commands io.Writer
	done     chan string // what it has done
}

// switchOf is of a node that was not started yet.
func switchOf(node *exec.Cmd) (*machine, error) {
	in, err := node.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := node.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m := &machine{commands: in, done: make(chan string)}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m.done <- lines.Text()
		}
	}()
	return m, nil
}

// power switches the node on or off, and waits until it is.
func (m *machine) power(t *testing.T, to string) {
	t.Helper()
	if _, err := fmt.Fprintln(m.commands, to); err != nil {
		t.Fatal(err)
	}
	select {
	case said := <-m.done:
		if said != to {
			t.Fatalf("the node was switched %s, and says %q", to, said)
		}
	case <-suite.ended:
		t.Fatalf("the cluster ended when the node was switched %s", to)
	case <-time.After(patience):
		t.Fatalf("the node was switched %s, and is not within %s", to, patience)
	}
}

// containers are the statuses of all containers of the pods that run in some namespaces.
func containers(ctx context.Context, namespaces ...string) (map[string]corev1.ContainerStatus, error) {
	out := map[string]corev1.ContainerStatus{}
	for _, n := range namespaces {
		pods, err := suite.kube.CoreV1().Pods(n).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node1,status.phase=Running"})
		if err != nil {
			return nil, err
		}
		for _, p := range pods.Items {
			for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
				out[n+"/"+p.Name+"/"+s.Name] = s
			}
		}
	}
	return out, nil
}

// begun is when a container was started last.
func begun(s corev1.ContainerStatus) time.Time {
	switch {
	case s.State.Running != nil:
		return s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		return s.State.Terminated.StartedAt.Time
	}
	return time.Time{}
}

// restless is a pod that never stops to post what policy allows, and to try to get around the engine.
func restless(t *testing.T, namespace string) (posts, tries agent) {
	t.Helper()
	posts, tries = agent{namespace, "restless", "posts"}, agent{namespace, "restless", "tries"}
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: restless, namespace: %s}
spec:
  serviceAccountName: bot
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 1
  containers:
    - {name: posts, image: %q, args: [load, -workers, "2", -stop, %[4]s, "https://%[3]s/v1/chat/completions"]}
    - name: tries
      image: %[2]q
      command: [sh, -c]
      args:
        - |
          until [ -e %[4]s ]; do
            /agent dial tcp 1.2.3.4:80 'GET /around HTTP/1.1\r\nHost: files.other.example\r\n\r\n'
            /agent udp 1.2.3.4:9999
            sleep 0.2 # who is refused too often is refused for a while, as a whole pod
          done
`, namespace, agentImage, modelHost, stopFile))
	ready(t, namespace, "restless")
	return posts, tries
}

func TestInjectedPodsComeBackHeldWhenTheirNodeIsStartedAgain(t *testing.T) {
	a, plain := injected(t), byHand(t)
	arrivedBefore, packetsBefore := len(suite.origins.arrived(anything)), len(suite.origins.datagrams())
	posts, tries := restless(t, a.namespace)
	files := []string{a.log(t), plain.log(t), posts.log(t)}
	moreArrive(t, "its posts arrive", anything)
	all := []string{a.namespace, plain.namespace, control, "cert-manager"}
	before, err := containers(t.Context(), all...)
	if err != nil {
		t.Fatal(err)
	}

	suite.machine.power(t, "off")
	var kept [][]record
	for _, file := range files {
		kept = append(kept, records(t, file)) // as the disk has it
	}
	begin := time.Now()
	suite.machine.power(t, "on")
	var after map[string]corev1.ContainerStatus
	await(t, "all of its pods are there again", func(ctx context.Context) (err error) {
		if after, err = containers(ctx, all...); err != nil {
			return err
		}
		for name, was := range before {
			now, there := after[name]
			if finished := now.State.Terminated != nil && now.State.Terminated.ExitCode == 0; !there || now.ContainerID == was.ContainerID || !now.Ready && !finished {
				return fmt.Errorf("%s is %+v", name, now)
			}
		}
		return nil
	})
	progress("the node is back with %d containers %.1f s after it was started", len(before), time.Since(begin).Seconds())

	for _, pod := range []agent{a, posts, tries, plain} {
		at := func(container string) time.Time { return begun(after[pod.namespace+"/"+pod.pod+"/"+container]) }
		rules, engine, its := at("aegrail-init"), at("aegrail-engine"), at(pod.container)
		if rules.IsZero() || engine.Before(rules) || its.Before(engine) {
			t.Errorf("%s: the rules began at %s, the engine at %s and the container %s at %s", pod.pod, rules, engine, pod.container, its)
		}
	}
	moreArrive(t, "its posts arrive", anything)
	heldAllTheTime(t, posts, arrivedBefore, packetsBefore)
	a.holds(t, "/reboot")
	plain.holds(t, "/reboot")
	for i, file := range files {
		now := records(t, file)
		if len(now) <= len(kept[i]) || !slices.Equal(now[:len(kept[i])], kept[i]) {
			t.Errorf("%s has %d records, and does not go on after the %d that were there when the node went", file, len(now), len(kept[i]))
		}
	}

	if err := tries.touch(stopFile); err != nil {
		t.Fatal(err)
	}
	posts.endPosting(t) // of its second life
	if t.Failed() {
		t.Log(kubectl(t, "logs", "-n", tries.namespace, tries.pod, "-c", tries.container, "--tail=5"))
	}
	kubectl(t, "delete", "pod", "-n", posts.namespace, posts.pod)
}

// heldAllTheTime fails the test if anything got past the engine of the one pod
// that sends: all that arrived are requests that its log has allowed, however
// often the engine was away, and its attempts to get around are there as
// refusals.
func heldAllTheTime(t *testing.T, a agent, arrivedBefore, packetsBefore int) {
	t.Helper()
	arrived, packets := suite.origins.arrived(anything)[arrivedBefore:], suite.origins.datagrams()[packetsBefore:]
	log := records(t, a.log(t)) // a decision is there before its request is sent
	for _, s := range arrived {
		if s.Host != modelHost || s.Path != "/v1/chat/completions" {
			t.Errorf("got around the engine: %+v", s)
		}
	}
	if len(packets) > 0 {
		t.Errorf("got around the engine: %v", packets)
	}
	allowed := logged(log, func(r record) bool { return r.Event == "egress_allowed" && r.Payload.Phase == "decision" })
	around := logged(log, func(r record) bool { return r.Event == "egress_denied" && r.Payload.Path == "/around" })
	t.Logf("%d requests arrived, the log has %d as allowed, and %d attempts to get around it", len(arrived), len(allowed), len(around))
	if len(arrived) > len(allowed) {
		t.Errorf("%d requests arrived, and the log has allowed %d", len(arrived), len(allowed))
	}
	if len(around) == 0 {
		t.Error("the log has no attempt to get around the engine")
	}
}

// holds says of a pod that what policy allows goes through, and another path does not.
func (a agent) holds(t *testing.T, path string) {
	t.Helper()
	if got := a.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", path); got.Status != 200 {
		t.Errorf("%s: an allowed POST: %+v", a.pod, got)
	}
	if got := a.send(t, "POST", "https://"+modelHost+path, ""); got.Status != 403 || got.Decision != "denied" {
		t.Errorf("%s: another path: %+v", a.pod, got)
	}
	if through := suite.origins.arrived(func(s seen) bool { return s.Path == path }); len(through) > 0 {
		t.Errorf("what was refused arrived: %+v", through)
	}
}
