//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheEngineFindsNamesAsBeforeTheAgentRan(t *testing.T) {
	pod, kept := t.TempDir(), t.TempDir()
	files := nameFiles() // as they are, of a pod that is in a directory
	for i := range files {
		files[i].path = filepath.Join(pod, filepath.Base(files[i].path))
	}
	hosts, conf := filepath.Join(pod, "hosts"), filepath.Join(pod, "resolv.conf")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := func() {
		t.Helper()
		if err := keepNames(kept, files); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 10.96.0.10\n"} {
			got, err := os.ReadFile(filepath.Join(kept, name))
			if err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if info, err := os.Stat(filepath.Join(kept, name)); err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("%s: %v, %v; the engine's user has to read it", name, info.Mode(), err)
			}
		}
	}
	write(hosts, "# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n10.1.2.3 bot\n\n# Entries added by HostAliases.\n192.0.2.66 api.example.com\n::ffff:192.0.2.66 api.example.com\n")
	write(conf, "nameserver 10.96.0.10\n")
	keep()
	// The agent writes to what it shares, and aegrail-init is started again.
	write(hosts, "192.0.2.66 api.example.com\n")
	write(conf, "nameserver 192.0.2.66\n")
	keep()
	if all, err := os.ReadDir(kept); err != nil || len(all) != 2 {
		t.Errorf("left there: %v, %v", all, err)
	}
}

func TestWhatIsKeptHalfIsKeptAnew(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(t.TempDir(), "names")
	files := []nameFile{{path: from}}
	if err := os.WriteFile(filepath.Join(dir, "names.new"), []byte("127.0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keepNames(dir, files); err == nil {
		t.Error("kept a file that is not there")
	}
	if err := os.WriteFile(from, []byte("127.0.0.1 localhost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keepNames(dir, files); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "names")); err != nil || string(got) != "127.0.0.1 localhost\n" {
		t.Errorf("%q, %v", got, err)
	}
}
