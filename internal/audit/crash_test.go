package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestL05KilledAtEveryByteOfAWrite cuts a log at every offset of its last two
// records, starts on it, and verifies what comes of it.
func TestL05KilledAtEveryByteOfAWrite(t *testing.T) {
	wall, file := newClock(), logFile(t)
	l := open(t, Config{File: file, Now: wall.now})
	for id := range uint64(3) {
		mustDecide(t, l, id+1)
	}
	whole := contents(t, file)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1]
	last := len(lines) - 1
	first := len(whole) - len(lines[last]) - len(lines[last-1])
	dir := t.TempDir()
	for cut := first; cut <= len(whole); cut++ {
		name := write(t, filepath.Join(dir, "audit.jsonl"), whole[:cut])
		l, err := Open(Config{File: name, Now: wall.now, fs: &faultFS{memory: true}})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		mustDecide(t, l, 9)
		closeLog(t, l)
		rep := verified(t, name)
		keep := whole[:bytes.LastIndexByte(whole[:cut], '\n')+1]
		if !bytes.HasPrefix(contents(t, name), keep) {
			t.Fatalf("cut at %d: whole records were lost", cut)
		}
		n := int64(bytes.Count(keep, []byte("\n")))
		if rep.Records != n+3 {
			t.Fatalf("cut at %d: %d records, want %d", cut, rep.Records, n+3)
		}
		torn, _ := filepath.Glob(name + ".torn-*")
		start := entries(t, name)[n]
		if len(keep) == cut {
			if len(torn) != 0 || bytes.Contains(start.Raw, []byte(`"torn"`)) {
				t.Fatalf("cut at %d, between records: %v", cut, torn)
			}
		} else {
			if len(torn) != 1 || !bytes.Equal(contents(t, torn[0]), whole[len(keep):cut]) {
				t.Fatalf("cut at %d: kept %v", cut, torn)
			}
			if !bytes.Contains(start.Raw, []byte(`"file":"`+filepath.Base(torn[0])+`"`)) {
				t.Fatalf("cut at %d: not recorded: %s", cut, start.Raw)
			}
			check(t, os.Remove(torn[0]))
		}
		check(t, os.Remove(name))
	}
}

func TestL05ATailOfZerosIsTornWhateverItsLength(t *testing.T) {
	for _, n := range []int{1, 4096, maxLine, 3 * maxLine} {
		file := logFile(t)
		closeLog(t, open(t, Config{File: file}))
		whole := contents(t, file)
		write(t, file, append(bytes.Clone(whole), make([]byte, n)...))
		damaged(t, "ends in the middle of a record", 3, file)
		closeLog(t, open(t, Config{File: file}))
		verified(t, file)
		torn, _ := filepath.Glob(file + ".torn-*")
		if len(torn) != 1 || len(contents(t, torn[0])) != n || !bytes.HasPrefix(contents(t, file), whole) {
			t.Fatalf("%d zeros: %v", n, torn)
		}
	}
}

func TestL05DamageFurtherInRefusesTheStart(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	mustDecide(t, l, 1)
	mustDecide(t, l, 2)
	closeLog(t, l)
	whole := contents(t, file)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for _, row := range []struct {
		name string
		data []byte
	}{
		{"a byte changed in the middle", bytes.Replace(whole, []byte("api.example.com"), []byte("apj.example.com"), 1)},
		{"a byte changed in the last record", bytes.Replace(whole, []byte("engine_shutdown"), []byte("engine_shutdowm"), 1)},
		{"a record removed", bytes.Join([][]byte{lines[0], lines[2], lines[3]}, nil)},
		{"the first record removed", bytes.Join(lines[1:], nil)},
		{"an empty line", append(bytes.Clone(whole), '\n')},
		{"a line too long", append(bytes.Repeat([]byte("x"), 2*maxLine), "\n"...)},
	} {
		write(t, file, row.data)
		_, err := Open(Config{File: file})
		if err == nil {
			t.Fatalf("%s: started", row.name)
		}
		wantErr(t, err, "damaged and is not continued", "keep the file as evidence")
		if !bytes.Equal(contents(t, file), row.data) {
			t.Fatalf("%s: the file was changed", row.name)
		}
	}
}

func TestL05ATornFileThatIsThereAlreadyIsNotOverwritten(t *testing.T) {
	wall, file := newClock(), logFile(t)
	for n := range 3 {
		write(t, file, []byte(strings.Repeat("x", n+1)))
		closeLog(t, open(t, Config{File: file, Now: wall.now}))
		check(t, os.Remove(file))
	}
	torn, _ := filepath.Glob(file + ".torn-*")
	if len(torn) != 3 {
		t.Fatalf("kept %v", torn)
	}
	for n, name := range torn {
		if len(contents(t, name)) != n+1 {
			t.Errorf("%s has %d bytes", name, len(contents(t, name)))
		}
	}
}

// TestL05ACutThatNoRecordNamesIsRecorded has the file that a start left which
// was killed between cutting and recording it, beside files that are none.
func TestL05ACutThatNoRecordNamesIsRecorded(t *testing.T) {
	file := logFile(t)
	closeLog(t, open(t, Config{File: file}))
	write(t, file+".torn-000000000002-20260515T094211.123Z", []byte("cut"))
	write(t, file+".torn-000000000002-20260515T094211.123Z-2", []byte("again"))
	for _, other := range []string{".torn-20260515T094211.123Z", ".torn-00000000000x-1", ".torn-000000000002", ".torn", "x.torn-000000000002-1"} {
		write(t, file+other, []byte("other"))
	}
	for range 2 { // once
		closeLog(t, open(t, Config{File: file}))
	}
	verified(t, file)
	log := contents(t, file)
	for _, says := range []string{`"torn":{"bytes":3,"file":"` + filepath.Base(file), `"torn":{"bytes":5,"file":"` + filepath.Base(file)} {
		if bytes.Count(log, []byte(says)) != 1 {
			t.Errorf("%s stands there %d times", says, bytes.Count(log, []byte(says)))
		}
	}
	if n := bytes.Count(log, []byte(`"torn"`)); n != 2 {
		t.Errorf("%d cuts are recorded", n)
	}
	fsys := &faultFS{}
	for _, op := range []string{"list", "read"} {
		fsys.fault(op, syscall.EIO)
		write(t, file+".torn-000000000002-20270515T094211.123Z", []byte("more"))
		_, err := Open(Config{File: file, fs: fsys})
		wantErr(t, err, "input/output error")
		fsys.fault(op, nil)
	}
}

func TestALogOfTheLibraryIsContinued(t *testing.T) {
	file := write(t, logFile(t), contents(t, "testdata/stock.jsonl"))
	check(t, os.Chmod(file, 0o644)) //nolint:gosec // that it is open to others is the case under test
	l := open(t, Config{File: file})
	if rc := mustDecide(t, l, 1); rc.Seq() != 10 {
		t.Fatalf("seq %d behind the library's eight records and the start", rc.Seq())
	}
	closeLog(t, l)
	if rep := verified(t, file); rep.Records != 11 || rep.Events["llm_call"] != 8 {
		t.Fatalf("%+v", rep)
	}
}

func TestL05TheStartIsRecordedInAnyTimeFormat(t *testing.T) {
	var l line
	raw := contents(t, "testdata/stock.jsonl")
	check(t, l.parse(raw[:bytes.IndexByte(raw, '\n')]))
	var e Entry
	e.decode(nil, &l)
	if e.Time != (time.Date(2026, 5, 15, 9, 42, 10, 123e6, time.UTC)) {
		t.Fatal(e.Time)
	}
}
