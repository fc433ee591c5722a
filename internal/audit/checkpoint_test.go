package audit

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// published collects what a log says of itself.
type published struct {
	mu    sync.Mutex
	sizes []uint64
	notes [][]byte
}

func (p *published) take(size uint64, note []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes = append(p.sizes, size)
	p.notes = append(p.notes, bytes.Clone(note))
}

// opened returns the checkpoints, which s must have signed.
func (p *published) opened(t testing.TB, s *checkpoint.Signer) []checkpoint.Checkpoint {
	t.Helper()
	keys, err := checkpoint.ParseVerifiers(s.VerifierKey())
	check(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []checkpoint.Checkpoint
	for i, note := range p.notes {
		c, signed, err := checkpoint.Open(note, keys)
		check(t, err)
		if !signed || c.Size != p.sizes[i] {
			t.Fatalf("signed %v, size %d of %+v", signed, p.sizes[i], c)
		}
		all = append(all, c)
	}
	return all
}

func TestCheckpointsAtStartWhileIdleAndAtTheEnd(t *testing.T) {
	file, s := logFile(t), signer(t)
	var out published
	idle := make(chan struct{}, 100)
	l := open(t, Config{File: file, Key: key(s), CheckpointEvery: time.Millisecond, OnCheckpoint: func(size uint64, note []byte) {
		out.take(size, note)
		idle <- struct{}{}
	}})
	if e := entries(t, file); len(e) < 2 || e[1].Reason != reasonCheckpoint {
		t.Fatalf("begins with %d records", len(e))
	}
	for range 4 {
		<-idle
	}
	l.checkpointTick()
	requests(t, l, 1, 2)
	closeLog(t, l)
	all := entries(t, file)
	end := all
	for len(end) > 0 && end[len(end)-1].Reason == reasonCheckpoint {
		end = end[:len(end)-1]
	}
	if len(end) == len(all) || end[len(end)-1].Event != "engine_shutdown" {
		t.Fatalf("ends with %s", all[len(all)-1].Raw)
	}
	var tree checkpoint.Frontier
	at := map[uint64]checkpoint.Hash{}
	for _, e := range all {
		if e.Reason == reasonCheckpoint {
			at[tree.Size()] = tree.Root()
		}
		h := unhex(t, e.Hash)
		tree.Append(&h)
	}
	got := out.opened(t, s)
	if len(got) != len(at) || len(got) < 6 {
		t.Fatalf("%d published, %d in the log", len(got), len(at))
	}
	for _, c := range got {
		if at[c.Size] != c.Root || c.Session != l.SessionID() || c.Time.IsZero() {
			t.Fatalf("%+v is not what the log has", c)
		}
	}
	if verified(t, file).LastSeq != l.Stats().Checkpoint+1 {
		t.Fatalf("%+v", l.Stats())
	}
}

func TestACheckpointIsPublishedOnceItsRecordsAreOnTheDisk(t *testing.T) {
	fsys := &faultFS{}
	var syncs []int
	l := open(t, Config{File: logFile(t), Key: key(signer(t)), fs: fsys, OnCheckpoint: func(uint64, []byte) {
		fsys.set(func(f *faultFS) { syncs = append(syncs, f.syncs) })
	}})
	requests(t, l, 1, 3)
	l.checkpointTick()
	closeLog(t, l)
	if len(syncs) != 3 || syncs[0] != 1 || syncs[1] != 2 || syncs[2] != 3 {
		t.Fatalf("published after %v syncs", syncs)
	}
}

func TestRecordsDoNotWaitForTheSyncOfACheckpoint(t *testing.T) {
	fsys := &faultFS{}
	var out published
	l := open(t, Config{File: logFile(t), Key: key(signer(t)), fs: fsys, OnCheckpoint: out.take})
	syncing, synced := make(chan struct{}), make(chan struct{})
	fsys.set(func(f *faultFS) { f.beforeSync = func() { close(syncing); <-synced } })
	var wg sync.WaitGroup
	wg.Go(l.checkpointTick)
	<-syncing
	requests(t, l, 1, 10) // would never return
	if len(out.sizes) != 1 {
		t.Fatalf("published %d before the sync", out.sizes)
	}
	fsys.set(func(f *faultFS) { f.beforeSync = nil })
	close(synced)
	wg.Wait()
	if len(out.sizes) != 2 || out.sizes[1] != 2 {
		t.Fatalf("published %d", out.sizes)
	}
	closeLog(t, l)
}

func TestACheckpointThatCannotBeSyncedIsNotPublished(t *testing.T) {
	fsys := &faultFS{}
	var out published
	l := open(t, Config{File: logFile(t), Key: key(signer(t)), fs: fsys, OnCheckpoint: out.take})
	fsys.fault("sync", os.ErrDeadlineExceeded)
	l.checkpointTick()
	wantErr(t, l.Err(), "syncing")
	if len(out.sizes) != 1 {
		t.Fatalf("published %d", out.sizes)
	}
}

func TestCheckpointsAreAnnouncedWithoutTheRestOfTheLog(t *testing.T) {
	var all, notes syncBuffer
	l := open(t, Config{Stdout: &all, Key: key(signer(t)), Checkpoints: &notes})
	requests(t, l, 1, 3)
	closeLog(t, l)
	lines := strings.SplitAfter(notes.String(), "\n")
	if len(lines) != 3 || lines[2] != "" {
		t.Fatalf("announced %q", lines)
	}
	for _, line := range lines[:2] {
		if !strings.Contains(line, `"reason":"checkpoint"`) || !strings.Contains(all.String(), line) {
			t.Fatalf("announced %q", line)
		}
	}
}

func TestL06AFileThatIsShorterThanItsAnchorIsNotContinued(t *testing.T) {
	file, s := logFile(t), signer(t)
	var out published
	c := Config{File: file, Key: key(s), OnCheckpoint: out.take}
	l := open(t, c)
	requests(t, l, 1, 5)
	closeLog(t, l)
	known := out.opened(t, s)
	c.Anchored = &known[len(known)-1]
	closeLog(t, open(t, c)) // all of it is there

	lines := bytes.SplitAfter(contents(t, file), []byte("\n"))
	write(t, file, bytes.Join(lines[:4], nil))
	_, err := Open(c)
	wantErr(t, err, "ends with record 4", "there were 13", "cut off")
}

func TestL07AFileThatWasWrittenAnewIsNotContinued(t *testing.T) {
	file, s := logFile(t), signer(t)
	var out published
	c := Config{File: file, Key: key(s), OnCheckpoint: out.take}
	for id := uint64(1); id < 3; id++ {
		l := open(t, c)
		requests(t, l, 10*id, 6)
		closeLog(t, l)
	}
	known := out.opened(t, s)
	check(t, os.Remove(file))
	forged := open(t, Config{File: file, Key: key(s)})
	requests(t, forged, 10, 20)
	closeLog(t, forged)
	for i := range known {
		c.Anchored = &known[i]
		_, err := Open(c)
		wantErr(t, err, "other records than these", "rewritten")
	}
}

// TestL07AHeaderDoesNotStepOverTheAnchor has a file in the log's place that
// claims to begin where the anchor does not reach any more.
func TestL07AHeaderDoesNotStepOverTheAnchor(t *testing.T) {
	s, file := signer(t), logFile(t)
	var out published
	l := open(t, Config{File: file, Key: key(s), OnCheckpoint: out.take})
	anchored := out.opened(t, s)[0]
	closeLog(t, l)
	for whose, k := range map[string]*checkpoint.Signer{"somebody's": signer(t), "the log's": s} {
		file := logFile(t)
		c := Config{File: file, Key: key(k), Rotate: Rotation{Size: 4 << 10}}
		forged := open(t, c)
		requests(t, forged, 1, 20)
		closeLog(t, forged)
		for _, name := range files(t, file)[:len(files(t, file))-1] {
			check(t, os.Remove(name))
		}
		c.Key, c.Anchored = key(s), &anchored
		l, err := Open(c)
		if whose == "the log's" { // an anchor that was away while the log went on
			check(t, err)
			closeLog(t, l)
			continue
		}
		wantErr(t, err, "line 1", "the anchor knows of 1", "name a new one with --audit-file")
	}
}

// unhex decodes a hash.
func unhex(t testing.TB, s string) (h checkpoint.Hash) {
	t.Helper()
	if n, err := hex.Decode(h[:], []byte(s)); err != nil || n != len(h) {
		t.Fatalf("%q is no hash", s)
	}
	return h
}

// syncBuffer is a stream that several goroutines may use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
