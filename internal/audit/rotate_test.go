package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// signer makes a key for the tests' checkpoints.
func signer(t testing.TB) *checkpoint.Signer {
	t.Helper()
	private, err := checkpoint.Generate("audit.test")
	check(t, err)
	s, err := checkpoint.NewSigner(private)
	check(t, err)
	return s
}

// key is a Config.Key for s.
func key(s *checkpoint.Signer) func() (*checkpoint.Signer, error) {
	return func() (*checkpoint.Signer, error) { return s, nil }
}

// files returns the segments of a log and its file, in order.
func files(t testing.TB, file string) []string {
	t.Helper()
	all, err := Segments(file)
	check(t, err)
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return append(names, file)
}

// requests writes n requests with both their records.
func requests(t testing.TB, l *Log, from, n uint64) {
	t.Helper()
	for id := from; id < from+n; id++ {
		mustDecide(t, l, id)
		check(t, l.Complete(completion(id)))
	}
}

func TestAFullFileBecomesASegment(t *testing.T) {
	file := logFile(t)
	c := Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 8 << 10}}
	l := open(t, c)
	requests(t, l, 1, 50)
	closeLog(t, l)
	all := files(t, file)
	if len(all) < 5 {
		t.Fatalf("%d files of a log of 50 requests", len(all))
	}
	if s := l.Stats(); s.Rotations != int64(len(all)-1) || s.RotationFailures != 0 {
		t.Fatalf("%+v for %d files", s, len(all))
	}
	rep := verified(t, all...)
	if rep.LastSeq != l.Stats().Seq || rep.Incomplete != 0 {
		t.Fatalf("%+v", rep)
	}
	for i, name := range all[1:] {
		first := entries(t, name)[0]
		if first.Reason != reasonSegment || first.Segment != filepath.Base(all[i]) || first.Checkpoint == "" {
			t.Fatalf("%s begins with %s", name, first.Raw)
		}
		if i < len(all)-2 && segmentName(file, first.Seq) != name {
			t.Fatalf("%s begins with record %d", name, first.Seq)
		}
		if size := int64(len(contents(t, name))); size > 12<<10 {
			t.Fatalf("%s has %d bytes", name, size)
		}
	}
	// A segment verifies without those before it, and not without one between.
	verified(t, all[2:]...)
	damaged(t, "prev_hash is not the hash of the record before", 1, all[0], all[2])

	// The next start goes on where this one ended.
	again := open(t, c)
	requests(t, again, 100, 20)
	closeLog(t, again)
	if rep := verified(t, files(t, file)...); rep.Sessions != 2 || rep.LastSeq != again.Stats().Seq {
		t.Fatalf("%+v", rep)
	}
}

func TestASegmentIsNotReadAgainAtTheStart(t *testing.T) {
	file := logFile(t)
	c := Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}}
	l := open(t, c)
	requests(t, l, 1, 20)
	closeLog(t, l)
	all := files(t, file)
	for _, name := range all[:len(all)-1] {
		write(t, name, nil)
	}
	again := open(t, c)
	requests(t, again, 100, 1)
	closeLog(t, again)
	rep := verified(t, file)
	if rep.FirstSeq < 10 || rep.LastSeq != again.Stats().Seq {
		t.Fatalf("%+v", rep)
	}
}

func TestAFileIsRotatedByAge(t *testing.T) {
	wall, file := newClock(), logFile(t)
	c := Config{File: file, Now: wall.now, Rotate: Rotation{Age: time.Hour}}
	l := open(t, c)
	requests(t, l, 1, 3)
	wall.add(59 * time.Minute)
	requests(t, l, 4, 1)
	closeLog(t, l)
	l = open(t, c) // which does not begin the hour anew
	requests(t, l, 5, 1)
	if n := len(files(t, file)); n != 1 {
		t.Fatalf("%d files within the hour", n)
	}
	wall.add(2 * time.Minute)
	requests(t, l, 6, 2)
	closeLog(t, l)
	all := files(t, file)
	if len(all) != 2 || verified(t, all...).Incomplete != 0 {
		t.Fatalf("%v", all)
	}
}

