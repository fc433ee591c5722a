package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFileIsReadWithinItsBound(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		most  int64
		wrong string
	}{
		{name, 5, ""},
		{name, 4, "reading the policy: " + name + " has more than 4 bytes"},
		{dir, 5, "reading the policy: " + dir + " is a directory, want a file"},
		{filepath.Join(dir, "none"), 5, "reading the policy: open " + filepath.Join(dir, "none")},
	} {
		data, err := ReadFile("policy", row.name, row.most)
		if row.wrong == "" {
			if string(data) != "12345" || err != nil {
				t.Errorf("%s: %q, %v", row.name, data, err)
			}
		} else if err == nil || !strings.HasPrefix(err.Error(), row.wrong) {
			t.Errorf("%s, %d bytes: %v, want %s", row.name, row.most, err, row.wrong)
		}
	}
}
