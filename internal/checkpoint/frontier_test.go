package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// event is the event_hash of record i of the tests' log.
func event(i uint64) *Hash {
	h := Hash(sha256.Sum256(binary.BigEndian.AppendUint64(nil, i)))
	return &h
}

// oracle is the same log in x/mod's hands, which keeps every node.
type oracle struct {
	t     testing.TB
	nodes []tlog.Hash
	size  int64
}

func (o *oracle) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, n := range at {
		out[i] = o.nodes[n]
	}
	return out, nil
}

func (o *oracle) append(eventHash *Hash) {
	o.t.Helper()
	more, err := tlog.StoredHashes(o.size, eventHash[:], o)
	if err != nil {
		o.t.Fatal(err)
	}
	o.nodes = append(o.nodes, more...)
	o.size++
}

func (o *oracle) root(size int64) Hash {
	o.t.Helper()
	h, err := tlog.TreeHash(size, o)
	if err != nil {
		o.t.Fatal(err)
	}
	return Hash(h)
}

func (o *oracle) path(size, index int64) []Hash {
	o.t.Helper()
	p, err := tlog.ProveRecord(size, index, o)
	if err != nil {
		o.t.Fatal(err)
	}
	out := make([]Hash, len(p))
	for i, h := range p {
		out[i] = Hash(h)
	}
	return out
}

// grow returns a log of that size, as both see it.
func grow(t testing.TB, size uint64) (*oracle, Frontier) {
	o, f := &oracle{t: t}, Frontier{}
	for i := range size {
		o.append(event(i))
		f.Append(event(i))
	}
	return o, f
}

func TestRootIsTheOraclesAtEverySize(t *testing.T) {
	o, f := &oracle{t: t}, Frontier{}
	for n := uint64(0); n <= 300; n++ {
		if f.Size() != n || f.Root() != o.root(int64(n)) {
			t.Fatalf("size %d, root %v; want size %d, root %v", f.Size(), f.Root(), n, o.root(int64(n)))
		}
		f.Append(event(n))
		o.append(event(n))
	}
	size := 1000 + rand.Uint64N(20000)
	o, f = grow(t, size)
	if f.Root() != o.root(int64(size)) {
		t.Fatalf("size %d: root %v, want %v", size, f.Root(), o.root(int64(size)))
	}
}

func TestRestoreGoesOnWhereHashesLeftOff(t *testing.T) {
	o, whole := grow(t, 0)
	var snapshots []Frontier
	for n := uint64(0); n < 130; n++ {
		snapshots = append(snapshots, whole)
		whole.Append(event(n))
		o.append(event(n))
	}
	for n, at := range snapshots {
		f, err := Restore(at.Size(), at.Hashes(nil))
		if err != nil {
			t.Fatal(err)
		}
		if f != at || f.Root() != o.root(int64(n)) {
			t.Fatalf("size %d: restored to another tree", n)
		}
		for i := f.Size(); i < whole.Size(); i++ {
			f.Append(event(i))
		}
		if f != whole {
			t.Fatalf("from size %d on: another tree", n)
		}
	}
	if snapshots[3] == snapshots[4] {
		t.Error("two sizes are equal")
	}
}

func TestRestoreRefusesWhatIsNoFrontier(t *testing.T) {
	_, f := grow(t, 7)
	for _, c := range []struct {
		name   string
		size   uint64
		hashes []Hash
	}{
		{"a hash too few", 7, f.Hashes(nil)[:2]},
		{"a hash too many", 6, f.Hashes(nil)},
		{"none", 1, nil},
		{"some of nothing", 0, f.Hashes(nil)},
		{"beyond 2^62", MaxSize + 1, f.Hashes(nil)[:2]},
	} {
		if got, err := Restore(c.size, c.hashes); err == nil || got != (Frontier{}) {
			t.Errorf("%s: restored", c.name)
		}
	}
	// The largest size that is taken can still be appended to in bounds.
	f, err := Restore(MaxSize, []Hash{*event(1)})
	if err != nil {
		t.Fatal(err)
	}
	f.Append(event(2))
	if f.Size() != MaxSize+1 || f.Root() != node(event(1), ptr(leaf(event(2)))) {
		t.Error("appending at the limit made another tree")
	}
}

func ptr(h Hash) *Hash { return &h }

func TestAppendDoesNotAllocate(t *testing.T) {
	var f Frontier
	e := event(1)
	if n := testing.AllocsPerRun(1000, func() { f.Append(e); f.Root() }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkFrontierAppend(b *testing.B) {
	var f Frontier
	e := event(1)
	b.ReportAllocs()
	for b.Loop() {
		f.Append(e)
	}
}
