package audit

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"path/filepath"
	"testing"
)

// zipped compresses each part as a gzip member of its own.
func zipped(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, p := range parts {
		z := gzip.NewWriter(&out)
		if _, err := z.Write(p); err != nil {
			t.Fatal(err)
		}
		check(t, z.Close())
	}
	return out.Bytes()
}

func TestCompressedFilesAreKnownByTheirFirstBytes(t *testing.T) {
	log := shownLog(t)
	for what, content := range map[string][]byte{
		"plain": log, "gzip": zipped(t, log), "two members": zipped(t, log[:100], log[100:]), "empty": nil, "one byte": {0x1f},
	} {
		want := log
		if len(content) < 2 {
			want = content
		}
		f, err := OpenFile(write(t, logFile(t), content)) // .jsonl, whatever it is
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", what, len(got), err, len(want))
		}
		check(t, f.Close())
	}
}

func TestABrokenCompressedFileIsAnError(t *testing.T) {
	z := zipped(t, shownLog(t))
	_, err := OpenFile(write(t, logFile(t), z[:5]))
	wantErr(t, err, "begins like a gzip file and is none")
	_, err = OpenFile(logFile(t))
	wantErr(t, err, "opening an audit log")
	changed := bytes.Clone(z)
	changed[len(changed)-6] ^= 1 // of the checksum
	for what, content := range map[string][]byte{"cut": z[:len(z)-9], "changed": changed} {
		f, err := OpenFile(write(t, logFile(t), content))
		if err != nil {
			t.Fatal(err)
		}
		if err := Read(f, func(*Entry) error { return nil }); err == nil {
			t.Errorf("%s: read without an error", what)
		}
		check(t, f.Close())
	}
}

func TestACompressedSegmentThatIsCutOrChangedIsDamage(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	requests(t, l, 1, 20)
	closeLog(t, l)
	whole := zipped(t, contents(t, file))
	changed := bytes.Clone(whole)
	changed[len(changed)-6] ^= 1 // of the checksum
	spoilt := bytes.Clone(whole)
	spoilt[len(spoilt)/2] ^= 0xff
	for what, b := range map[string][]byte{"cut": whole[:len(whole)-9], "checksum": changed, "spoilt": spoilt} {
		name := write(t, filepath.Join(t.TempDir(), "audit.log.gz"), b)
		_, err := Verify([]string{name}, VerifyOptions{})
		var d *Damage
		if !errors.As(err, &d) || d.File != name || d.Line < 1 {
			t.Errorf("%s: %v, want damage", what, err)
		}
	}
}
