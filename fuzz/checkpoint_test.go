package fuzz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// logKey returns a key for a log of that name, and what checks it.
func logKey(f *testing.F, name string) (*checkpoint.Signer, checkpoint.Verifiers) {
	f.Helper()
	private, err := checkpoint.Generate(name)
	if err != nil {
		f.Fatal(err)
	}
	s, err := checkpoint.NewSigner(private)
	if err != nil {
		f.Fatal(err)
	}
	v, err := checkpoint.ParseVerifiers(s.VerifierKey())
	if err != nil {
		f.Fatal(err)
	}
	return s, v
}

func record(n uint64) *checkpoint.Hash {
	h := checkpoint.Hash(sha256.Sum256(binary.BigEndian.AppendUint64(nil, n)))
	return &h
}

// FuzzCheckpointNote reads notes from anywhere. What is taken has one
// spelling: signing what was read gives the same text. Nothing is
// authenticated but what the key has signed.
func FuzzCheckpointNote(f *testing.F) {
	s, v := logKey(f, "log.example")
	var tree checkpoint.Frontier
	tree.Append(record(0))
	signed := map[checkpoint.Checkpoint]bool{}
	for size := range uint64(2) {
		tree, err := checkpoint.Restore(size, tree.Hashes(nil)[:size])
		if err != nil {
			f.Fatal(err)
		}
		c := checkpoint.Checkpoint{Origin: s.Name(), Size: size, Root: tree.Root(), Session: "sess_1", Time: time.UnixMilli(1).UTC()}
		msg, err := s.Sign(c)
		if err != nil {
			f.Fatal(err)
		}
		signed[c] = true
		f.Add(msg)
		f.Add(bytes.Replace(msg, []byte("\nsession"), []byte("\nmore\nsession"), 1))
		f.Add(bytes.Replace(msg, []byte("1970"), []byte("1971"), 1))
		f.Add(append(bytes.Clone(msg), "— witness.example AAAAAAAA\n"...))
		f.Add(append(append(bytes.Clone(msg), '\n'), msg...))
	}
	root := tree.Root().String()
	const tail = "\nsession s\ntime 2026-05-15T09:42:11.123Z\n\n— a AAAAAAAA\n"
	for _, head := range []string{"a\n1\n", "a\n01\n", "a\n+1\n", "a\n4611686018427387904\n", "a\n4611686018427387905\n", "é\n1\n", "\n1\n", "a b\n0\n"} {
		f.Add([]byte(head + root + tail))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		c, authenticated, err := checkpoint.Open(msg, v)
		if err != nil {
			if authenticated || c != (checkpoint.Checkpoint{}) {
				t.Fatalf("refused with %v, but left %+v", err, c)
			}
			return
		}
		if authenticated && !signed[c] {
			t.Fatalf("never signed: %+v", c)
		}
		again, err := s.Sign(c)
		if err != nil {
			t.Fatalf("%q was read as %+v, which has no spelling: %v", msg, c, err)
		}
		// Sign puts its own name in the place of the origin.
		_, want, _ := strings.Cut(string(again), "\n")
		origin, got, _ := strings.Cut(string(msg), "\n")
		if want = want[:strings.Index(want, "\n\n")+2]; origin != c.Origin || !strings.HasPrefix(got, want) {
			t.Fatalf("%q was read as %+v, which is spelled %q", msg, c, again)
		}
		// An anchor gives the note back as it was put in.
		var notes [][]byte
		err = checkpoint.EachAnchored(bytes.NewReader(append(append(bytes.Clone(msg), '\n'), msg...)), func(one []byte) error {
			notes = append(notes, bytes.Clone(one))
			return nil
		})
		if err != nil || len(notes) != 2 || !bytes.Equal(notes[0], msg) || !bytes.Equal(notes[1], msg) {
			t.Fatalf("%q came back from an anchor as %q, %v", msg, notes, err)
		}
	})
}

// FuzzCheckpointProof reads proofs from anywhere, and makes one for a record
// of a log that was read from any start. What is taken is written as it was
// read. A made proof holds; with one byte changed it does not.
func FuzzCheckpointProof(f *testing.F) {
	s, v := logKey(f, "log.example")
	hash := record(0).String()
	for i, raw := range []string{
		"c2sp.org/tlog-proof@v1\nindex 0\n\nnote\n",
		"c2sp.org/tlog-proof@v1\nindex 7\n" + hash + "\n" + hash + "\n\nnote\n",
		"c2sp.org/tlog-proof@v1\nextra AAAA\nindex 7\n\nnote\n",
		"c2sp.org/tlog-proof@v1\nindex 007\n\nnote\n",
		"c2sp.org/tlog-proof@v1\nindex 1\n" + hash[:43] + "\n\nnote\n",
		"c2sp.org/tlog-proof@v1\n\nindex 1\n\n",
	} {
		f.Add([]byte(raw), uint16(1<<i), uint16(1<<i-1), uint16(i), uint32(i*50), byte(1<<i))
		f.Add([]byte(raw), uint16(300+i), uint16(100*i), uint16(77*i), uint32(20+i), byte(0x80>>i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, size, index, start uint16, at uint32, flip byte) {
		if p, err := checkpoint.ParseProof(raw); err == nil && !bytes.Equal(p.Marshal(), raw) {
			t.Fatalf("%q was read and is written as %q", raw, p.Marshal())
		}
		size = size%700 + 1
		index %= size
		start %= index + 1
		var tree, old checkpoint.Frontier
		for n := range uint64(size) {
			if tree.Append(record(n)); n+1 == uint64(start) {
				old = tree
			}
		}
		prover, err := checkpoint.NewProver(old, uint64(index))
		if err != nil {
			t.Fatal(err)
		}
		for n := uint64(start); n < uint64(size); n++ {
			prover.Append(record(n))
		}
		p := checkpoint.Proof{Index: uint64(index)}
		if p.Path, err = prover.Path(nil); err != nil {
			t.Fatal(err)
		}
		p.Note, err = s.Sign(checkpoint.Checkpoint{Size: tree.Size(), Root: tree.Root(), Session: "sess_1", Time: time.UnixMilli(1)})
		if err != nil {
			t.Fatal(err)
		}
		b := p.Marshal()
		if err := holds(b, uint64(index), v); err != "" {
			t.Fatalf("record %d of %d, read from %d on: %s\n%s", index, size, start, err, b)
		}
		if flip == 0 {
			return
		}
		b[int(at)%len(b)] ^= flip
		if holds(b, uint64(index), v) == "" {
			t.Fatalf("byte %d changed by %#x and the proof holds:\n%s", int(at)%len(b), flip, b)
		}
	})
}

// holds checks a proof as an auditor would, and returns what is wrong with it.
func holds(b []byte, index uint64, v checkpoint.Verifiers) string {
	p, err := checkpoint.ParseProof(b)
	if err != nil {
		return err.Error()
	}
	c, authenticated, err := checkpoint.Open(p.Note, v)
	switch {
	case err != nil:
		return err.Error()
	case !authenticated:
		return "not authenticated"
	case p.Index != index:
		return "another record's"
	}
	if err := p.Verify(record(index), c); err != nil {
		return err.Error()
	}
	return ""
}
