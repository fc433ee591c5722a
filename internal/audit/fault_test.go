package audit

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faulty is a log on a faultFS with a clock of its own.
func faulty(t *testing.T, d Durability) (*Log, *faultFS, *clock, string) {
	t.Helper()
	fs, wall, file := &faultFS{}, newClock(), logFile(t)
	l := open(t, Config{File: file, Durability: d, Now: wall.now, fs: fs})
	mustDecide(t, l, 1)
	return l, fs, wall, file
}

// recovered asserts that the log takes records again, says what happened, and
// verifies with this many records before the recovery.
func recovered(t *testing.T, l *Log, file string, before int, words ...string) Entry {
	t.Helper()
	mustDecide(t, l, 77)
	if s := l.Stats(); l.Err() != nil || s.Failing != NoCause || s.Failures == [Causes]int64{} {
		t.Fatalf("still not ready, or never said: %v, %+v", l.Err(), s)
	}
	closeLog(t, l)
	verified(t, file)
	all := entries(t, file)
	e := all[before]
	if e.Event != "engine_heartbeat" || e.Reason != "audit_recovered" || e.First == "" || e.Last == "" {
		t.Fatalf("record %d is no recovery: %s", before+1, e.Raw)
	}
	for _, w := range words {
		if !strings.Contains(e.Detail, w) {
			t.Errorf("the recovery %q does not say %q", e.Detail, w)
		}
	}
	return e
}

func TestL04NoRoomStopsUntilThereIsRoom(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
	}{
		{"disk full", errNoSpace},
		{"quota", syscall.EDQUOT},
		{"file size limit", syscall.EFBIG},
		{"short write without an error", nil},
	} {
		for _, part := range []int{0, 1, 300, 1 << 20} { // of the batch, before the error
			if row.err == nil && part > 300 {
				continue // that would be a whole write
			}
			l, fs, _, file := faulty(t, Written)
			size := len(contents(t, file))
			fs.set(func(f *faultFS) {
				f.write = func(b []byte) (int, error) { return min(part, len(b)), row.err }
			})
			for id := range uint64(3) {
				noReceipt(t, l, id+2)
				if got := len(contents(t, file)); got != size {
					t.Fatalf("%s after %d bytes: the file has %d bytes, want %d", row.name, part, got, size)
				}
			}
			if s := l.Stats(); s.Failing != NoRoom || s.Failures[NoRoom] != 3 {
				t.Fatalf("%s: %+v", row.name, s)
			}
			if err := l.Complete(completion(1)); err == nil || l.Err() == nil {
				t.Fatalf("%s: a lost completion did not latch", row.name)
			}
			fs.set(func(f *faultFS) { f.write = nil })
			if l.Err() == nil {
				t.Fatal("ready without a record written")
			}
			if e := recovered(t, l, file, 2, "writing"); e.Count != 1 {
				t.Errorf("%s: %d lost completions recorded, want 1", row.name, e.Count)
			}
		}
	}
}

func TestL04AnIOErrorReadsTheFileAgain(t *testing.T) {
	l, fs, wall, file := faulty(t, Written)
	size := len(contents(t, file))
	fs.set(func(f *faultFS) {
		f.write = func([]byte) (int, error) { return 10, syscall.EIO } // a part of it arrived
	})
	noReceipt(t, l, 2)
	if got := len(contents(t, file)); got != size+10 {
		t.Fatalf("%d bytes: the file was touched after EIO", got)
	}
	fs.fault("open", syscall.EIO)
	wall.add(time.Minute)
	noReceipt(t, l, 3)
	fs.fault("open", nil)
	noReceipt(t, l, 4) // too soon for another attempt
	fs.set(func(f *faultFS) { f.write = nil })
	wall.add(mendEvery)
	recovered(t, l, file, 2, "input/output error")
	if e := entries(t, file)[3]; e.Reason != reasonRecovered || !bytes.Contains(e.Raw, []byte(`"torn":{"bytes":10,"file":"`+filepath.Base(file)+`.torn-000000000002-`)) {
		t.Fatalf("the cut is not recorded: %s", e.Raw)
	}
	torn, _ := filepath.Glob(file + ".torn-*")
	if len(torn) != 1 || len(contents(t, torn[0])) != 10 {
		t.Fatalf("kept: %v", torn)
	}
}

