package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// numbered returns the lines of records from to to, with their seq.
func numbered(from, to int) []byte {
	var b bytes.Buffer
	for n := from; n <= to; n++ {
		fmt.Fprintln(&b, record("s", fmt.Sprintf(`"host":"h%d","seq":%d`, n, n), "null"))
	}
	return b.Bytes()
}

// unnumbered returns n lines as the Python library writes them.
func unnumbered(n int) []byte {
	return bytes.Repeat([]byte(record("s", `"host":"h"`, "null")+"\n"), n)
}

func appendTo(t *testing.T, file string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	check(t, err)
	_, err = f.Write(b)
	check(t, errors.Join(err, f.Close()))
}

// rotate gives the file at path the name of a segment, as the engine does it,
// and begins the next with b.
func rotate(t *testing.T, path string, first uint64, b []byte) {
	t.Helper()
	write(t, path+".next", b)
	check(t, os.Link(path, segmentName(path, first)))
	check(t, os.Rename(path+".next", path))
}

var errScriptEnds = errors.New("the script ends")

// follow reads the log at path; each time it is read to its end the next of
// steps is done, and behind the last one it ends. It returns the positions of
// what was read.
func follow(t *testing.T, path string, o FollowOptions, steps ...func()) ([]uint64, error) {
	t.Helper()
	var got []uint64
	o.Poll = time.Nanosecond
	o.Idle = func() error {
		if len(steps) == 0 {
			return errScriptEnds
		}
		steps[0]()
		steps = steps[1:]
		return nil
	}
	err := Follow(t.Context(), path, o, func(e *Entry) error {
		if len(e.Raw) == 0 || e.Raw[0] != '{' || e.Line == 0 {
			t.Errorf("record %d: line %d, %q", e.Seq, e.Line, e.Raw)
		}
		got = append(got, e.Seq)
		return nil
	})
	return got, err
}

func wantAll(t *testing.T, got []uint64, err error, from, to uint64) {
	t.Helper()
	if !errors.Is(err, errScriptEnds) {
		t.Error(err)
	}
	want := []uint64{}
	for n := from; n <= to; n++ {
		want = append(want, n)
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %v, want %d to %d", got, from, to)
	}
}

func TestFollowReadsWhatIsThereAndWhatComes(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	got, err := follow(t, file, FollowOptions{}, func() { mustDecide(t, l, 1) }, func() {}, func() { mustDecide(t, l, 2); closeLog(t, l) })
	wantAll(t, got, err, 1, 4)
}

func TestFollowReadsWholeLinesOnly(t *testing.T) {
	file := write(t, logFile(t), nil)
	b := numbered(1, 3)
	var steps []func()
	for _, c := range bytes.SplitAfter(b, []byte("host")) {
		steps = append(steps, func() { appendTo(t, file, c) })
	}
	got, err := follow(t, file, FollowOptions{}, steps...)
	wantAll(t, got, err, 1, 3)
}

func TestFollowReadsALineAnewThatACrashTookBack(t *testing.T) {
	file := write(t, logFile(t), numbered(1, 2))
	whole, next := int64(len(numbered(1, 2))), numbered(3, 4)
	got, err := follow(t, file, FollowOptions{},
		func() { appendTo(t, file, []byte(`{"agent_identity":"half`)) },
		func() { check(t, os.Truncate(file, whole)); appendTo(t, file, next) })
	wantAll(t, got, err, 1, 4)
}

func TestFollowGoesOnThroughRotations(t *testing.T) {
	for _, c := range []struct {
		name string
		from uint64
	}{{"from the oldest", 0}, {"from the first", 1}, {"inside a segment", 4}, {"at a segment's first", 6}, {"in the active file", 10}, {"beyond the end", 14}} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, logFile(t), numbered(9, 11))
			write(t, segmentName(file, 1), numbered(1, 3))
			write(t, segmentName(file, 4)+".gz", zipped(t, numbered(4, 5)))
			write(t, segmentName(file, 6), zipped(t, numbered(6, 8)))
			got, err := follow(t, file, FollowOptions{From: c.from},
				func() { appendTo(t, file, numbered(12, 12)); rotate(t, file, 9, numbered(13, 13)) },
				func() { rotate(t, file, 13, numbered(14, 14)); rotate(t, file, 14, numbered(15, 16)) },
				func() { appendTo(t, file, numbered(17, 17)) })
			wantAll(t, got, err, max(c.from, 1), 17)
		})
	}
}

