package audit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest/race"
)

// witness is what those outside know of a log: the requests whose decision was
// acknowledged, and the last checkpoint that was published.
type witness struct {
	acked []uint64
	known *checkpoint.Checkpoint
}

// modelled is the log of the tests on a model of a disk: small files, so that a
// life has rotations in it, and no clock that would write by itself.
func modelled(t testing.TB, d *disk, s *checkpoint.Signer, w *witness, o Durability) Config {
	t.Helper()
	return Config{
		File: "/log/audit.jsonl", fs: d, Key: key(s), Durability: o, Rotate: Rotation{Size: 4 << 10}, CheckpointEvery: time.Hour,
		Refusals: RefusalLimits{Window: time.Hour}, Now: newClock().now,
		OnCheckpoint: func(_ uint64, note []byte) {
			c, _, err := checkpoint.Open(note, checkpoint.Verifiers{})
			if err != nil {
				t.Error(err)
			}
			w.known = &c
		},
	}
}

// live is the life of an engine: a start, requests, a checkpoint, an end. It
// stops at the first error.
func live(c Config, from uint64, w *witness) error {
	l, err := Open(c)
	if err != nil {
		return err
	}
	for id := from; id < from+6; id++ {
		if id == from+3 {
			l.checkpointTick()
		}
		if _, err := l.Decide(decision(id)); err != nil {
			_ = l.Close()
			return err
		}
		w.acked = append(w.acked, id)
		if err := l.Complete(completion(id)); err != nil {
			_ = l.Close()
			return err
		}
	}
	return l.Close()
}

// TestL05ACrashAtEveryOperation stops an engine at each operation of its life
// that changes the disk, with each write done in part, kills it or cuts the
// power, and starts another one on what is left. Whatever was acknowledged is
// there, the chain and its checkpoints verify, and what was published outside is
// continued.
func TestL05ACrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	s := signer(t)
	for _, durability := range []Durability{Written, Strict} {
		for _, before := range beginnings(t, s) {
			t.Run(durability.String()+" on "+before.name, func(t *testing.T) {
				first := before.disk.killed()
				w := before.known
				check(t, live(modelled(t, first, s, &w, durability), 100, &w))
				if first.steps < 20 {
					t.Fatalf("only %d operations", first.steps)
				}
				for n := 1; n <= first.steps; n += race.Step(9) {
					for _, part := range []int{0, 60} { // all of it: the state before the next operation
						d := before.disk.killed()
						d.crash, d.part = n, part
						w := witness{acked: slices.Clone(before.known.acked), known: before.known.known}
						if live(modelled(t, d, s, &w, durability), 100, &w) == nil {
							t.Fatalf("operation %d of %d did not fail", n, first.steps)
						}
						what := fmt.Sprintf("stopped at operation %d, %d%% of it done", n, part)
						survives(t, what+", killed", d.killed(), s, w, durability, true)
						for _, keep := range []int{0, 50} {
							survives(t, fmt.Sprintf("%s, power cut, %d%% of what was not synced is there", what, keep),
								d.unplugged(keep), s, w, durability, durability == Strict)
						}
						if !d.wrote {
							break // it is no write that could be done in part
						}
					}
				}
			})
		}
	}
}

// TestL04AnErrorAtEveryOperation fails each operation of a life once, with a
// full disk and with an I/O error, and goes on. Nobody is told of a record that
// is not there in the end, the log takes records again by itself, and the chain
// verifies.
func TestL04AnErrorAtEveryOperation(t *testing.T) {
	t.Parallel()
	s := signer(t)
	for _, row := range []struct {
		name       string
		fault      error
		durability Durability
		lossy      bool
	}{
		{"a full disk", syscall.ENOSPC, Written, false},
		{"an I/O error, strict", syscall.EIO, Strict, false},
		{"an I/O error that loses what was not synced, strict", syscall.EIO, Strict, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, before := range beginnings(t, s) {
				for n, last := 1, false; !last; n += race.Step(9) {
					w := witness{acked: slices.Clone(before.known.acked), known: before.known.known}
					d := before.disk.killed()
					d.crash, d.part, d.fault, d.lossy = n, 60, row.fault, row.lossy
					what := fmt.Sprintf("on %s, operation %d", before.name, n)
					stubborn(t, what, modelled(t, d, s, &w, row.durability), &w)
					last = d.steps < n // beyond the end of a life: nothing failed
					survives(t, what, d.killed(), s, w, row.durability, true)
					survives(t, what+", power cut", d.unplugged(0), s, w, row.durability, row.durability == Strict)
				}
			}
		})
	}
}

