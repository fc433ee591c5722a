package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// marker is the number of the process of aegrail-init that marks for a user.
func marker(engine string) (int, error) {
	found, err := processes("is an aegrail-init that marks for user "+engine, func(p process) bool {
		args := p.args()
		return len(args) > 2 && args[0] == "/aegrail-init" && args[1] == "serve" && slices.Contains(args, "--engine-uid="+engine)
	})
	if err != nil {
		return 0, err
	}
	return found[0].number()
}

// engines are the processes of the user that a pod's engine runs as.
func (a agent) engines(t *testing.T) []process {
	t.Helper()
	uid := a.engineUID(t)
	found, err := processes("is of the engine's user, "+uid, func(p process) bool { return p.of(uid) })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// mark is what a pod's rules let out, as its kernel has them.
func (a agent) mark(t *testing.T) string {
	t.Helper()
	rules, err := exec.CommandContext(t.Context(), "nsenter", "--net="+filepath.Join(string(a.engines(t)[0]), "ns/net"), "nft", "list", "table", "inet", "aegrail").CombinedOutput()
	found := regexp.MustCompile(`meta mark (0x[0-9a-f]+) accept`).FindSubmatch(rules)
	if err != nil || found == nil {
		t.Fatalf("the rules let no mark out: %v\n%s", err, rules)
	}
	return string(found[1])
}

func TestE02AnAgentWritesToThePodsFilesOfNamesInVain(t *testing.T) {
	a := waitingPod(t, injected(t).namespace, "misleading")
	const planted = "192.0.2.66"
	if out, err := shellLine(a, "echo nameserver "+planted+" > /etc/resolv.conf; echo "+planted+" "+modelHost+" >> /etc/hosts; cat /etc/resolv.conf /etc/hosts"); err != nil || strings.Count(out, planted) != 2 {
		t.Fatalf("the agent cannot write what this test is about: %v: %s", err, out)
	}
	for _, p := range a.engines(t) {
		for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
			if text := p.read("root" + file); text == "" || strings.Contains(text, planted) {
				t.Errorf("the engine's %s: %q", file, text)
			}
		}
	}
	if got := a.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", "misled"); got.Status != 200 {
		t.Errorf("%+v", got)
	}
	kubectl(t, "delete", "pod", "-n", a.namespace, a.pod)
}

func TestAegrailInitIsKilledAndThePodStaysHeld(t *testing.T) {
	a := waitingPod(t, injected(t).namespace, "marked")
	engine, mark := a.engineUID(t), a.mark(t)
	pid, err := marker(engine)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "CapBnd") || strings.HasPrefix(line, "NoNewPrivs") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Whether it is back yet or not.
	a.mustFail(t, "udp", "1.2.3.4:9999")
	a.mustFail(t, "mark", "1.2.3.4:9999", mark)
	await(t, "aegrail-init is back", func(context.Context) error {
		now, err := marker(engine)
		if err == nil && now == pid {
			err = errors.New("the killed one is still there")
		}
		return err
	})
	ready(t, a.namespace, a.pod)
	await(t, "the engine dials again", func(context.Context) error {
		if got := a.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", "again"); got.Status != 200 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	a.mustFail(t, "udp", "1.2.3.4:9999")
	if got := a.restarts(t); !slices.Equal(got, []string{"1", "0", "0"}) {
		t.Errorf("its containers were started again %s times, want 1 0 0", got)
	}
	// The engine brings its last records out when the pod ends, which takes a dial: aegrail-init ends after it.
	kubectl(t, "delete", "pod", "-n", a.namespace, a.pod)
}
