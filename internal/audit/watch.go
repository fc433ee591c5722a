package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// defaultCheckpoint is how often a log is checkpointed, also while it is idle: a
// reader can tell how far the log had come at each of these times.
const defaultCheckpoint = 10 * time.Second

// note is a checkpoint that was signed and stands in a batch.
type note struct {
	text       []byte
	size       uint64 // records it covers
	start, end int    // its record's line in the batch
}

// unsynced is a checkpoint that is in the log and not known to be on the disk.
type unsynced struct {
	note
	line []byte
	file file // that it stands in
}

// appendCheckpoint appends a checkpoint of all records before it, among them
// those of the current batch. Called with mu held.
func (l *Log) appendCheckpoint() {
	text := l.sign()
	if text == nil {
		return
	}
	l.appendNote(text, &Record{Event: EngineHeartbeat, Reason: reasonCheckpoint}, &engineFacts{})
}

// appendHeader appends the record that begins a segment: with it a reader needs
// none of those before. Called with mu held, on an empty batch.
func (l *Log) appendHeader() {
	l.cur.header = true
	l.appendNote(l.sign(), &Record{Event: EngineHeartbeat, Reason: reasonSegment}, &engineFacts{
		frontier: l.state.tree.Hashes(nil),
		segment:  filepath.Base(segmentName(l.c.File, l.sink.first)),
	})
}

func (l *Log) appendNote(text []byte, r *Record, facts *engineFacts) {
	b := l.cur
	n := note{text: text, size: l.state.seq, start: len(b.buf)}
	facts.checkpoint = string(text)
	l.append(r, facts)
	n.end = len(b.buf)
	if text != nil {
		b.note = n
	}
}

// sign returns a signed checkpoint of all records that were appended, or nil.
func (l *Log) sign() []byte {
	if l.signer == nil {
		return nil
	}
	text, err := l.signer.Sign(checkpoint.Checkpoint{
		Size: l.state.seq, Root: l.state.tree.Root(), Session: l.session, Time: l.now(),
	})
	if err != nil {
		l.logger.Error("a checkpoint of the audit log could not be signed", "error", err)
		return nil
	}
	return text
}

// noted looks after the checkpoint of a batch that was just committed: it is
// published if it is on the disk, else once the log was synced. Called with mu
// held and writing unset.
func (l *Log) noted(b *batch) {
	line := b.buf[b.note.start:b.note.end]
	if l.sink.file == nil || b.header || l.c.Durability == Strict {
		l.publish(b.note, line)
		return
	}
	l.unsynced = &unsynced{note: b.note, line: bytes.Clone(line), file: l.sink.file}
}

// publish hands on a checkpoint, and with it the promise that all it covers is
// on the disk. Called with mu held.
func (l *Log) publish(n note, line []byte) {
	l.stats.Checkpoint, l.published = n.size, n.text
	if l.announced != nil {
		l.announced.add(line)
	}
	if l.c.OnCheckpoint != nil {
		l.c.OnCheckpoint(n.size, n.text)
	}
}

// checkpoint commits a checkpoint of what was committed before, syncs the file
// and publishes it. Records go on to be written meanwhile: nobody waits for this
// sync. Called without mu.
func (l *Log) checkpoint() error {
	if l.signer == nil {
		return nil
	}
	l.checkpoints.Lock() // one at a time, so that they are published in order
	defer l.checkpoints.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(); err != nil {
		return err
	}
	l.wanted = true
	if err := l.join(l.cur); err != nil {
		return err
	}
	u := l.unsynced
	if l.unsynced = nil; u == nil {
		return nil
	}
	l.mu.Unlock()
	err := u.file.sync()
	l.mu.Lock()
	switch {
	case err == nil:
		l.publish(u.note, u.line)
	case errors.Is(err, os.ErrClosed):
		// Rotated away, and then synced, or broken. What comes next has its own
		// checkpoint.
	default:
		return l.syncFailed(err)
	}
	return nil
}

// syncFailed latches a failed sync, which the kernel reports once: whatever was
// written since the last one may be lost. Called with mu held.
func (l *Log) syncFailed(err error) error {
	for l.writing {
		_ = l.join(l.cur) // its callers have the error
	}
	if l.sink.file == nil {
		return nil // somebody else had trouble with it already
	}
	// Where the file was rotated away meanwhile, the sync before that may have
	// succeeded only because this one had the error: it must not go unsaid.
	l.fail(l.sink.broken(fmt.Errorf("syncing %s: %w", l.c.File, err)))
	return l.fault.err
}

// rotateFailed keeps the log in the file that it has. Called by the owner of
// the sink, without mu.
func (l *Log) rotateFailed(err error) {
	l.logger.Error("the audit log could not begin a new file and goes on in the one it has", "error", err, "again in", retryRotation)
	l.rotationFailures.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rotateAfter = l.now().Add(retryRotation)
}

// watch looks after the log while nobody uses it: refusals are flushed, a lost
// file is noticed, one that can be had again is opened, so that readiness
// comes back without a request, checkpoints are made, and segments that nobody
// needs any more are removed.
func (l *Log) watch() {
	defer l.stopped.Done()
	look := time.NewTicker(l.refusals.limits.Window)
	defer look.Stop()
	every := l.c.CheckpointEvery
	if every <= 0 {
		every = defaultCheckpoint
	}
	check := time.NewTicker(every)
	defer check.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-look.C:
			l.tick()
		case <-check.C:
			l.checkpointTick()
		}
	}
}

func (l *Log) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.fault.err != nil {
		if l.admit() != nil {
			return
		}
		_ = l.join(l.cur) // latched again if it fails
	} else if !l.writing {
		var o outcome
		l.exclusively(func() { o = l.sink.inspect(time.Now(), 0) })
		if o.err != nil {
			l.fail(o)
		}
	}
	if err := l.flushRefusals(); err != nil {
		l.logger.Error("refusals could not be recorded and stay counted", "error", err)
	}
}

func (l *Log) checkpointTick() {
	_ = l.checkpoint() // a log that takes no records has said so
	if l.c.Rotate.Keep > 0 {
		l.retain()
	}
}

// retain records which segments are not kept any more, and then removes them, so
// that a crash leaves none gone without a record. Owned by watch.
func (l *Log) retain() {
	old, last, err := spent(l.c.fs, l.c.File, &l.c.Rotate)
	if err != nil {
		l.logger.Error("segments of the audit log could not be looked for", "error", err)
	}
	if len(old) == 0 {
		return
	}
	if last > l.retained { // and is not tried again
		l.mu.Lock()
		_, err := l.commit(&Record{
			Event: EngineHeartbeat, Reason: reasonRetention, Count: int64(len(old)),
			Detail: fmt.Sprintf("removes %s to %s, records %d to %d",
				filepath.Base(old[0].Name), filepath.Base(old[len(old)-1].Name), old[0].First, last),
		}, nil)
		l.mu.Unlock()
		if err == nil {
			err = l.checkpoint() // which syncs
		}
		if err != nil {
			return // the log has said why it takes nothing
		}
		l.retained = last
	}
	if err := removeAll(l.c.fs, l.c.File, old); err != nil {
		l.logger.Error("segments of the audit log could not be removed", "error", err)
		return
	}
	l.logger.Info("segments of the audit log were removed: they are anchored and shipped", "first_seq", old[0].First, "last_seq", last)
}