func TestRotationUnderLoadLosesNothing(t *testing.T) {
	for _, durability := range []Durability{Written, Strict} {
		t.Run(durability.String(), func(t *testing.T) {
			file := logFile(t)
			fsys := &faultFS{memory: durability == Written}
			l := open(t, Config{File: file, Key: key(signer(t)), Durability: durability, Rotate: Rotation{Size: 16 << 10}, fs: fsys})
			var wg sync.WaitGroup
			for w := range uint64(16) {
				wg.Go(func() {
					for i := range uint64(40) {
						id := 1 + w*40 + i
						if _, err := l.Decide(decision(id)); err != nil {
							t.Error(err)
						}
						if err := l.Complete(completion(id)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			closeLog(t, l)
			all := files(t, file)
			rep := verified(t, all...)
			if rep.Events["egress_allowed"] != 2*16*40 || rep.Incomplete != 0 || rep.Unasked != 0 || len(all) < 10 {
				t.Fatalf("%d files, %+v", len(all), rep)
			}
		})
	}
}

func TestARotationThatFailsStopsNothing(t *testing.T) {
	for _, op := range []string{"create", "link", "rename"} {
		t.Run(op, func(t *testing.T) {
			wall, file, fsys := newClock(), logFile(t), &faultFS{}
			l := open(t, Config{File: file, Now: wall.now, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}, fs: fsys})
			fsys.fault(op, syscall.EPERM)
			requests(t, l, 1, 20)
			if got := files(t, file); len(got) != 1 {
				t.Fatalf("left behind: %v", got)
			}
			if _, err := os.Lstat(file + nextSuffix); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("left behind: %v", err)
			}
			if s := l.Stats(); s.RotationFailures != 1 || s.Failures != [Causes]int64{} || l.Err() != nil {
				t.Fatalf("%+v, %v: it is tried once in a while, and the log goes on", s, l.Err())
			}
			fsys.fault(op, nil)
			wall.add(retryRotation)
			requests(t, l, 30, 3)
			closeLog(t, l)
			if all := files(t, file); len(all) < 2 || verified(t, all...).Incomplete != 0 {
				t.Fatalf("%v", all)
			}
		})
	}
}

func TestL04TheOldFileIsSyncedBeforeANewOneBegins(t *testing.T) {
	file, fsys := logFile(t), &faultFS{}
	l := open(t, Config{File: file, Rotate: Rotation{Size: 2 << 10}, fs: fsys})
	requests(t, l, 1, 1)
	fsys.fault("sync", syscall.EIO)
	for id := uint64(2); l.Err() == nil && id < 10; id++ {
		_, _ = l.Decide(decision(id))
	}
	wantErr(t, l.Err(), "syncing "+file, "input/output error")
	fsys.fault("sync", nil)
	l.mu.Lock()
	l.fault.tried = time.Time{}
	l.mu.Unlock()
	requests(t, l, 20, 10)
	closeLog(t, l)
	verified(t, files(t, file)...)
}

func TestL05ACrashInTheMiddleOfARotation(t *testing.T) {
	// Each step leaves the directory as a crash behind it would.
	steps := map[string]func(file, segment string, header []byte) error{
		"next": func(file, _ string, header []byte) error { return os.WriteFile(file+nextSuffix, header, 0o600) },
		"torn": func(file, _ string, header []byte) error {
			return os.WriteFile(file+nextSuffix, header[:len(header)/2], 0o600)
		},
		"link": func(file, segment string, header []byte) error {
			return errors.Join(os.WriteFile(file+nextSuffix, header, 0o600), os.Link(file, segment))
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			file := logFile(t)
			c := Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 2 << 10}}
			l := open(t, Config{File: file, Key: c.Key})
			requests(t, l, 1, 5)
			closeLog(t, l)
			whole := contents(t, file)
			check(t, step(file, segmentName(file, 1), []byte("{\"agent_identity\":\"x\"}\n")))

			closeLog(t, open(t, Config{File: file, Key: c.Key}))
			if got := files(t, file); len(got) != 1 {
				t.Fatalf("left behind: %v", got)
			}
			if _, err := os.Lstat(file + nextSuffix); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("left behind: %v", err)
			}
			l = open(t, c)
			requests(t, l, 10, 5)
			closeLog(t, l)
			all := files(t, file)
			verified(t, all...)
			if len(all) < 2 || !bytes.HasPrefix(contents(t, all[0]), whole) {
				t.Fatal("the log that was there before the crash is not its beginning")
			}
		})
	}
}

