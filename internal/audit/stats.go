package audit

import "time"

// commitBounds returns the upper bounds in seconds of Stats.CommitCounts.
func commitBounds() [10]float64 {
	return [...]float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 25e-3, 100e-3, 1}
}

// Stats is counts since Open.
type Stats struct {
	Seq      uint64 // of the last committed record
	Records  int64  // committed
	Bytes    int64
	Commits  int64 // batches written
	Failures int64 // batches that could not be
	Pending  int   // callers that wait for a commit now
	Dropped  int64 // batches that the copy on standard output missed

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

// observe counts one commit. Owned by Log.mu.
func (s *Stats) observe(d time.Duration, err error) {
	if err != nil {
		s.Failures++
		return
	}
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
