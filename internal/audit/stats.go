package audit

import "time"

// commitBounds returns the upper bounds in seconds of Stats.CommitCounts.
func commitBounds() [10]float64 {
	return [...]float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 25e-3, 100e-3, 1}
}

// Cause says in a word why the log takes no records. Err has the rest.
type Cause uint8

// The causes.
const (
	NoCause  Cause = iota // it takes them
	NoRoom                // the disk or a limit is full
	IOError               // a write, a sync or a look at the file failed
	FileLost              // the file was deleted, replaced or written by others
	Causes                // how many there are
)

// String returns the word, "" for NoCause.
func (c Cause) String() string {
	switch c {
	case NoRoom:
		return "no_room"
	case IOError:
		return "io_error"
	case FileLost:
		return "file_lost"
	default:
		return ""
	}
}

func (o *outcome) cause() Cause {
	switch {
	case o.kind == gone:
		return FileLost
	case noRoom(o.err):
		return NoRoom
	default:
		return IOError
	}
}

// Stats is counts since Open.
type Stats struct {
	Seq      uint64 // of the last committed record
	Records  int64  // committed
	Bytes    int64
	Commits  int64         // batches written
	Failing  Cause         // why records are not taken now
	Failures [Causes]int64 // :: Cause → batches that could not be written, and faults that were found without one
	Pending  int           // callers that wait for a commit now
	Dropped  int64         // batches that the copy on standard output missed

	// Rewinds is how often the log went on from a disk that had less than was
	// committed, and Rewound the least seq that it went back to: whoever took
	// records behind that has some that are not in the log.
	Rewinds int64
	Rewound uint64

	Checkpoint       uint64 // how many records the last checkpoint covers
	Rotations        int64  // files that were begun because one was full
	RotationFailures int64  // … or that could not be

	CommitCounts  [11]int64 // commits by how long they took; the last is beyond every bound
	CommitSeconds float64   // in all
}

// CommitBuckets returns the upper bounds in seconds of all but the last of
// CommitCounts.
func (Stats) CommitBuckets() []float64 {
	b := commitBounds()
	return b[:]
}

// rewind counts that the log goes on behind seq again. Owned by Log.mu.
func (s *Stats) rewind(seq uint64) {
	if s.Rewinds++; s.Rewinds == 1 || seq < s.Rewound {
		s.Rewound = seq
	}
}

// observe counts one commit. Owned by Log.mu.
func (s *Stats) observe(d time.Duration) {
	s.Commits++
	sec := d.Seconds()
	s.CommitSeconds += sec
	i := 0
	for _, bound := range commitBounds() {
		if sec <= bound {
			break
		}
		i++
	}
	s.CommitCounts[i]++
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Seq = l.committed.seq
	s.Failing = l.fault.cause
	s.Pending = l.cur.waiters
	if l.writing {
		s.Pending++
	}
	s.Rotations, s.RotationFailures = l.rotations.Load(), l.rotationFailures.Load()
	if l.sink.copy != nil {
		s.Dropped = l.sink.copy.drops()
	}
	return s
}
