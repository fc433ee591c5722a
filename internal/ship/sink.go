package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// Limits of a batch: it is sent when one of them is reached, or when the log
// has no more. A record that is longer than maxBytes goes alone.
const (
	maxRecords = 512
	maxBytes   = 1 << 20 // 1 MiB
	linger     = time.Second
)

// storeEvery is how often a position is written down while records go out. It
// costs a sync of the log; what a crash forgets is sent again.
const storeEvery = time.Second

// farBehind is how many records a sink may lack before that is said: one that is
// slow, and not failing, says nothing otherwise.
const farBehind = 100_000

// batch is records that are sent together. Owned by the sink's goroutine.
type batch struct {
	lines       []byte // as they stand in the log, each with its newline
	records     int
	first, last uint64
	since       time.Time // when the first was read
}

func (b *batch) add(e *audit.Entry) {
	if b.records == 0 {
		b.first, b.since = e.Seq, time.Now()
	}
	b.lines = append(append(b.lines, e.Raw...), '\n')
	b.last = e.Seq
	b.records++
}

func (b *batch) reset() {
	lines := b.lines[:0]
	if cap(lines) > 2*maxBytes {
		lines = nil
	}
	*b = batch{lines: lines}
}

// sink sends records to one receiver. Its goroutine is the only one that talks
// to it.
type sink struct {
	target   Target
	log      string // the active file
	position string // the file that holds stored
	deliver  func(context.Context, *batch) error
	pace     pace
	linger   time.Duration
	trouble  trouble
	logger   *slog.Logger
	state    func() audit.Stats // of the log; set by start

	acked  atomic.Uint64 // seq of the last record that the receiver has
	stored atomic.Uint64 // … that the position says

	batch    batch         // owned by run
	lastTry  time.Time     // to store the position; owned by run
	unstored bool          // said that the position cannot be stored; owned by run
	behind   bool          // said that it is far behind; owned by run
	rewinds  int64         // of the log that were heeded; owned by run
	hurry    chan struct{} // closing, until it was heeded once; owned by run

	closing chan struct{}
	done    chan struct{}
}

// errDrained ends the reading of a log that was sent to its end, errRewound that
// of one that went back.
var (
	errDrained = errors.New("everything was sent")
	errRewound = errors.New("the log went back")
)

func (s *sink) committed() uint64 { return s.state().Seq }

// run sends until ctx ends, or until close was called and everything was sent.
func (s *sink) run(ctx context.Context) {
	defer close(s.done)
	s.hurry = s.closing
	for failures := 0; ; {
		s.batch.reset()
		before := s.acked.Load()
		err := audit.Follow(ctx, s.log, audit.FollowOptions{
			From: before + 1, Committed: s.committed, RawOnly: true, Wake: s.closing,
			Idle: func() error { return s.idle(ctx) },
		}, func(e *audit.Entry) error { return s.take(ctx, e) })
		if errors.Is(err, errDrained) || ctx.Err() != nil {
			s.store()
			return
		}
		if s.rewound() || errors.Is(err, errRewound) {
			continue
		}
		if s.acked.Load() > before {
			failures = 0
		}
		failures++
		s.trouble.failed(fmt.Errorf("reading the log: %w", err))
		if !s.pause(ctx, failures, err) {
			return
		}
	}
}

// rewound reports whether the log has gone on from a disk that had less than was
// committed. What the receiver has behind that is not in the log any more, and
// other records have those numbers: they are sent as well.
func (s *sink) rewound() bool {
	st := s.state()
	if st.Rewinds == s.rewinds {
		return false
	}
	s.rewinds = st.Rewinds
	if acked := s.acked.Load(); st.Rewound < acked {
		s.logger.Error("the receiver has records of the audit log that its disk lost; those that were written in their place are sent too",
			"first_seq", st.Rewound+1, "last_seq", acked)
		s.acked.Store(st.Rewound)
		s.stored.Store(0) // whatever the file says
		s.store()
	}
	return true
}

// take adds a record to the batch and sends it if it is full.
func (s *sink) take(ctx context.Context, e *audit.Entry) error {
	if s.batch.records > 0 && len(s.batch.lines)+len(e.Raw) >= maxBytes {
		if err := s.send(ctx); err != nil {
			return err
		}
	}
	s.batch.add(e)
	if s.batch.records < maxRecords {
		return nil
	}
	return s.send(ctx)
}

// idle is called when the log has no more.
func (s *sink) idle(ctx context.Context) error {
	if s.rewound() {
		return errRewound
	}
	stop := closed(s.closing)
	if s.batch.records > 0 && (stop || time.Since(s.batch.since) >= s.linger) {
		return s.send(ctx)
	}
	if s.batch.records == 0 && stop {
		return errDrained
	}
	if time.Since(s.lastTry) >= storeEvery {
		s.store()
	}
	return nil
}

// send delivers the batch, however often it takes. Its errors are ctx's and
// errRewound.
func (s *sink) send(ctx context.Context) error {
	b := &s.batch
	for failures := 1; ; failures++ {
		if s.rewound() {
			return errRewound // with the batch: it may hold what the log lost
		}
		err := s.deliver(ctx, b)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.trouble.failed(err, "first_seq", b.first, "last_seq", b.last)
		if !s.pause(ctx, failures, err) {
			return ctx.Err()
		}
	}
	s.acked.Store(b.last)
	lag := s.lag()
	s.trouble.worked("seq", b.last, "lag", lag)
	s.judgeLag(lag)
	b.reset()
	if time.Since(s.lastTry) >= storeEvery {
		s.store()
	}
	return nil
}

// judgeLag says when the sink falls far behind, and when that is over.
func (s *sink) judgeLag(lag uint64) {
	switch {
	case !s.behind && lag >= farBehind:
		s.behind = true
		s.logger.Warn("a sink takes records more slowly than they are written; they wait in the log's files, which are kept for it", "lag", lag)
	case s.behind && lag < farBehind/2:
		s.behind = false
		s.logger.Info("the sink has caught up", "lag", lag)
	}
}

func (s *sink) pause(ctx context.Context, failures int, err error) bool {
	ok := pause(ctx, s.pace.wait(failures, err), s.hurry)
	if closed(s.closing) {
		s.hurry = nil // once at once, then at the usual pace
	}
	return ok
}

// store writes the position down. What fails is tried again with the next.
func (s *sink) store() {
	seq := s.acked.Load()
	if seq == s.stored.Load() {
		return
	}
	s.lastTry = time.Now()
	if err := writePosition(s.log, s.position, seq); err != nil {
		if !s.unstored {
			s.unstored = true
			s.logger.Warn("a sink's position cannot be written down; until it can, no segment is removed and a restart sends again", "file", s.position, "err", err)
		}
		return
	}
	s.stored.Store(seq)
	s.unstored = false
}

// lag is how many records of the log the receiver does not have.
func (s *sink) lag() uint64 {
	if s.state == nil {
		return 0
	}
	acked := s.acked.Load()
	return max(s.committed(), acked) - acked
}

// lost says what was not sent, after run has ended.
func (s *sink) lost() error {
	n := s.lag()
	if n == 0 {
		return nil
	}
	_, _, last := s.trouble.counts()
	if last == "" {
		last = "there was no time"
	}
	return fmt.Errorf("sink %s: %d records wait in the log for the next start: %s", &s.target, n, last)
}
