package audit

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// proving collects the proof for one record while Verify reads the log.
type proving struct {
	index  uint64 // of its leaf
	prover *checkpoint.Prover
	newest *checkpoint.Proof // under the last checkpoint that is over it
	seen   uint64            // size of the last checkpoint that counts
	failed error
}

// begin takes the tree before the first line that is read.
func (p *proving) begin(past checkpoint.Frontier) error {
	if p.prover, p.failed = checkpoint.NewProver(past, p.index); p.failed != nil {
		return errStop
	}
	return nil
}

// covered takes a checkpoint over all records up to now.
func (p *proving) covered(msg []byte) error {
	if p.seen = p.prover.Size(); p.seen <= p.index {
		return nil
	}
	path, err := p.prover.Path(nil)
	if err != nil {
		return err
	}
	p.newest = &checkpoint.Proof{Index: p.index, Path: path, Note: msg}
	return nil
}

// Prove verifies the files as Verify does and returns the proof that the
// record number seq, counted from 1 in the log's first segment, is in the tree
// of the newest checkpoint; with o.Keys, of the newest that one of them signed.
// Segments before the record are not needed, those behind it up to the
// checkpoint are. A record that is still being written at the end does no harm.
func Prove(files []string, seq uint64, o VerifyOptions) (*checkpoint.Proof, error) {
	if seq == 0 {
		return nil, errors.New("proving a record: records are counted from 1")
	}
	v := newVerifier(o)
	p := &proving{index: seq - 1}
	v.proving = p
	err := v.run(files)
	var damage *Damage
	switch {
	case errors.Is(err, errStop):
		return nil, p.failed
	case p.newest != nil && errors.Is(err, ErrUnauthenticated):
		return p.newest, nil // what is not signed stands behind this checkpoint
	case errors.As(err, &damage) && damage.torn:
	case err != nil:
		return nil, err
	}
	size := v.chain.tree.Size()
	switch {
	case p.newest != nil:
		return p.newest, nil
	case seq > size:
		return nil, fmt.Errorf("proving a record: the log ends with record %d, before record %d", size, seq)
	case p.seen == 0:
		return nil, fmt.Errorf("proving a record: the log has no checkpoint: it was written without --audit-key")
	default:
		return nil, fmt.Errorf("proving a record: no checkpoint is over record %d yet, the newest is over %d: try again when the engine has signed the next one", seq, p.seen)
	}
}

// Proven is what VerifyProof found.
type Proven struct {
	Seq           uint64 // of the record, from 1
	Event, TS     string // of the record; what a terminal would act on is escaped
	Checkpoint    checkpoint.Checkpoint
	Authenticated bool // a key that was given signed the checkpoint
}

// VerifyProof checks a proof against its record, which it takes from files: a
// file with the record's line alone, or a log that has it. Nothing else of the
// log is looked at but the form of the lines before. With o.Keys it is
// ErrUnauthenticated if none of them signed the checkpoint; o.Anchor is not
// used.
//
// The error is a *Damage if the record in the files is not the one that the
// proof is for.
func VerifyProof(files []string, proof []byte, o VerifyOptions) (Proven, error) {
	p, err := checkpoint.ParseProof(proof)
	if err != nil {
		return Proven{}, err
	}
	found := Proven{Seq: p.Index + 1}
	if found.Checkpoint, found.Authenticated, err = checkpoint.Open(p.Note, o.Keys); err != nil {
		return Proven{}, fmt.Errorf("reading a proof: %w", err)
	}
	if len(o.Keys.Keys()) > 0 && !found.Authenticated {
		return Proven{}, fmt.Errorf("%w: the proof's checkpoint of %s is not signed by a key that was given", ErrUnauthenticated, found.Checkpoint.Origin)
	}
	f, number := newFollower(), strconv.FormatUint(found.Seq, 10)
	fn := func(b []byte) error {
		l := &f.line
		err := f.identify(b)
		switch {
		case l.seq != nil && string(l.seq) != number:
			return nil
		case err != nil:
			return err
		}
		err = p.Verify(&f.sum, found.Checkpoint)
		switch {
		case err == nil:
			found.Event, found.TS = clean(text(l.event)), clean(text(l.ts))
			return errStop
		case l.seq != nil:
			return err
		}
		return nil // the library's records have no number; it may be another one
	}
	read := int64(0)
	for _, name := range files {
		s, err := o.open(name, &read)
		if err != nil {
			return Proven{}, fmt.Errorf("looking for the record: %w", err)
		}
		_, err = eachLine(name, s.Reader, fn)
		_ = s.Close() // it was read only
		var damage *Damage
		switch {
		case errors.Is(err, errStop):
			return found, nil
		case err != nil && !(errors.As(err, &damage) && damage.torn):
			return Proven{}, err
		}
	}
	return Proven{}, fmt.Errorf("looking for the record: none of the files has record %d, which the proof is for", found.Seq)
}
