package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const nodeImage = "docker.io/local/node:1"

// nodeFiles are what Debian's Node needs to run: the program, its shared
// libraries, and what Debian keeps out of the program.
func nodeFiles() (map[string]string, error) {
	program, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("Node, of Debian's nodejs: %w", err)
	}
	said, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("the libraries of %s: %w", program, err)
	}
	files := map[string]string{"/usr/bin/node": program}
	for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(string(said), -1) {
		files[m[1]] = m[1]
	}
	for _, name := range []string{"acorn/dist/acorn.js", "acorn-walk/dist/walk.js", "cjs-module-lexer/lexer.js", "cjs-module-lexer/dist/lexer.js", "undici/undici-fetch.js"} {
		if name = "/usr/share/nodejs/" + name; exists(name) {
			files[name] = name
		}
	}
	return files, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// nodeLoad is a pod whose only process is testdata/load.js, under way until it ends.
type nodeLoad struct {
	agent
	address string // of the pod
}

// nodeLoadIn has a pod with Node post to what policy allows.
func nodeLoadIn(t *testing.T, namespace string) nodeLoad {
	t.Helper()
	n := nodeLoad{agent: agent{namespace, "node", "agent"}}
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  serviceAccountName: bot
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - {name: agent, image: %q, args: ["https://%s/v1/chat/completions", /tmp/stop]}
`, n.pod, namespace, nodeImage, modelHost))
	ready(t, namespace, n.pod)
	n.address = strings.TrimSpace(kubectl(t, "get", "pod", "-n", namespace, n.pod, "-o", "jsonpath={.status.podIP}"))
	n.goesOn(t)
	return n
}

// goesOn waits until more of it has arrived.
func (n nodeLoad) goesOn(t *testing.T) {
	t.Helper()
	moreArrive(t, "Node's requests arrive", func(s seen) bool {
		from, _, err := net.SplitHostPort(s.From)
		return err == nil && from == n.address
	})
}

// end stops the load and fails the test if a single request failed, or if Node was started again meanwhile.
func (n nodeLoad) end(t *testing.T) {
	t.Helper()
	if err := n.touch("/tmp/stop"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "-n", n.namespace, "pod/"+n.pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	tallied(t, kubectl(t, "logs", "-n", n.namespace, n.pod, "-c", n.container))
	if got := kubectl(t, "get", "pod", "-n", n.namespace, n.pod, "-o", "jsonpath={.status.containerStatuses[*].restartCount}"); got != "0" {
		t.Errorf("Node was started %s times more", got)
	}
}
