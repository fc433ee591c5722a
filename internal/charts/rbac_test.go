package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryRightHasAReason: who reviews what control may do reads it here, and
// a right without a reason is one that somebody forgot to take away.
func TestEveryRightHasAReason(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "templates", "control", "rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	rules := 0
	for i, line := range lines {
		if !strings.HasPrefix(strings.TrimSpace(line), "- apiGroups:") {
			continue
		}
		rules++
		if before := strings.TrimSpace(lines[i-1]); !strings.HasPrefix(before, "# ") {
			t.Errorf("rbac.yaml:%d: a rule without a comment that says what for", i+1)
		}
		if strings.Contains(strings.Join(lines[i:i+4], "\n"), "*") {
			t.Errorf("rbac.yaml:%d: a rule for everything", i+1)
		}
	}
	if rules < 8 {
		t.Errorf("%d rules", rules)
	}
}