func TestFollowTakesASegmentThatIsPlainAndCompressedOnce(t *testing.T) {
	file := write(t, logFile(t), numbered(4, 4))
	write(t, segmentName(file, 1), numbered(1, 3))
	write(t, segmentName(file, 1)+".gz", []byte("being writ"))
	for _, name := range []string{".1", ".0000000000001", ".+00000000001", ".00000000000x", ".000000000000", ".torn-20260101T000000.000Z", ".next", ".webhook-1.ack"} {
		write(t, file+name, []byte("not a segment"))
	}
	got, err := follow(t, file, FollowOptions{})
	wantAll(t, got, err, 1, 4)
}

func TestFollowCountsRecordsWithoutASeq(t *testing.T) {
	file := write(t, logFile(t), slices.Concat(unnumbered(3), numbered(4, 5)))
	for _, from := range []uint64{0, 2, 5} {
		got, err := follow(t, file, FollowOptions{From: from})
		wantAll(t, got, err, max(from, 1), 5)
	}
	rotate(t, file, 1, numbered(6, 6))
	got, err := follow(t, file, FollowOptions{From: 3})
	wantAll(t, got, err, 3, 6)
}

func TestFollowFindsItsPlaceInALargeFile(t *testing.T) {
	const n = 20_000
	for name, b := range map[string][]byte{
		"numbered":        numbered(1, n),
		"the library's":   unnumbered(n),
		"begun by it":     slices.Concat(unnumbered(n/2), numbered(n/2+1, n)),
		"with a long one": slices.Concat(numbered(1, n-1), []byte(record("s", fmt.Sprintf(`"detail":"%s","seq":%d`, strings.Repeat("x", maxLine/2), n), "null")+"\n")),
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, logFile(t), b)
			for _, from := range []uint64{2, n / 2, n/2 + 1, n - 1, n} {
				got, err := follow(t, file, FollowOptions{From: from})
				if !errors.Is(err, errScriptEnds) || len(got) != int(n-from+1) || got[0] != from || got[len(got)-1] != n {
					t.Errorf("from %d: %d records, %v", from, len(got), err)
				}
			}
			first, last, err := Span(file)
			if first != 1 || last != n || err != nil {
				t.Errorf("span %d to %d, %v", first, last, err)
			}
		})
	}
	// It is found without a reading of all that is before it.
	f, err := openReader(write(t, logFile(t), numbered(1, n)))
	check(t, err)
	defer f.close()
	check(t, f.begins())
	check(t, f.seek(n/2))
	if f.pos >= n/2 || f.pos < n/2-5000 {
		t.Errorf("seek to %d stopped at %d", n/2, f.pos)
	}
}

func TestFollowLeavesForLaterWhatIsNotCommitted(t *testing.T) {
	taken := bytes.ReplaceAll(numbered(3, 4), []byte("h"), []byte("taken back"))
	file, committed := write(t, logFile(t), append(numbered(1, 2), taken...)), uint64(2)
	two := int64(len(numbered(1, 2)))
	got, err := follow(t, file, FollowOptions{Committed: func() uint64 { return committed }},
		func() { check(t, os.Truncate(file, two)) }, // out of room: the batch is cut back
		func() { appendTo(t, file, numbered(3, 5)) },
		func() { committed = 5 })
	wantAll(t, got, err, 1, 5)
}

// TestFollowReadsAnewWhatWasTakenBackWhileItWasBusy has a batch written, taken
// back and written otherwise while the last record before it is looked at.
func TestFollowReadsAnewWhatWasTakenBackWhileItWasBusy(t *testing.T) {
	path, committed := logFile(t), uint64(3)
	appendTo(t, path, numbered(1, 3))
	size := len(contents(t, path))
	appendTo(t, path, bytes.ReplaceAll(numbered(4, 6), []byte(`:"h`), []byte(`:"taken-back-`)))
	var got bytes.Buffer
	err := Follow(t.Context(), path, FollowOptions{
		Committed: func() uint64 { return committed }, Poll: time.Nanosecond, Idle: func() error { return errScriptEnds },
	}, func(e *Entry) error {
		if got.Write(append(e.Raw, '\n')); e.Seq == 3 {
			check(t, os.Truncate(path, int64(size)))
			appendTo(t, path, numbered(4, 8))
			committed = 8
		}
		return nil
	})
	if want := numbered(1, 8); !errors.Is(err, errScriptEnds) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%v\nread %s\nwant %s", err, got.Bytes(), want)
	}
}