func TestALogThatLostItsFileIsNotBegunAnew(t *testing.T) {
	file := logFile(t)
	c := Config{File: file, Rotate: Rotation{Size: 2 << 10}}
	l := open(t, c)
	requests(t, l, 1, 10)
	closeLog(t, l)
	all := files(t, file)
	check(t, os.Remove(file))
	_, err := Open(c)
	wantErr(t, err, "begins anew", all[len(all)-2], "put the missing file back")

	// A segment that is missing between is missed too.
	write(t, file, contents(t, all[2]))
	check(t, os.Remove(all[2]))
	check(t, os.Remove(all[1]))
	for _, name := range all[3 : len(all)-1] {
		check(t, os.Remove(name))
	}
	_, err = Open(c)
	wantErr(t, err, "continues "+filepath.Base(all[1]), all[0])
}

func TestASecondWriterIsRefusedAcrossARotation(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file, Rotate: Rotation{Size: 2 << 10}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if second, err := Open(Config{File: file}); err == nil {
				t.Error("two writers")
				_ = second.Close()
				return
			} else if !errors.Is(err, errInUse) {
				t.Error(err)
				return
			}
		}
	})
	requests(t, l, 1, 100)
	close(stop)
	wg.Wait()
	closeLog(t, l)
	if all := files(t, file); len(all) < 10 || verified(t, all...).Sessions != 1 {
		t.Fatalf("%v", all)
	}
}

func TestNothingIsRemovedThatIsNotAnchoredAndShipped(t *testing.T) {
	file := logFile(t)
	_, err := Open(Config{File: file, Rotate: Rotation{Keep: 2}})
	wantErr(t, err, "only when they are anchored and shipped")

	var shipped uint64
	var mu sync.Mutex
	removable := func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return shipped
	}
	l := open(t, Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10, Keep: 2, Removable: removable}})
	requests(t, l, 1, 40)
	all := files(t, file)
	l.checkpointTick()
	if got := files(t, file); len(got) < len(all) || got[0] != all[0] {
		t.Fatalf("removed without being shipped: %d of %d are left", len(got), len(all))
	}
	segs, err := Segments(file)
	check(t, err)
	mu.Lock()
	shipped = segs[2].First - 1 + 1 // all of the first two, and the header of the third
	mu.Unlock()
	l.checkpointTick()
	left := files(t, file)
	if left[0] != segs[2].Name {
		t.Fatalf("left: %v", left)
	}
	mu.Lock()
	shipped = 1 << 40
	mu.Unlock()
	l.checkpointTick()
	if left = files(t, file); len(left) < 3 || len(left) > 4 { // the record of it may have begun one more
		t.Fatalf("left: %v", left)
	}
	closeLog(t, l)
	left = files(t, file) // the end may have begun one more
	verified(t, left...)
	var notes []string
	for _, name := range left {
		for _, e := range entries(t, name) {
			if e.Reason == reasonRetention {
				notes = append(notes, e.Detail)
			}
		}
	}
	want := fmt.Sprintf("removes %s to %s, records 1 to %d", filepath.Base(segs[0].Name), filepath.Base(segs[1].Name), segs[2].First-1)
	if len(notes) != 2 || notes[0] != want {
		t.Fatalf("recorded %q, want %q first", notes, want)
	}
}

func TestSegmentNames(t *testing.T) {
	for name, first := range map[string]uint64{
		"a.log.000000000001": 1, "a.log.000000000123.gz": 123, "a.log.1234567890123": 1234567890123,
		"a.log": 0, "a.log.next": 0, "a.log.1": 0, "a.log.000000000000": 0, "a.log.0000000000001": 0, "b.log.000000000001": 0,
		"a.log.00000000000x": 0, "a.log.+00000000001": 0, "a.log.torn-20260515T094211.123Z": 0, "a.log.99999999999999999999": 0,
	} {
		if got, ok := parseSegment("a.log", name); ok != (first > 0) || ok && got != first {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
	dir := t.TempDir()
	for _, n := range []string{"000000000002", "000000000001.gz", "000000000002.gz", "1000000000000", "next"} {
		write(t, filepath.Join(dir, "a."+n), nil)
	}
	all, err := Segments(filepath.Join(dir, "a"))
	check(t, err)
	var got []string
	for _, s := range all {
		got = append(got, strings.TrimPrefix(s.Name, dir+"/a."))
	}
	if strings.Join(got, " ") != "000000000001.gz 000000000002 1000000000000" {
		t.Fatalf("%q", got)
	}
}
