package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// proofHeader begins every proof.
	proofHeader = "c2sp.org/tlog-proof@v1\n"
	// maxPath is the longest audit path: that of a tree of MaxSize leaves.
	maxPath = 62
	// MaxProof is the longest proof that is read, in bytes: 62 hashes and a
	// note of MaxNote would just fit.
	MaxProof = 8 << 10
)

// Proof says that a record is in the tree of a checkpoint.
type Proof struct {
	Index uint64 // of the leaf, from 0: the record's payload.seq less one
	Path  []Hash // from the leaf's sibling to a child of the root
	Note  []byte // the checkpoint
}

// Marshal returns the proof as the package comment specifies it.
func (p *Proof) Marshal() []byte {
	b := []byte(proofHeader + "index ")
	b = strconv.AppendUint(b, p.Index, 10)
	b = append(b, '\n')
	for _, h := range p.Path {
		b = append(b, h.String()...)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	return append(b, p.Note...)
}

// ParseProof reads a proof. It takes only what Marshal writes, and does not
// look into the note: Open does.
func ParseProof(b []byte) (*Proof, error) {
	if len(b) > MaxProof {
		return nil, fmt.Errorf("reading a proof: longer than %d bytes", MaxProof)
	}
	head, msg, ok := bytes.Cut(b, []byte("\n\n"))
	switch {
	case !bytes.HasPrefix(b, []byte(proofHeader)):
		return nil, fmt.Errorf("reading a proof: the first line is not %q", strings.TrimSpace(proofHeader))
	case !ok || len(msg) == 0:
		return nil, errors.New("reading a proof: it ends before the checkpoint, which stands behind an empty line")
	case len(msg) > MaxNote:
		return nil, fmt.Errorf("reading a proof: a checkpoint longer than %d bytes", MaxNote)
	}
	lines := strings.Split(string(head), "\n")[1:]
	if len(lines) == 0 {
		return nil, errors.New("reading a proof: no index in line 2")
	}
	digits, ok := strings.CutPrefix(lines[0], "index ")
	if !ok {
		return nil, fmt.Errorf("reading a proof: line 2 is %.80q; want \"index\" and a number", lines[0])
	}
	p := &Proof{Note: bytes.Clone(msg)}
	var err error
	if p.Index, err = parseDecimal(digits); err != nil {
		return nil, fmt.Errorf("reading a proof: index: %w", err)
	}
	if len(lines)-1 > maxPath {
		return nil, fmt.Errorf("reading a proof: %d hashes; no tree needs more than %d", len(lines)-1, maxPath)
	}
	for i, line := range lines[1:] {
		h, err := parseHash(line)
		if err != nil {
			return nil, fmt.Errorf("reading a proof: line %d: %w", i+3, err)
		}
		p.Path = append(p.Path, h)
	}
	return p, nil
}

// Verify reports whether the record with this event_hash is where the proof
// says in the tree of c, which is what Open returned for p.Note. That c is
// authenticated is the caller's to ask for.
//
// The check is x/mod's and not ours: a mistake in the code that makes proofs
// cannot hide in the code that checks them.
func (p *Proof) Verify(eventHash *Hash, c Checkpoint) error {
	switch {
	case c.Size > MaxSize: // x/mod counts in int64
		return fmt.Errorf("checking a proof: a size of %d is beyond 2^62", c.Size)
	case p.Index >= c.Size:
		return fmt.Errorf("checking a proof: record %d is not among the %d that the checkpoint covers", p.Index+1, c.Size)
	}
	path := make(tlog.RecordProof, len(p.Path))
	for i, h := range p.Path {
		path[i] = tlog.Hash(h)
	}
	if tlog.CheckRecord(path, int64(c.Size), tlog.Hash(c.Root), int64(p.Index), tlog.Hash(leaf(eventHash))) != nil {
		return fmt.Errorf("checking a proof: it does not lead from this record as number %d of %d to the checkpoint's root: the record, the proof or the checkpoint was changed", p.Index+1, c.Size)
	}
	return nil
}

// Prover collects the audit path of one leaf while the log is read once. It
// holds two frontiers and one path, whatever the size of the log. It has no
// lock.
type Prover struct {
	index uint64
	size  uint64
	left  Frontier // of the leaves before index: its nodes are the path's left siblings

	// The path's right siblings lie behind index one after the other, each as
	// large as its level says. right is the one that is being filled; those
	// below its level are in done.
	right Frontier
	level int
	done  [levels]Hash
}

// NewProver begins a proof for the leaf index. at is the tree that the first
// leaf given to Append joins: the empty one, or what stands in the header of
// the oldest segment that is left, so that proofs are still made when what was
// before is gone. The leaf itself must not be in at.
func NewProver(at Frontier, index uint64) (*Prover, error) {
	switch {
	case index >= MaxSize:
		return nil, fmt.Errorf("proving a record: position %d is beyond 2^62", index)
	case index < at.size:
		return nil, fmt.Errorf("proving a record: record %d is before record %d, with which the log begins that was given: give the earlier segments too", index+1, at.size+1)
	}
	p := &Prover{index: index, size: at.size, left: at}
	p.next(0)
	return p, nil
}

// next sets level to the lowest from l on at which the sibling is on the right.
func (p *Prover) next(l int) {
	for p.index>>l&1 == 1 {
		l++
	}
	p.level = l
}

// Append takes the next record's event_hash. It takes 2 SHA-256 on average and
// does not allocate.
func (p *Prover) Append(eventHash *Hash) {
	p.size++
	switch {
	case p.size <= p.index:
		p.left.Append(eventHash)
	case p.size == p.index+1: // the leaf itself, which is not on its path
	default:
		p.right.Append(eventHash)
		if p.right.size == 1<<p.level {
			p.done[p.level] = p.right.nodes[p.level]
			p.right = Frontier{}
			p.next(p.level + 1)
		}
	}
}

// Size is the number of leaves up to now, those of the first tree included.
func (p *Prover) Size() uint64 { return p.size }

// Path appends to dst the audit path in the tree of the current Size. It may be
// asked for at any size beyond index, and Append may go on afterwards.
func (p *Prover) Path(dst []Hash) ([]Hash, error) {
	if p.size <= p.index {
		return dst, fmt.Errorf("proving a record: the log ends with record %d, before record %d", p.size, p.index+1)
	}
	for l := range levels {
		switch {
		case p.index>>l&1 == 1:
			dst = append(dst, p.left.nodes[l])
		case l < p.level:
			dst = append(dst, p.done[l])
		case l == p.level && p.right.size > 0:
			// The last sibling on the right is whatever the tree ends with.
			dst = append(dst, p.right.Root())
		}
	}
	return dst, nil
}