// stubborn is a life whose engine is started again when a start fails, and asked
// again when a request is refused. It must take requests in the end.
func stubborn(t *testing.T, what string, c Config, w *witness) {
	t.Helper()
	wall := newClock()
	c.Now = wall.now
	l, err := Open(c)
	if err != nil {
		if l, err = Open(c); err != nil {
			t.Fatalf("%s: the second start: %v", what, err)
		}
	}
	refused := 0
	for id := uint64(100); id < 106; id++ {
		if id == 103 {
			l.checkpointTick()
		}
		if _, err := l.Decide(decision(id)); err != nil {
			if refused++; refused > 2 {
				t.Fatalf("%s: refused again and again: %v", what, err)
			}
			wall.add(mendEvery)
			continue
		}
		w.acked = append(w.acked, id)
		_ = l.Complete(completion(id)) // an error latches, and the next decision is refused
		wall.add(mendEvery)
	}
	for range 2 { // the first may be what fails
		l.tick()
		wall.add(mendEvery)
	}
	if err := l.Err(); err != nil {
		t.Fatalf("%s: still not ready: %v", what, err)
	}
	_ = l.Close() // where that fails, the next start has what is there
}

// survives starts an engine on what is left of a log and checks what must hold.
// all says that every record that was acknowledged must be there.
func survives(t *testing.T, what string, d *disk, s *checkpoint.Signer, w witness, o Durability, all bool) {
	t.Helper()
	c := modelled(t, d, s, &w, o)
	c.Anchored = w.known // whatever the durability: it was synced before it was published
	if err := live(c, 200, &w); err != nil {
		t.Fatalf("%s: the next start: %v", what, err)
	}
	if d.names[c.File+nextSuffix] != nil {
		t.Fatalf("%s: %s is left", what, c.File+nextSuffix)
	}
	whole, err := d.log(c.File)
	check(t, err)
	rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(whole)})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if rep.Records != int64(rep.LastSeq) {
		t.Fatalf("%s: %d records, the last is %d", what, rep.Records, rep.LastSeq)
	}
	for name, i := range d.names {
		if !strings.HasPrefix(name, c.File+tornSuffix) {
			continue
		}
		says := fmt.Sprintf(`"torn":{"bytes":%d,"file":"%s","sha256":"%x"}`, len(i.data), filepath.Base(name), sha256.Sum256(i.data))
		if !bytes.Contains(whole, []byte(says)) {
			t.Fatalf("%s: that %s was cut off is not recorded", what, name)
		}
	}
	if !all {
		return
	}
	there := map[string]bool{}
	check(t, Read(bytes.NewReader(whole), func(e *Entry) error {
		if e.Event == "egress_allowed" && e.Phase == "decision" {
			there[e.ID] = true
		}
		return nil
	}))
	for _, id := range w.acked {
		if !there[fmt.Sprintf("%016x", id)] {
			t.Fatalf("%s: the decision on request %d was acknowledged and is lost", what, id)
		}
	}
}

// TestL05SegmentsAreNotGoneWithoutARecord stops an engine at each operation of a
// life in which old segments are removed.
func TestL05SegmentsAreNotGoneWithoutARecord(t *testing.T) {
	s := signer(t)
	var w witness
	before := newDisk()
	for from := range uint64(4) {
		check(t, live(modelled(t, before, s, &w, Written), 10*from+1, &w))
	}
	keeping := func(d *disk) Config {
		c := modelled(t, d, s, new(witness), Written)
		c.Rotate.Keep, c.Rotate.Removable = 1, func() uint64 { return w.known.Size }
		return c
	}
	whole := before.killed()
	check(t, live(keeping(whole), 100, new(witness)))
	gone := 0
	for n := 1; n <= whole.steps; n += race.Step(3) {
		d := before.killed()
		d.crash = n
		_ = live(keeping(d), 100, new(witness))
		for _, left := range []*disk{d.killed(), d.unplugged(0), d.unplugged(50)} {
			c := modelled(t, left, s, new(witness), Written)
			check(t, live(c, 200, new(witness)))
			log, err := left.log(c.File)
			check(t, err)
			rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(log)})
			check(t, err)
			if rep.FirstSeq == 1 {
				continue
			}
			gone++
			recorded := uint64(0)
			check(t, Read(bytes.NewReader(log), func(e *Entry) error {
				if e.Reason == reasonRetention {
					_, err = fmt.Sscan(e.Detail[strings.LastIndexByte(e.Detail, ' ')+1:], &recorded)
				}
				return err
			}))
			if recorded < rep.FirstSeq-1 {
				t.Fatalf("stopped at operation %d: records before %d are gone, and it is recorded of those to %d", n, rep.FirstSeq, recorded)
			}
		}
	}
	if gone < 10/race.Step(3) {
		t.Fatalf("segments were gone %d times", gone)
	}
}

// beginning is a log as an engine finds it.
type beginning struct {
	name  string
	disk  *disk
	known witness
}

