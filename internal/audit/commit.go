package audit

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// The rules of this file are: a record is encoded under Log.mu, so that chain
// order is encoding order; the first goroutine that finds nobody writing
// becomes the leader and writes everything that is pending, outside mu; those
// who arrive meanwhile leave their records in the next batch and wait. When a
// batch fails, so does the one that was filled meanwhile, since its records
// continue records that do not exist, and the chain goes back to the last
// record committed.

// batch is records that are written with one system call. Owned by Log.mu,
// except buf while its leader writes.
type batch struct {
	cond     sync.Cond // L is Log.mu
	buf      []byte
	end      chainState // behind its last record
	records  int64
	waiters  int
	done     bool
	err      error
	recovery bool // its first record reports a fault that is over if this commits
	header   bool // its first record begins a segment: it wants a file of its own
	note     note // the last checkpoint in it
}

// keepBuf is the largest buffer that a batch keeps for the next one.
const keepBuf = 1 << 20

func (l *Log) newBatch() *batch {
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		return b
	}
	b := &batch{buf: make([]byte, 0, 16<<10)}
	b.cond.L = &l.mu
	return b
}

// release gives b back once nobody waits for it.
func (l *Log) release(b *batch) {
	if b.waiters > 0 || !b.done {
		return
	}
	buf := b.buf[:0]
	if cap(buf) > keepBuf {
		buf = nil
	}
	*b = batch{buf: buf}
	b.cond.L = &l.mu
	l.free = append(l.free, b)
}

// commit appends r to the current batch and returns when that is committed,
// with r's seq. Called with mu held, which it gives up while it waits.
func (l *Log) commit(r *Record, facts *engineFacts) (uint64, error) {
	if err := l.admit(); err != nil {
		return 0, err
	}
	seq := l.append(r, facts)
	return seq, l.join(l.cur)
}

// admit says whether a record may be appended. If the log is broken it tries
// to mend it first; if it was out of room, or has just been mended, the batch
// begins with a record that says so. Called with mu held.
func (l *Log) admit() error {
	if l.closed {
		return ErrClosed
	}
	if l.fault.err == nil {
		return nil
	}
	if l.fault.kind != full {
		if err := l.mend(); err != nil {
			return err
		}
		if l.closed { // while the file was opened
			return ErrClosed
		}
	}
	if !l.fault.reported {
		l.fault.reported = true
		l.append(l.fault.report(l.now()))
		for _, t := range l.fault.torn {
			l.append(t.record())
		}
		l.cur.recovery = true
	}
	return nil
}

// append encodes r into the current batch. Called with mu held.
func (l *Log) append(r *Record, facts *engineFacts) uint64 {
	at := l.now()
	b := l.cur
	b.buf = l.enc.appendRecord(b.buf, &l.state, r, facts, at, l.jump(at))
	b.end = l.state
	b.records++
	return l.state.seq
}

// minJump is the least that the wall clock must have moved beside the
// monotonic one to be recorded; adjtime slews by half a millisecond a second.
const minJump = time.Second

// jump returns how far the wall clock was set since the last record. Order is
// by seq, and ts is what the clock said (ATTACKS L8).
func (l *Log) jump(at time.Time) time.Duration {
	last, lastMono := l.lastWall, l.lastMono
	if l.c.elapsed != nil {
		l.lastMono = l.c.elapsed()
	}
	l.lastWall = at
	if last.IsZero() {
		return 0
	}
	wall := at.Round(0).Sub(last.Round(0))
	mono := at.Sub(last) // by the monotonic reading, where both have one
	if l.c.elapsed != nil {
		mono = l.lastMono - lastMono
	}
	mono = max(mono, 0) // without such a reading a step back still shows
	if d := wall - mono; d >= minJump || d <= -minJump {
		return d
	}
	return 0
}

// join waits until b is committed, and leads if nobody does. Called with mu
// held.
func (l *Log) join(b *batch) error {
	b.waiters++
	for !b.done {
		if l.writing {
			b.cond.Wait()
		} else {
			l.lead() // nobody writes and b is not done: b is the current batch
		}
	}
	b.waiters--
	err := b.err
	l.release(b)
	return err
}

// lead commits the current batch. Called with mu held, which it gives up while
// it writes.
func (l *Log) lead() {
	l.gather()
	if l.wanted {
		l.wanted = false
		l.appendCheckpoint()
	}
	b := l.cur
	l.cur = l.newBatch()
	if at := l.lastWall; !b.header && l.sink.due(&l.c.Rotate, at) && !at.Before(l.rotateAfter) {
		l.appendHeader() // the next batch is the first of a new file
	}
	if len(b.buf) > 0 {
		l.write(b)
	}
	b.done = true
	b.cond.Broadcast()
}

