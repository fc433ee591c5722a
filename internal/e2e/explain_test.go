package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// explain prints what a failed run is understood from, in short: pods that are
// not well with the end of what they say, events that warn, and the errors of
// the cluster's own programs.
func explain() {
	fmt.Println("\n=== what the cluster looks like")
	if pods, err := command("", "kubectl", "get", "pods", "-A", "-o", "wide", "--no-headers"); err == nil {
		fmt.Print(tail(pods, 40), tail(say("get", "events", "-A", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp"), 30))
		for pod := range strings.Lines(pods) {
			f := strings.Fields(pod)
			if len(f) < 4 || f[0] == "cert-manager" && f[3] == "Running" || f[3] == "Pending" {
				continue
			}
			fmt.Printf("\n--- %s/%s (%s %s)\n", f[0], f[1], f[2], f[3])
			for _, c := range strings.Fields(say("get", "pod", "-n", f[0], f[1], "-o", "jsonpath={.spec.initContainers[*].name} {.spec.containers[*].name}")) {
				said := say("logs", "-n", f[0], f[1], "-c", c, "--tail=8")
				if before, err := command("", "kubectl", "logs", "-n", f[0], f[1], "-c", c, "--tail=8", "--previous"); err == nil {
					said = before + "(restarted)\n" + said
				}
				for line := range strings.Lines(said) {
					fmt.Printf("%s: %s\n", c, strings.TrimSpace(line[:min(len(line), 600)]))
				}
			}
		}
	}
	logs, _ := filepath.Glob(filepath.Join(suite.dir, "log", "*"))
	for _, file := range logs {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		text := errorsOf(data)
		if filepath.Base(file) == "node" {
			text = string(data) // node.sh says nothing unless it fails
		}
		if text != "" {
			fmt.Printf("\n--- %s\n%s", filepath.Base(file), tail(text, 12))
		}
	}
}

// say is what kubectl says, be it an error.
func say(args ...string) string {
	out, err := command("", "kubectl", args...)
	if err != nil {
		return err.Error() + "\n"
	}
	return out
}

// errorsOf are the lines that klog or containerd mark as errors, but for those
// that every run has.
func errorsOf(log []byte) string {
	harmless := []string{"manifest file is empty", "cannot find filesystem info", "is not as new as written version", "oom_score_adj", "nodePortAddresses is unset", "use of closed network connection", `namespaces \"kube-system\" not found`}
	var marked strings.Builder
	for s := bufio.NewScanner(bytes.NewReader(log)); s.Scan(); {
		line := s.Text()
		if !strings.HasPrefix(line, "E") && !strings.HasPrefix(line, "F") && !strings.Contains(line, "level=error") {
			continue
		}
		if !slices.ContainsFunc(harmless, func(h string) bool { return strings.Contains(line, h) }) {
			fmt.Fprintln(&marked, line[:min(len(line), 400)])
		}
	}
	return marked.String()
}

// tail is the last n lines of text.
func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}