func TestL04AFailedFsyncIsNeverRepeated(t *testing.T) {
	l, fs, wall, file := faulty(t, Strict)
	fs.fault("sync", syscall.EIO)
	syncs, evicts := fs.syncs, fs.evicts
	noReceipt(t, l, 2)
	if s := l.Stats(); s.Failing != IOError || s.Failures[IOError] != 1 {
		t.Fatalf("%+v", s)
	}
	if fs.syncs != syncs+1 || fs.evicts != evicts || l.sink.file != nil {
		t.Fatalf("%d fsyncs, %d reads; the file must be closed after the first", fs.syncs-syncs, fs.evicts-evicts)
	}
	noReceipt(t, l, 3) // opens and reads the file again before another
	noReceipt(t, l, 4) // too soon
	if fs.syncs != syncs+2 || fs.evicts != evicts+1 {
		t.Fatalf("%d fsyncs, %d reads", fs.syncs-syncs, fs.evicts-evicts)
	}
	evicts = fs.evicts
	fs.fault("sync", nil)
	wall.add(mendEvery)
	// The records whose fsync failed are in the file: those requests were refused.
	recovered(t, l, file, 5, "syncing")
	if fs.evicts != evicts+1 {
		t.Fatal("the file was not read from the disk again")
	}
}

func TestL04RecordsThatTheDiskLostAreNamed(t *testing.T) {
	l, fs, wall, file := faulty(t, Strict)
	mustDecide(t, l, 2)
	fs.fault("sync", syscall.EIO)
	noReceipt(t, l, 3)
	fs.fault("sync", nil)
	lines := bytes.SplitAfter(contents(t, file), []byte("\n"))
	write(t, file, bytes.Join(lines[:2], nil)) // what the disk has
	wall.add(mendEvery)
	recovered(t, l, file, 2, "records 3 to 3 were taken and are not on the disk")
	if s := l.Stats(); s.Rewinds != 1 || s.Rewound != 2 {
		t.Fatalf("%+v", s)
	}
}

// TestL04ADiskThatLostWhatWasPublishedIsNotContinued has a file come back shorter
// than a checkpoint that others have: to go on would be to sign another past.
func TestL04ADiskThatLostWhatWasPublishedIsNotContinued(t *testing.T) {
	wall, file, fsys := newClock(), logFile(t), &faultFS{}
	l := open(t, Config{File: file, Now: wall.now, Key: key(signer(t)), fs: fsys})
	requests(t, l, 1, 3)
	l.checkpointTick()
	all := contents(t, file)
	requests(t, l, 10, 1) // not synced yet
	fsys.set(func(f *faultFS) { f.write = func([]byte) (int, error) { return 0, syscall.EIO } })
	wantErr(t, noReceipt(t, l, 20), "input/output error")
	fsys.set(func(f *faultFS) { f.write = nil })
	wall.add(mendEvery)
	write(t, file, all[:bytes.IndexByte(all, '\n')+1])
	wantErr(t, noReceipt(t, l, 21), "input/output error")
	wall.add(mendEvery)
	write(t, file, all)
	mustDecide(t, l, 22)
	closeLog(t, l)
	verified(t, file)
}

func TestL04AReadOnlyFileSystem(t *testing.T) {
	l, fs, wall, file := faulty(t, Written)
	fs.set(func(f *faultFS) {
		f.write = func([]byte) (int, error) { return 0, syscall.EROFS }
	})
	noReceipt(t, l, 2)
	fs.fault("open", syscall.EROFS)
	wall.add(mendEvery)
	noReceipt(t, l, 3)
	fs.fault("open", nil)
	fs.set(func(f *faultFS) { f.write = nil })
	wall.add(mendEvery)
	recovered(t, l, file, 2, "read-only")
}

func TestL04AFileThatCannotBeCutBackIsReadAgain(t *testing.T) {
	l, fs, wall, file := faulty(t, Written)
	fs.set(func(f *faultFS) {
		f.write = func([]byte) (int, error) { return 40, syscall.ENOSPC }
	})
	fs.fault("truncate", syscall.EIO)
	noReceipt(t, l, 2)
	wall.add(mendEvery)
	noReceipt(t, l, 3) // the torn end cannot be cut either
	fs.fault("truncate", nil)
	fs.set(func(f *faultFS) { f.write = nil })
	wall.add(mendEvery)
	recovered(t, l, file, 2, "no space left")
}