// gather lets every goroutine that can run do so before the batch is closed.
// On a busy engine those are requests that are about to record something, and
// what they leave in the batch shares one write and one wake-up; on an idle one
// nobody else can run and this costs a fraction of a microsecond. Called with
// mu held, which it gives up.
func (l *Log) gather() {
	l.writing = true // who comes now, waits
	l.mu.Unlock()
	runtime.Gosched()
	l.mu.Lock()
	l.writing = false
}

// write stores b and settles what follows from it. Called with mu held.
func (l *Log) write(b *batch) {
	began := time.Now()
	var o outcome
	l.exclusively(func() { o = l.store(b, began) })
	if o.err != nil {
		if o.partly { // the rest will follow: a stream cannot take records back
			l.committed = b.end
		}
		l.fail(o)
		b.err = l.fault.err
		return
	}
	l.committed = b.end
	l.stats.observe(time.Since(began))
	l.stats.Records += b.records
	l.stats.Bytes += int64(len(b.buf))
	if b.recovery {
		l.logger.Info("the audit log takes records again", "lost", l.fault.lost)
		l.fault = fault{}
	}
	if b.note.text != nil {
		l.noted(b)
	}
}

// store writes b, to a new file where it begins one. Called by the owner of the
// sink, without mu.
func (l *Log) store(b *batch, now time.Time) outcome {
	if b.header {
		o := l.sink.rotate(b.buf, b.end.seq-uint64(b.records)+1, now)
		if o.kept == nil {
			if o.err == nil {
				l.rotations.Add(1)
			}
			return o
		}
		l.rotateFailed(o.kept)
		b.header = false
	}
	return l.sink.store(b.buf, l.c.Durability, now)
}

// exclusively runs fn outside mu while nobody else touches the sink. Called
// with mu held and writing unset.
func (l *Log) exclusively(fn func()) {
	l.writing = true
	l.mu.Unlock()
	fn()
	l.mu.Lock()
	l.writing = false
	if l.cur.waiters > 0 {
		l.cur.cond.Signal() // one of them leads the next batch
	}
}

// fail latches a failed commit and fails what was appended meanwhile. Called
// with mu held.
func (l *Log) fail(o outcome) {
	if l.fault.err == nil {
		l.fault.since = l.now()
		l.logger.Error("the audit log takes no records; nothing is forwarded", "error", o.err)
	}
	l.fault.kind = o.kind
	l.fault.cause = o.cause()
	l.stats.Failures[l.fault.cause]++
	l.fault.reported = false
	l.fault.err = fmt.Errorf("audit log: %w", o.err)
	next := l.cur
	l.cur = l.newBatch()
	next.err, next.done = l.fault.err, true
	next.cond.Broadcast()
	l.release(next)
	l.state = l.committed
}

// faultKind says what it takes to go on.
type faultKind uint8

const (
	full   faultKind = iota // room; every record tries again
	broken                  // the file must be opened and read again
	gone                    // the file was deleted, replaced or written by others: it must be back as it was
)

// fault is why nothing is taken. Owned by Log.mu.
type fault struct {
	err   error
	kind  faultKind
	cause Cause
	since time.Time
	tried time.Time   // when a broken file was last opened again
	lost  int64       // completions that could not be written
	note  string      // what was found when it was opened again
	torn  []*tornTail // … and cut off

	reported bool // the record about it is in a batch that is not committed yet
}

// report returns the record that comes first after a fault.
func (f *fault) report(now time.Time) (*Record, *engineFacts) {
	return &Record{
		Event: EngineHeartbeat, Reason: reasonRecovered, Detail: f.err.Error() + f.note,
		Count: f.lost, First: f.since, Last: now,
	}, nil
}

// mendEvery is the least time between two attempts to open a broken file, each
// of which reads all of it.
const mendEvery = time.Second

// mend opens a broken file again through the path that Open takes. A failed
// fsync is never repeated: the kernel has marked the pages clean and a second
// call would report a success that is none. So the file is closed, its cached
// pages are dropped, and the chain goes on from what the disk has. Called with
// mu held.
func (l *Log) mend() error {
	now := l.now()
	if since := now.Sub(l.fault.tried); l.writing || since >= 0 && since < mendEvery {
		return l.fault.err
	}
	l.fault.tried = now
	if l.published != nil { // the disk had what was published; less of it is not continued
		if c, _, err := checkpoint.Open(l.published, checkpoint.Verifiers{}); err == nil {
			l.sink.anchored = &c
		}
	}
	want := l.committed
	if l.fault.kind == broken {
		want = chainState{}
	}
	var t *tail
	var err error
	l.exclusively(func() { t, err = l.sink.reopen(now, want) })
	if err != nil {
		l.logger.Warn("the audit log cannot be opened again", "error", err)
		return l.fault.err
	}
	if t.seq < l.committed.seq {
		l.stats.rewind(t.seq)
		l.fault.note = fmt.Sprintf("; records %d to %d were taken and are not on the disk", t.seq+1, l.committed.seq)
	}
	l.fault.torn = t.torn
	l.state, l.committed = t.chainState, t.chainState
	l.fault.kind = full
	return nil
}
