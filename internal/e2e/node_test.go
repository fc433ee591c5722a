package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// kubelet is the number of this cluster's kubelet's process.
func kubelet() (int, error) {
	config := "--config=" + filepath.Join(suite.dir, "kubelet.yaml")
	found, err := processes("is this cluster's kubelet", func(p process) bool {
		args := p.args()
		return filepath.Base(args[0]) == "kubelet" && len(args) > 1 && args[1] == config
	})
	if err != nil {
		return 0, err
	}
	return found[0].number()
}

// The load is what the pod was made for here, since `kubectl exec` ends with the kubelet that it goes through.
func TestKubeletIsKilledAndStartedUnderLoad(t *testing.T) {
	a := agent{injected(t).namespace, "steady", "agent"}
	postingPod(t, a, agentImage, "load", "-stop", stopFile, "https://"+modelHost+"/v1/chat/completions")
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

	a.endPosting(t)
	if got := a.restarts(t); !slices.Equal(got, []string{"0", "0", "0"}) {
		t.Errorf("its containers were started again %s times", got)
	}
	kubectl(t, "delete", "pod", "-n", a.namespace, a.pod)
}