func TestL04TheTickBringsReadinessBack(t *testing.T) {
	l, fs, wall, file := faulty(t, Strict)
	fs.fault("sync", syscall.EIO)
	noReceipt(t, l, 2)
	wall.add(mendEvery)
	l.tick()
	if l.Err() == nil {
		t.Fatal("ready on a disk that does not sync")
	}
	fs.fault("sync", nil)
	wall.add(mendEvery / 2)
	l.tick()
	if l.Err() == nil {
		t.Fatal("ready without another attempt")
	}
	wall.add(mendEvery)
	l.tick()
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	verified(t, file)
}

func TestL04AFileSizeLimitOfTheKernel(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	file := logFile(t)
	l := open(t, Config{File: file})
	// The limit is the whole process's: the log must be longer than the one
	// that the testing package keeps of opened files.
	for len(contents(t, file)) < 8<<20 {
		for range 2000 {
			mustDecide(t, l, 1)
		}
	}
	whole := contents(t, file)
	size := uint64(len(whole))
	lower := old
	lower.Cur = size + 100 // a part of the next record fits
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lower); err != nil {
		t.Fatal(err)
	}
	err := noReceiptErr(l, 2)
	got := uint64(len(contents(t, file)))
	if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, syscall.EFBIG) || got != size {
		t.Fatalf("%v; %d bytes, want %d", err, got, size)
	}
	recovered(t, l, file, bytes.Count(whole, []byte("\n")), "file too large")
}

func TestL04ADeviceThatIsFull(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = Open(Config{Stdout: f})
	wantErr(t, err, "standard output", "no space left")
}

func TestTheLogsOwnFileIsWatched(t *testing.T) {
	away := func(file string) string { return file + ".away" }
	for _, row := range []struct {
		name   string
		harm   func(t *testing.T, file string)
		repair func(file string) error // nil: cannot be repaired
		words  string
	}{
		{"deleted", func(t *testing.T, file string) { check(t, os.Remove(file)) }, nil, "was deleted"},
		{"moved away", func(t *testing.T, file string) { check(t, os.Rename(file, away(file))) },
			func(file string) error { return os.Rename(away(file), file) }, "was moved away"},
		{"replaced", func(t *testing.T, file string) {
			check(t, os.Rename(file, away(file)))
			write(t, file, contents(t, away(file)))
		}, func(file string) error { return os.Rename(away(file), file) }, "was replaced"},
		{"written by another", func(t *testing.T, file string) {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			check(t, err)
			_, err = f.WriteString("x\n")
			check(t, errors.Join(err, f.Close()))
		}, nil, "something else writes to it or cut it"},
		{"cut", func(t *testing.T, file string) { check(t, os.Truncate(file, 100)) }, nil, "something else writes to it or cut it"},
	} {
		for _, idle := range []bool{false, true} {
			wall, file := newClock(), logFile(t)
			l := open(t, Config{File: file, Now: wall.now})
			row.harm(t, file)
			l.sink.checked = time.Time{} // the name is looked at once a second
			if idle {
				l.tick()
			} else {
				noReceipt(t, l, 1)
			}
			if err := l.Err(); err == nil || !strings.Contains(err.Error(), row.words) {
				t.Fatalf("%s, idle %v: %v", row.name, idle, err)
			}
			if s := l.Stats(); s.Failing != FileLost || s.Failures[FileLost] != 1 {
				t.Fatalf("%s, idle %v: %+v", row.name, idle, s)
			}
			wall.add(time.Minute)
			noReceipt(t, l, 2)
			if row.repair == nil {
				continue
			}
			check(t, row.repair(file))
			wall.add(time.Minute)
			recovered(t, l, file, 1, row.words)
		}
	}
}

func TestAFileThatCameBackChangedIsNotContinued(t *testing.T) {
	wall, file := newClock(), logFile(t)
	l := open(t, Config{File: file, Now: wall.now})
	mustDecide(t, l, 1)
	whole := contents(t, file)
	check(t, os.Truncate(file, 10))
	noReceipt(t, l, 2)
	// Same inode and size, and a chain that verifies, but not ours.
	other := logFile(t)
	l2 := open(t, Config{File: other, Now: wall.now})
	mustDecide(t, l2, 1)
	forged := contents(t, other)
	if len(forged) != len(whole) {
		t.Fatalf("%d and %d bytes", len(forged), len(whole))
	}
	write(t, file, forged)
	wall.add(time.Minute)
	noReceipt(t, l, 3)
	write(t, file, whole)
	wall.add(time.Minute)
	recovered(t, l, file, 2)
}