func TestFollowSaysThatASegmentIsGone(t *testing.T) {
	gap := func(t *testing.T, err error, first, last uint64) {
		t.Helper()
		var g *Gap
		if !errors.As(err, &g) || g.First != first || g.Last != last {
			t.Fatalf("%v, want a gap from %d to %d", err, first, last)
		}
		wantErr(t, err, "are gone", g.Log)
	}
	file := write(t, logFile(t), numbered(9, 9))
	_, err := follow(t, file, FollowOptions{From: 3})
	gap(t, err, 3, 8)
	write(t, segmentName(file, 5), numbered(5, 8))
	_, err = follow(t, file, FollowOptions{From: 1})
	gap(t, err, 1, 4)

	// Behind the oldest: one in the middle, the last, and while it is read.
	write(t, segmentName(file, 1), numbered(1, 2))
	got, err := follow(t, file, FollowOptions{})
	gap(t, err, 3, 4)
	if len(got) != 2 {
		t.Errorf("read %v before it", got)
	}
	check(t, os.Remove(segmentName(file, 5)))
	_, err = follow(t, file, FollowOptions{From: 2})
	gap(t, err, 3, 8)
	_, err = follow(t, file, FollowOptions{From: 9}, func() {
		rotate(t, file, 9, numbered(10, 10))
		rotate(t, file, 10, numbered(11, 11))
		check(t, os.Remove(segmentName(file, 10)))
	})
	gap(t, err, 10, 10)
}

func TestFollowSaysWhatHappenedToTheFile(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(file string)
		want string
	}{
		{"cut", func(file string) { check(t, os.Truncate(file, 10)) }, "it was cut while it was read"},
		{"deleted", func(file string) { check(t, os.Remove(file)) }, "moved away or deleted"},
		{"replaced by another log", func(file string) {
			write(t, file+".new", numbered(1, 1))
			check(t, os.Rename(file+".new", file))
		}, "the log was replaced by another one"},
		{"overwritten in place", func(file string) { write(t, file, numbered(2, 9)) }, "records were removed, or the file was replaced"},
		{"a record left out", func(file string) { appendTo(t, file, numbered(7, 7)) }, "payload.seq is 7 where record 4 must stand"},
		{"no record", func(file string) { appendTo(t, file, []byte("{}\n")) }, "line 4"},
		{"an endless line", func(file string) { appendTo(t, file, append(bytes.Repeat([]byte("x"), maxLine+1), '\n')) }, "longer than"},
		{"its place taken by a directory", func(file string) {
			check(t, errors.Join(os.Remove(file), os.Mkdir(file, 0o700)))
		}, "not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, logFile(t), numbered(1, 3))
			_, err := follow(t, file, FollowOptions{}, func() { c.do(file) }, func() {})
			wantErr(t, err, c.want)
		})
	}
}

func TestFollowWaitsForALogThatHasNoRecordYet(t *testing.T) {
	file := write(t, logFile(t), nil)
	if first, last, err := Span(file); first != 0 || last != 0 || err != nil {
		t.Fatal(first, last, err)
	}
	got, err := follow(t, file, FollowOptions{From: 1}, func() { appendTo(t, file, numbered(1, 2)) })
	wantAll(t, got, err, 1, 2)

	// One whose active file has none, though segments have: it is not lost.
	write(t, file, nil)
	write(t, segmentName(file, 1), numbered(1, 2))
	if first, last, err := Span(file); first != 1 || last != 2 || err != nil {
		t.Fatal(first, last, err)
	}
	got, err = follow(t, file, FollowOptions{}, func() {}, func() { appendTo(t, file, numbered(3, 3)) })
	wantAll(t, got, err, 1, 3)
}

