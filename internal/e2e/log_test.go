package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// record is what the tests read of a line of the log.
type record struct {
	Event   string `json:"event"`
	Payload struct {
		Phase  string `json:"phase"`
		Host   string `json:"host"`
		Port   int    `json:"port"`
		Method string `json:"method"`
		Path   string `json:"path"`
		Rule   string `json:"rule"`
		Reason string `json:"reason"`
		Status int    `json:"status_code"`
		Body   string `json:"request_sha256"`
		Agent  struct {
			Namespace      string `json:"namespace"`
			ServiceAccount string `json:"service_account"`
			Pod            string `json:"pod"`
		} `json:"agent"`
	} `json:"payload"`
}

// log is the pod's audit log where kubelet keeps the volume aegrail-log. No
// image of the product has a shell to read it with.
func (a agent) log(t *testing.T) string {
	t.Helper()
	uid := strings.TrimSpace(kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath={.metadata.uid}"))
	return filepath.Join(suite.dir, "kubelet", "pods", uid, "volumes", "kubernetes.io~empty-dir", "aegrail-log", "audit.log")
}

// records verifies the log with the tool that an auditor uses, and reads it.
func records(t *testing.T, file string) (out []record) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A copy, so that what the engine writes in the meantime is no cut record.
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	copied := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(filepath.Join(suite.dir, "bin", "aegrail-engine"), "audit", "verify", copied).CombinedOutput()
	if err != nil {
		t.Errorf("audit verify %s: %v\n%s", file, err, said)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v\n%s", file, err, lines.Text())
		}
		out = append(out, r)
	}
	return out
}

// logged are the records that match.
func logged(all []record, match func(record) bool) (out []record) {
	for _, r := range all {
		if match(r) {
			out = append(out, r)
		}
	}
	return out
}
