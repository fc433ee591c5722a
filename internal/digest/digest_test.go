package digest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func key() Keyed { return Keyed{KeyID: "ns-1", Key: bytes.Repeat([]byte{0x0b}, 32)} }

func TestPlainIsWhatSha256sumPrints(t *testing.T) {
	h := New(Keyed{})
	if got := string(h.Sum(nil)); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("empty body: %s", got)
	}
	h.Write([]byte("a"))
	h.Write([]byte("bc"))
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4 example
	if got := string(h.Sum([]byte("x"))); got != "x"+abc {
		t.Errorf("abc: %s", got)
	}
	if h.Bytes() != 3 {
		t.Errorf("Bytes() = %d, want 3", h.Bytes())
	}
	h.Write([]byte("d"))
	want := sha256.Sum256([]byte("abcd"))
	if got := string(h.Sum(nil)); got != hex.EncodeToString(want[:]) {
		t.Errorf("writing after Sum: %s", got)
	}
	h.Reset()
	h.Write([]byte("abc"))
	if got := string(h.Sum(nil)); got != abc || h.Bytes() != 3 {
		t.Errorf("after Reset: %s, %d bytes", got, h.Bytes())
	}
}

func TestKeyedIsHMACAndSurvivesReset(t *testing.T) {
	k := key()
	m := hmac.New(sha256.New, k.Key)
	m.Write([]byte("Hi There"))
	want := hex.EncodeToString(m.Sum(nil))
	h := New(k)
	for range 3 {
		h.Write([]byte("Hi "))
		h.Sum(nil) // must not disturb what follows
		h.Write([]byte("There"))
		if got := string(h.Sum(nil)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		h.Reset()
	}
	plain := New(Keyed{})
	plain.Write([]byte("Hi There"))
	if string(plain.Sum(nil)) == want {
		t.Error("the keyed digest equals the plain one")
	}
}

func TestHalfAKeyIsRefused(t *testing.T) {
	for _, row := range []struct {
		name string
		k    Keyed
		want string
	}{
		{"an id without a key", Keyed{KeyID: "a"}, "is empty"},
		{"a key without an id", Keyed{Key: make([]byte, 32)}, "has no id"},
		{"a key that can be tried out", Keyed{KeyID: "a", Key: make([]byte, 31)}, "at least 32"},
	} {
		if err := row.k.Check(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New accepted %s", row.name)
				}
			}()
			New(row.k)
		}()
	}
	if err := key().Check(); err != nil {
		t.Errorf("a whole key: %v", err)
	}
	if err := (Keyed{}).Check(); err != nil {
		t.Errorf("no key: %v", err)
	}
}

func TestDigestDoesNotAllocate(t *testing.T) {
	body := make([]byte, 4096)
	var out [Size]byte
	for name, k := range map[string]Keyed{"plain": {}, "keyed": key()} {
		h := New(k)
		once := func() {
			h.Reset()
			h.Write(body)
			h.Sum(out[:0])
		}
		once()
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("%s: %v allocations a body", name, n)
		}
	}
}

func BenchmarkDigest16KiB(b *testing.B) {
	body := make([]byte, 16<<10)
	var out [Size]byte
	for _, row := range []struct {
		name string
		k    Keyed
	}{{"plain", Keyed{}}, {"keyed", key()}} {
		b.Run(row.name, func(b *testing.B) {
			h := New(row.k)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				h.Reset()
				h.Write(body)
				h.Sum(out[:0])
			}
		})
	}
}
