package checkpoint

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// prove reads leaves [at.Size(), size) and returns the path of index.
func prove(t testing.TB, at Frontier, index, size uint64) []Hash {
	t.Helper()
	p, err := NewProver(at, index)
	if err != nil {
		t.Fatal(err)
	}
	for i := at.Size(); i < size; i++ {
		p.Append(event(i))
	}
	path, err := p.Path(nil)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// byTheManual checks a path as the package comment tells others to.
func byTheManual(index, size uint64, eventHash *Hash, path []Hash, root Hash) bool {
	i, s, h := index, size-1, leaf(eventHash)
	for n := range path {
		if s == 0 {
			return false
		}
		if i%2 == 1 || i == s {
			h = node(&path[n], &h)
			for i%2 == 0 && i != 0 {
				i, s = i/2, s/2
			}
		} else {
			h = node(&h, &path[n])
		}
		i, s = i/2, s/2
	}
	return s == 0 && h == root
}

func TestEveryProofOfASmallTree(t *testing.T) {
	const most = 34
	o, _ := grow(t, most)
	starts := []Frontier{{}}
	for i := range uint64(most) {
		f := starts[i]
		f.Append(event(i))
		starts = append(starts, f)
	}
	for size := uint64(1); size <= most; size++ {
		root := o.root(int64(size))
		for index := range size {
			want := o.path(int64(size), int64(index))
			for start := range index + 1 {
				if got := prove(t, starts[start], index, size); !slices.Equal(got, want) {
					t.Fatalf("leaf %d of %d from %d on: %v, want %v", index, size, start, got, want)
				}
			}
			p := Proof{Index: index, Path: want}
			if err := p.Verify(event(index), Checkpoint{Size: size, Root: root}); err != nil {
				t.Fatal(err)
			}
			if !byTheManual(index, size, event(index), want, root) {
				t.Fatalf("leaf %d of %d: the manual's way of checking refuses the path", index, size)
			}
		}
	}
}

func TestOnePassGivesThePathAtEverySizeOnTheWay(t *testing.T) {
	size := 2000 + rand.Uint64N(1000)
	index := rand.Uint64N(size)
	o, _ := grow(t, size)
	_, at := grow(t, index/2)
	p, err := NewProver(at, index)
	if err != nil {
		t.Fatal(err)
	}
	for i := at.Size(); i < size; i++ {
		if i <= index {
			if _, err := p.Path(nil); err == nil {
				t.Fatalf("leaf %d has a path in a tree of %d", index, i)
			}
		}
		p.Append(event(i))
		if p.Size() <= index {
			continue
		}
		path, err := p.Path(nil)
		if err != nil || !slices.Equal(path, o.path(int64(p.Size()), int64(index))) {
			t.Fatalf("leaf %d of %d: %v, %v", index, p.Size(), path, err)
		}
	}
}

func TestAProofNeedsTheRecordAndWhatFollows(t *testing.T) {
	_, at := grow(t, 5)
	if _, err := NewProver(at, 4); err == nil || !strings.Contains(err.Error(), "earlier segments") {
		t.Errorf("a leaf that is gone: %v", err)
	}
	if _, err := NewProver(at, MaxSize); err == nil {
		t.Error("a position beyond the limit")
	}
	if _, err := NewProver(at, 5); err != nil {
		t.Error(err)
	}
}

func TestAForgedProofIsRefused(t *testing.T) {
	const index, size = 11, 21
	o, _ := grow(t, size)
	c := Checkpoint{Size: size, Root: o.root(size)}
	good := func() *Proof { return &Proof{Index: index, Path: o.path(size, index)} }
	if err := good().Verify(event(index), c); err != nil {
		t.Fatal(err)
	}
	refuse := func(name string, p *Proof, e *Hash, c Checkpoint) {
		t.Helper()
		if p.Verify(e, c) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	refuse("another record", good(), event(index+1), c)
	for i := range good().Path {
		p := good()
		p.Path[i][7] ^= 1
		refuse("a changed hash", p, event(index), c)
		p = good()
		p.Path = slices.Delete(p.Path, i, i+1)
		refuse("a hash less", p, event(index), c)
		p = good()
		p.Path = slices.Insert(p.Path, i, Hash{})
		refuse("a hash more", p, event(index), c)
	}
	for i := range uint64(size + 2) {
		if i != index {
			p := good()
			p.Index = i
			refuse("another index", p, event(index), c)
		}
	}
	// A root does not say its size: a path that is as long in another tree leads
	// there as well. The note's signature is over both.
	for _, n := range []uint64{0, index, index + 1, 16, 33, 1 << 40, MaxSize + 1, 1<<64 - 1} {
		changed := c
		changed.Size = n
		refuse("another size", good(), event(index), changed)
	}
	changed := c
	changed.Root[0] ^= 1
	refuse("another root", good(), event(index), changed)
	refuse("no path", &Proof{Index: index}, event(index), c)
	// An inner node is no leaf: its hash begins with another byte.
	inner := node(ptr(leaf(event(10))), ptr(leaf(event(11))))
	refuse("an inner node as a record", &Proof{Index: index / 2, Path: good().Path[1:]}, &inner, c)
}

func TestAProofComesBackAsItWasWritten(t *testing.T) {
	s := signer(t, "log.example/prod")
	o, f := grow(t, 700)
	msg, err := s.Sign(Checkpoint{Size: f.Size(), Root: f.Root(), Session: "sess_1", Time: time.UnixMilli(1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{0, 1, 511, 512, 699} {
		p := Proof{Index: index, Path: o.path(700, int64(index)), Note: msg}
		b := p.Marshal()
		back, err := ParseProof(b)
		if err != nil {
			t.Fatal(err)
		}
		if back.Index != p.Index || !slices.Equal(back.Path, p.Path) || !bytes.Equal(back.Note, p.Note) || !bytes.Equal(back.Marshal(), b) {
			t.Fatalf("%s\ncame back as\n%s", b, back.Marshal())
		}
		c, ok, err := Open(back.Note, verifiers(t, s))
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if err := back.Verify(event(index), c); err != nil {
			t.Fatal(err)
		}
	}
	alone := Proof{Note: msg} // the only record of a log has no path
	if back, err := ParseProof(alone.Marshal()); err != nil || len(back.Path) != 0 {
		t.Fatal(back, err)
	}
}

func TestAProofIsBelowTwoKiB(t *testing.T) {
	s := signer(t, strings.Repeat("n", maxName))
	size := uint64(1) << 32
	msg, err := s.Sign(Checkpoint{Size: size, Session: strings.Repeat("s", maxSession), Time: time.UnixMilli(1)})
	if err != nil {
		t.Fatal(err)
	}
	p := Proof{Index: size - 1, Path: make([]Hash, 32), Note: msg}
	if n := len(p.Marshal()); n >= 2048 {
		t.Errorf("%d bytes for the last of 2^32 records", n)
	}
}

func TestAMangledProofIsRefused(t *testing.T) {
	h := Hash{}.String()
	const n = "note\n"
	for name, text := range map[string]string{
		"empty":                  "",
		"another format":         "c2sp.org/tlog-proof@v2\nindex 0\n\n" + n,
		"nothing behind line 1":  "c2sp.org/tlog-proof@v1\n\n" + n,
		"no index":               proofHeader + h + "\n\n" + n,
		"an extra line":          proofHeader + "extra AAAA\nindex 0\n" + h + "\n\n" + n,
		"a leading zero":         proofHeader + "index 01\n\n" + n,
		"a sign":                 proofHeader + "index +1\n\n" + n,
		"two spaces":             proofHeader + "index  1\n\n" + n,
		"beyond 2^62":            proofHeader + "index 4611686018427387905\n\n" + n,
		"beyond 2^64":            proofHeader + "index 18446744073709551616\n\n" + n,
		"hexadecimal":            proofHeader + "index 0\n" + strings.Repeat("00", 32) + "\n\n" + n,
		"unpadded base64":        proofHeader + "index 0\n" + h[:43] + "\n\n" + n,
		"bits left over":         proofHeader + "index 0\n" + h[:42] + "B=\n\n" + n,
		"31 bytes":               proofHeader + "index 0\n" + strings.Repeat("A", 42) + "==\n\n" + n,
		"33 bytes":               proofHeader + "index 0\n" + strings.Repeat("A", 44) + "\n\n" + n,
		"a carriage return":      proofHeader + "index 0\n" + h + "\r\n\n" + n,
		"no note":                proofHeader + "index 0\n" + h + "\n\n",
		"no empty line":          proofHeader + "index 0\n" + h + "\n" + n,
		"63 hashes":              proofHeader + "index 0\n" + strings.Repeat(h+"\n", 63) + "\n" + n,
		"a note without measure": proofHeader + "index 0\n\n" + strings.Repeat("n", MaxNote+1),
		"without measure":        proofHeader + "index 0\n\n" + strings.Repeat("n", MaxProof),
		"a byte order mark":      "\ufeff" + proofHeader + "index 0\n\n" + n,
	} {
		if p, err := ParseProof([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", name, p)
		} else if !strings.HasPrefix(err.Error(), "reading a proof: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseProof([]byte(proofHeader + "index 4611686018427387904\n" + strings.Repeat(h+"\n", 62) + "\n" + n)); err != nil {
		t.Error(err)
	}
}