// beginnings returns disks with nothing, a log that was closed, one with a torn
// end, and one in the middle of a rotation, before its rename and behind it.
func beginnings(t *testing.T, s *checkpoint.Signer) []beginning {
	t.Helper()
	all := []beginning{{name: "an empty disk", disk: newDisk()}}
	var w witness
	closed := newDisk()
	c := modelled(t, closed, s, &w, Strict)
	check(t, live(c, 1, &w))
	all = append(all, beginning{"a log that was closed", closed, w})

	torn := closed.killed()
	f := torn.names[c.File]
	f.data = append(f.data, f.data[:300]...)
	f.synced = len(f.data)
	all = append(all, beginning{"a torn end", torn, w})

	var linked, renamed bool
	for n := 1; n < closed.steps && !renamed; n++ {
		d, w := newDisk(), witness{}
		d.crash = n
		if live(modelled(t, d, s, &w, Strict), 1, &w) == nil {
			t.Fatal("a life went on")
		}
		segment := d.names[segmentName(c.File, 1)]
		switch {
		case segment == nil:
		case segment == d.names[c.File] && !linked && d.names[c.File+nextSuffix] != nil:
			linked = true
			all = append(all, beginning{"a rotation before its rename", d.killed(), w})
		case segment != d.names[c.File]:
			renamed = true
			all = append(all, beginning{"a rotation that was just made", d.killed(), w})
		}
	}
	if !linked || !renamed {
		t.Fatal("no life ended in a rotation")
	}
	return all
}

// TestL05KilledAtEveryByteOfACheckpoint cuts logs that end with checkpoints,
// in one file and behind segments, at every offset of their last two records.
func TestL05KilledAtEveryByteOfACheckpoint(t *testing.T) {
	t.Parallel()
	s := signer(t)
	for name, size := range map[string]int64{"in one file": 1 << 20, "behind segments": 5 << 10, "behind a header": 1} {
		t.Run(name, func(t *testing.T) {
			var w witness
			whole := newDisk()
			c := modelled(t, whole, s, &w, Strict)
			c.Rotate.Size = size
			check(t, live(c, 1, &w))
			data := whole.names[c.File].data
			ends := []int{0}
			for i, b := range data {
				if b == '\n' {
					ends = append(ends, i+1)
				}
			}
			if n := len(ends) - 1; (n < 4) != (size == 1) {
				t.Fatalf("the file has %d records", n)
			}
			for cut := ends[max(len(ends)-3, 0)]; cut <= len(data); cut += race.Step(7) {
				d := whole.killed()
				i := d.names[c.File]
				i.data, i.synced = i.data[:cut], cut
				good := bytes.LastIndexByte(i.data, '\n') + 1
				if size == 1 && good == 0 {
					continue // that a header cannot be torn is another test's
				}
				again := modelled(t, d, s, new(witness), Strict)
				again.Rotate.Size = size
				l, err := Open(again)
				if err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				mustDecide(t, l, 9)
				closeLog(t, l)
				log, err := d.log(c.File)
				check(t, err)
				rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(log)})
				if err != nil || rep.Records != int64(rep.LastSeq) {
					t.Fatalf("cut at %d: %+v, %v", cut, rep, err)
				}
				before, err := whole.log(c.File)
				check(t, err)
				if keep := len(before) - len(data) + good; !bytes.HasPrefix(log, before[:keep]) {
					t.Fatalf("cut at %d: whole records were lost", cut)
				}
				kept := 0
				for name, i := range d.names {
					if strings.HasPrefix(name, c.File+".torn-") {
						kept += len(i.data)
					}
				}
				if kept != cut-good || (kept > 0) != bytes.Contains(log, []byte(`"torn":{"bytes":`)) {
					t.Fatalf("cut at %d: %d bytes are kept, want %d, and recorded", cut, kept, cut-good)
				}
			}
		})
	}
}

// TestL05ATornHeaderRefusesTheStart has a header that is torn, which a disk must
// have lied for: it was synced before it became the log. The start is refused
// and says what to do, which helps.
func TestL05ATornHeaderRefusesTheStart(t *testing.T) {
	file := logFile(t)
	c := Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}}
	l := open(t, c)
	requests(t, l, 1, 10)
	closeLog(t, l)
	all := files(t, file)
	last := all[len(all)-2]
	write(t, file, contents(t, file)[:200])
	_, err := Open(c)
	wantErr(t, err, "begins anew", "the last of them "+last, "put the missing file back")
	if torn, _ := filepath.Glob(file + ".torn-*"); len(torn) != 1 {
		t.Fatalf("kept %v", torn)
	}
	check(t, os.Rename(last, file))
	closeLog(t, open(t, c))
	verified(t, files(t, file)...)
}
