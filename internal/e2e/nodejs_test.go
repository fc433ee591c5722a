package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
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
	postingPod(t, n.agent, nodeImage, "https://"+modelHost+"/v1/chat/completions", stopFile)
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

// end stops the load and fails the test if a single request failed, or if Node or its engine was started again meanwhile.
func (n nodeLoad) end(t *testing.T) {
	t.Helper()
	n.endPosting(t)
	if got := n.restarts(t); !slices.Equal(got, []string{"0", "0", "0"}) {
		t.Errorf("its containers were started again %s times", got)
	}
}
