package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// kubelet is the number of this cluster's kubelet's process.
func kubelet() (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	config := "--config=" + filepath.Join(suite.dir, "kubelet.yaml")
	for _, p := range all {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
		if filepath.Base(args[0]) == "kubelet" && len(args) > 1 && args[1] == config {
			return strconv.Atoi(filepath.Base(p))
		}
	}
	return 0, errors.New("no kubelet runs")
}

// The load is what the pod was made for here, since `kubectl exec` ends with the kubelet that it goes through.
func TestKubeletIsKilledAndStartedUnderLoad(t *testing.T) {
	namespace := injected(t).namespace
	a := agent{namespace, "steady", "agent"}
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  serviceAccountName: bot
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - {name: agent, image: %q, args: [load, -stop, /tmp/stop, "https://%s/v1/chat/completions"]}
`, a.pod, a.namespace, agentImage, modelHost))
	ready(t, a.namespace, a.pod)
	moreArrive(t, "the load arrives", anything)

	old, err := kubelet()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "another kubelet runs", func(context.Context) error {
		now, err := kubelet()
		if err == nil && now == old {
			err = errors.New("the killed one is still there")
		}
		return err
	})
	moreArrive(t, "the load goes on", anything)
	await(t, "the other kubelet has the pod", func(context.Context) error { return a.touch("/tmp/seen") })
	moreArrive(t, "the load goes on beside it", anything)
	records(t, a.log(t)) // kubelet removes it when the pod has ended

	if err := a.touch("/tmp/stop"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "-n", a.namespace, "pod/"+a.pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	tallied(t, kubectl(t, "logs", "-n", a.namespace, a.pod, "-c", a.container))
	const counts = "{.status.initContainerStatuses[*].restartCount} {.status.containerStatuses[*].restartCount}"
	if got := kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath="+counts); strings.Trim(got, "0 ") != "" {
		t.Errorf("its containers were started again: %s", got)
	}
	kubectl(t, "delete", "pod", "-n", a.namespace, a.pod)
}