func TestFollowRefusesWhatIsNoLog(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	check(t, syscall.Mkfifo(fifo, 0o600))
	file := func(name string, b []byte) string { return write(t, filepath.Join(dir, name), b) }
	badSeq := []byte(record("s", `"seq":0`, "null") + "\n")
	for _, c := range []struct{ file, want string }{
		{filepath.Join(dir, "missing"), "no such file"},
		{dir, "not a regular file"},
		{fifo, "not a regular file"},
		{file("text", []byte("hello\nworld\n")), "line 1"},
		{file("seq", badSeq), "payload.seq is not a count"},
		{file("badzip", []byte("\x1f\x8bnot gzip at all")), "gzip"},
		{file("cutzip", zipped(t, numbered(1, 3))[:80]), "unexpected EOF"},
		{file("halfzip", zipped(t, []byte(`{"agent`))), "the middle of a record"},
	} {
		_, err := follow(t, c.file, FollowOptions{})
		wantErr(t, err, c.want)
		_, _, err = Span(c.file)
		wantErr(t, err, c.want)
	}
	if _, err := follow(t, filepath.Join(dir, "missing"), FollowOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// An active file that somebody compressed is read, and then nothing comes.
	got, err := follow(t, file("zip", zipped(t, numbered(1, 3))), FollowOptions{From: 2}, func() {})
	wantAll(t, got, err, 2, 3)
}

func TestSpanOfALogInPieces(t *testing.T) {
	file := write(t, logFile(t), append(numbered(9, 11), "half a li"...))
	write(t, segmentName(file, 4), zipped(t, numbered(4, 8)))
	span := func(first, last uint64, words ...string) {
		t.Helper()
		a, b, err := Span(file)
		if len(words) > 0 {
			wantErr(t, err, words...)
		} else if a != first || b != last || err != nil {
			t.Errorf("%d to %d, %v", a, b, err)
		}
	}
	span(4, 11)
	write(t, file, zipped(t, numbered(9, 10)))
	span(4, 10)
	write(t, file, nil)
	span(4, 8)
	write(t, segmentName(file, 9), []byte("half a line"))
	span(0, 0, "has no record")
	write(t, file, append(numbered(12, 12), "{}\n"...))
	span(0, 0, "the last record of")
	write(t, file, append(numbered(12, 12), bytes.Repeat([]byte("0"), 3*maxLine)...))
	span(4, 12) // a power cut leaves blocks of zeros
}

func TestFollowEndsWithItsCallersErrorsAndContext(t *testing.T) {
	file, stop := write(t, logFile(t), numbered(1, 3)), errors.New("stop")
	err := Follow(t.Context(), file, FollowOptions{}, func(*Entry) error { return stop })
	if !errors.Is(err, stop) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err = Follow(ctx, file, FollowOptions{}, func(*Entry) error { n++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Error(n, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	wake, rounds := make(chan struct{}, 1), 0
	err = Follow(ctx, file, FollowOptions{Wake: wake, Poll: time.Hour, Idle: func() error {
		if rounds++; rounds == 3 {
			cancel()
		}
		wake <- struct{}{}
		return nil
	}}, func(*Entry) error { return nil })
	if !errors.Is(err, context.Canceled) || rounds < 3 {
		t.Error(rounds, err)
	}
}

// A writer that rotates all the time, compresses what it rotated out, and
// removes what has been read.
func TestFollowKeepsUpWithAWriterThatRotates(t *testing.T) {
	const n, each = 3000, 7
	file := write(t, logFile(t), numbered(1, 1))
	read := make(chan uint64, n)
	wrote := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(wrote)
		defer func() {
			if t.Failed() {
				cancel()
			}
		}()
		for first, next := uint64(1), 2; next <= n; next++ {
			if next%each == 0 {
				rotate(t, file, first, numbered(next, next))
				old := segmentName(file, first)
				write(t, old+".tmp", zipped(t, contents(t, old)))
				check(t, errors.Join(os.Rename(old+".tmp", old+".gz"), os.Remove(old)))
				first = uint64(next)
			} else {
				appendTo(t, file, numbered(next, next))
			}
			for next%500 == 0 && <-read < uint64(next-100) {
			}
			if next%500 == 0 {
				for s := range uint64(next - 200) {
					_ = os.Remove(segmentName(file, s) + ".gz") // most were never there
				}
			}
		}
	}()
	want, stop := uint64(1), errors.New("stop")
	err := Follow(ctx, file, FollowOptions{Poll: time.Microsecond}, func(e *Entry) error {
		if e.Seq != want {
			return fmt.Errorf("record %d where %d comes next", e.Seq, want)
		}
		want++
		read <- e.Seq
		if e.Seq == n {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	<-wrote
}

func TestFollowReadsTheEnginesOwnRotations(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}})
	requests(t, l, 1, 20)
	got, err := follow(t, file, FollowOptions{Committed: func() uint64 { return l.Stats().Seq }},
		func() { requests(t, l, 21, 40) }, func() { requests(t, l, 61, 20); closeLog(t, l) })
	wantAll(t, got, err, 1, l.Stats().Seq)
	all, err := Segments(file)
	if err != nil || len(all) < 5 || l.Stats().Seq < 160 {
		t.Errorf("%d segments, %d records, %v", len(all), l.Stats().Seq, err)
	}
}

func TestFollowAllocatesNothingForARecordThatIsNotDecoded(t *testing.T) {
	const n = 2000
	file := write(t, logFile(t), numbered(1, n))
	read := func(raw bool) float64 {
		return testing.AllocsPerRun(3, func() {
			last := uint64(0)
			err := Follow(t.Context(), file, FollowOptions{RawOnly: raw, Idle: func() error { return errScriptEnds }}, func(e *Entry) error {
				if raw != (e.Host == "") || len(e.Raw) == 0 || e.Seq != last+1 || e.Line != int64(e.Seq) {
					t.Errorf("%+v", e)
				}
				last = e.Seq
				return nil
			})
			if !errors.Is(err, errScriptEnds) || last != n {
				t.Error(last, err)
			}
		})
	}
	if a, b := read(true), read(false); a > n/10 || b < n {
		t.Errorf("%v allocations for %d records, decoded %v", a, n, b)
	}
}
