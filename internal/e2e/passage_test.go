package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// marker is the number of the process of aegrail-init that marks for a user.
func marker(engine string) (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
		if len(args) > 2 && args[0] == "/aegrail-init" && args[1] == "serve" && slices.Contains(args, "--engine-uid="+engine) {
			return strconv.Atoi(filepath.Base(p))
		}
	}
	return 0, fmt.Errorf("no aegrail-init marks for user %s", engine)
}

func TestE02AnAgentWritesToThePodsFilesOfNamesInVain(t *testing.T) {
	a := waitingPod(t, injected(t).namespace, "misleading")
	const planted = "192.0.2.66"
	if out, err := shellLine(a, "echo nameserver "+planted+" > /etc/resolv.conf; echo "+planted+" "+modelHost+" >> /etc/hosts; cat /etc/resolv.conf /etc/hosts"); err != nil || strings.Count(out, planted) != 2 {
		t.Fatalf("the agent cannot write what this test is about: %v: %s", err, out)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	engine, found := a.engineUID(t), false
	for _, p := range all {
		if status, err := os.ReadFile(filepath.Join(p, "status")); err != nil || !strings.Contains(string(status), "\nUid:\t"+engine+"\t") {
			continue
		}
		found = true
		for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
			if text, err := os.ReadFile(filepath.Join(p, "root", file)); err != nil || len(text) == 0 || strings.Contains(string(text), planted) {
				t.Errorf("the engine's %s: %v: %s", file, err, text)
			}
		}
	}
	if !found {
		t.Errorf("no process is of the engine's user, %s", engine)
	}
	if got := a.send(t, "POST", "https://"+modelHost+"/v1/chat/completions", "misled"); got.Status != 200 {
		t.Errorf("%+v", got)
	}
	kubectl(t, "delete", "pod", "-n", a.namespace, a.pod)
}

func TestAegrailInitIsKilledAndThePodStaysHeld(t *testing.T) {
	a := waitingPod(t, injected(t).namespace, "marked")
	engine := a.engineUID(t)
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
	a.mustFail(t, "mark", "1.2.3.4:9999")
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