func TestL04StatusOfTheFileCannotBeRead(t *testing.T) {
	for _, op := range []string{"fstat", "lstat"} {
		l, fs, wall, file := faulty(t, Written)
		l.sink.checked = time.Time{}
		fs.fault(op, syscall.EIO)
		wantErr(t, noReceipt(t, l, 2), "looking at")
		wall.add(time.Minute)
		noReceipt(t, l, 3)
		fs.fault(op, nil)
		wall.add(time.Minute)
		recovered(t, l, file, 2, "looking at")
	}
}

func TestL04AStartOnABadDisk(t *testing.T) {
	good := logFile(t)
	closeLog(t, open(t, Config{File: good}))
	torn := contents(t, good)[:500]
	for _, row := range []struct {
		op   string
		data []byte
		says string
	}{
		{"open", nil, "opening audit log"},
		{"fstat", nil, "opening audit log"},
		{"syncDir", nil, "syncing its directory"},
		{"sync", nil, "syncing"},
		{"read", torn, "reading"},
		{"create", torn, "make room beside the log"},
		{"sync", torn, "make room beside the log"},
		{"syncDir", torn, "make room beside the log"},
		{"truncate", torn, "cutting the torn end"},
	} {
		fs := &faultFS{}
		fs.fault(row.op, syscall.EIO)
		file := write(t, logFile(t), row.data)
		_, err := Open(Config{File: file, fs: fs})
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.op, err)
		}
		if !bytes.Equal(contents(t, file)[:len(row.data)], row.data) {
			t.Errorf("%s: the log was changed", row.op)
		}
		fs.fault(row.op, nil)
		closeLog(t, open(t, Config{File: file, fs: fs})) // and the lock is free
		verified(t, file)
	}
}

func TestL04CloseSaysThatTheDiskFailed(t *testing.T) {
	l, fs, _, _ := faulty(t, Written)
	fs.fault("sync", syscall.EIO)
	if err := l.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	l, fs, _, _ = faulty(t, Strict)
	fs.fault("sync", syscall.EIO)
	noReceipt(t, l, 2)
	if err := l.Close(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
}

// TestL04ASyncThatFailsWhileTheFileIsRotatedIsNotLost has the error of one
// file reported to the checkpoint that is just made, and to nobody else: that is
// how the kernel does it.
func TestL04ASyncThatFailsWhileTheFileIsRotatedIsNotLost(t *testing.T) {
	wall, file, fsys := newClock(), logFile(t), &faultFS{}
	l := open(t, Config{File: file, Now: wall.now, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}, fs: fsys})
	before := l.Stats()
	asked := false
	fsys.set(func(f *faultFS) {
		f.beforeSync = func() {
			if asked {
				return
			}
			asked = true
			requests(t, l, 1, 10)
			fsys.fault("sync", syscall.EIO)
		}
	})
	l.checkpointTick()
	fsys.fault("sync", nil)
	if l.Stats().Rotations == before.Rotations {
		t.Fatal("nothing was rotated")
	}
	wantErr(t, l.Err(), "syncing", "input/output error")
	wall.add(mendEvery)
	requests(t, l, 20, 1)
	check(t, l.Err())
	closeLog(t, l)
	verified(t, files(t, file)...)
}

// TestARotationUnderACheckpointIsNoFault has the file closed by a rotation just
// when the checkpoint in it is to be synced, which the rotation has done.
func TestARotationUnderACheckpointIsNoFault(t *testing.T) {
	file, fsys := logFile(t), &faultFS{}
	l := open(t, Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}, fs: fsys})
	before := l.Stats()
	asked := false
	fsys.set(func(f *faultFS) {
		f.beforeSync = func() {
			if !asked {
				asked = true
				requests(t, l, 1, 10)
			}
		}
	})
	l.checkpointTick()
	if l.Stats().Rotations == before.Rotations {
		t.Fatal("nothing was rotated")
	}
	check(t, l.Err())
	closeLog(t, l)
	verified(t, files(t, file)...)
}

func TestErrorsOfOpeningSayWhatToDo(t *testing.T) {
	for err, word := range map[error]string{
		fs.ErrPermission: "not writable by user",
		syscall.EROFS:    "mount a writable volume",
		syscall.EISDIR:   "not a regular file",
		errInUse:         "another engine",
		syscall.EMFILE:   "opening audit log",
	} {
		wantErr(t, explain("/var/log/audit.jsonl", err), word, "/var/log/audit.jsonl")
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
