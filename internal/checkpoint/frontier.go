package checkpoint

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/bits"
)

// MaxSize is the largest tree: 2^62 leaves. A thousand records a microsecond
// would take a century and a half to get there.
const MaxSize = 1 << 62

// levels is how many perfect trees a frontier can have. It is one more than
// MaxSize needs, so that Append after a Restore at MaxSize stays in bounds.
const levels = 64

// Hash is a SHA-256: an event_hash, a node of the tree, or its root.
type Hash [sha256.Size]byte

// String is the base64 form that notes and proofs have.
func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// Frontier is a tree that is appended to: its size and the roots of the perfect
// trees it falls into (see the package comment). The zero value is the empty
// tree. It is a value: a copy is a snapshot, and two are equal by == when their
// trees are, since nodes that are not in use are zero. It is 2 KiB; it has no
// lock.
type Frontier struct {
	size  uint64
	nodes [levels]Hash // :: level → root of the perfect tree of 2^level leaves; set where size has that bit
}

// Append adds the record with this event_hash as the next leaf. It takes 2
// SHA-256 on average and does not allocate.
func (f *Frontier) Append(eventHash *Hash) {
	h := leaf(eventHash)
	level := bits.TrailingZeros64(^f.size)
	for l := range f.nodes[:level] {
		h = node(&f.nodes[l], &h)
		f.nodes[l] = Hash{}
	}
	f.nodes[level] = h
	f.size++
}

// Size is the number of leaves.
func (f *Frontier) Size() uint64 { return f.size }

// Root is the hash of the whole tree.
func (f *Frontier) Root() Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	low := bits.TrailingZeros64(f.size)
	h := f.nodes[low]
	for rest := f.size & (f.size - 1); rest != 0; rest &= rest - 1 {
		h = node(&f.nodes[bits.TrailingZeros64(rest)], &h)
	}
	return h
}

// Hashes appends the roots of the perfect trees to dst, largest first: one for
// each bit that is set in Size, at most 63.
func (f *Frontier) Hashes(dst []Hash) []Hash {
	for l := levels - 1; l >= 0; l-- {
		if f.size>>l&1 == 1 {
			dst = append(dst, f.nodes[l])
		}
	}
	return dst
}

// Restore makes the tree of that size from what Hashes returned. Nothing here
// can tell whether the hashes are true: compare Root with a checkpoint.
func Restore(size uint64, hashes []Hash) (Frontier, error) {
	if size > MaxSize {
		return Frontier{}, fmt.Errorf("restoring a frontier: a size of %d is beyond 2^62", size)
	}
	if want := bits.OnesCount64(size); len(hashes) != want {
		return Frontier{}, fmt.Errorf("restoring a frontier: a tree of %d records has %d hashes, not %d", size, want, len(hashes))
	}
	f := Frontier{size: size}
	for l := levels - 1; l >= 0; l-- {
		if size>>l&1 == 1 {
			f.nodes[l], hashes = hashes[0], hashes[1:]
		}
	}
	return f, nil
}

// leaf is the hash of a leaf, RFC 6962 section 2.1.
func leaf(eventHash *Hash) Hash {
	var b [1 + sha256.Size]byte // b[0] is 0x00
	copy(b[1:], eventHash[:])
	return sha256.Sum256(b[:])
}

// node is the hash of an inner node, RFC 6962 section 2.1.
func node(left, right *Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 0x01
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}
