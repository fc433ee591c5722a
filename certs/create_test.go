package certs

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "ca")
	if err := Init(dir, nil, noon); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{CertFile: 0o644, KeyFile: 0o600, RootFile: 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info, err)
	}
	a, err := LoadDir(dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	if a.NotAfter().Sub(noon) != InitLife-Backdate || len(a.Certificate().PermittedDNSDomains) != 0 {
		t.Error("life or constraints are wrong")
	}
	leaf, err := a.Mint("api.example.com", leafKey(t), noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, "api.example.com", leaf, a.Roots(), 0); err != nil {
		t.Error(err)
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	for _, name := range []string{CertFile, KeyFile, RootFile} {
		dir := t.TempDir()
		write(t, dir, name, []byte("mine"))
		fails(t, Init(dir, nil, noon), "not overwritten")
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: left %v, %v", name, entries, err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "mine" {
			t.Errorf("%s was touched: %q, %v", name, data, err)
		}
	}
}

func TestInitLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := t.TempDir()
	err := writeAll(dir, []newFile{{"a", []byte("x"), 0o600}, {filepath.Join("missing", "b"), []byte("x"), 0o600}})
	fails(t, err, "writing the CA")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
	fails(t, Init(write(t, dir, "file", nil), nil, noon), "making a CA")
	fails(t, Init(dir, []string{"*"}, noon), "every host")
	// From 9999 on no certificate can say when it ends (RFC 5280, 4.1.2.5).
	late := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	fails(t, Init(dir, nil, late), "making a CA")
	fails(t, Init(dir, []string{"x.test"}, late), "making a CA")
	_, err = NewEphemeral(late.AddDate(0, 11, 30))
	fails(t, err, "making an ephemeral CA")
}

func TestEphemeral(t *testing.T) {
	a, err := NewEphemeral(noon)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewEphemeral(noon)
	if err != nil {
		t.Fatal(err)
	}
	if a.Equal(b) || a.Certificate().Subject.String() == b.Certificate().Subject.String() {
		t.Error("two ephemeral CAs are alike")
	}
	if a.NotAfter().Sub(noon) != EphemeralLife-Backdate {
		t.Errorf("until %s", a.NotAfter())
	}
}
