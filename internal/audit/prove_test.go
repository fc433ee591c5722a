package audit

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

func TestEveryRecordThatACheckpointCoversCanBeProven(t *testing.T) {
	w := witnessLog(t, 12, Config{Rotate: Rotation{Size: 8 << 10}})
	v := trusted(t, w.s)
	all := files(t, w.file)
	var records []string
	starts := make([]uint64, len(all)) // the first record of each file
	for i, name := range all {
		starts[i] = uint64(len(records)) + 1
		records = append(records, lines(t, name)...)
	}
	newest := w.sizes[len(w.sizes)-1]
	for seq := uint64(1); seq <= newest; seq++ {
		for from, start := range starts {
			p, err := Prove(all[from:], seq, VerifyOptions{Keys: v})
			if seq < start {
				wantErr(t, err, fmt.Sprintf("record %d", seq), "give the earlier segments too")
				continue
			}
			check(t, err)
			b := p.Marshal()
			if len(b) >= 2048 {
				t.Fatalf("record %d: a proof of %d bytes", seq, len(b))
			}
			// The record alone, and the log that has it.
			alone := write(t, logFile(t), []byte(records[seq-1]+"\n"))
			for _, names := range [][]string{{alone}, all[from:], all} {
				found, err := VerifyProof(names, b, VerifyOptions{Keys: v})
				check(t, err)
				if found.Seq != seq || !found.Authenticated || found.Checkpoint.Size != newest || found.Event == "" || found.TS == "" {
					t.Fatalf("%+v", found)
				}
			}
		}
	}
	for _, seq := range []uint64{newest + 1, newest + 2} {
		_, err := Prove(all, seq, VerifyOptions{})
		if seq == newest+1 {
			wantErr(t, err, fmt.Sprintf("no checkpoint is over record %d yet, the newest is over %d", seq, newest))
		} else {
			wantErr(t, err, fmt.Sprintf("the log ends with record %d, before record %d", newest+1, seq))
		}
	}
	_, err := Prove(all, 0, VerifyOptions{})
	wantErr(t, err, "counted from 1")
	_, err = Prove([]string{w.file + "x"}, 1, VerifyOptions{})
	wantErr(t, err, "no such file")
}

func TestAProofIsUnderTheNewestCheckpointOfATrustedKey(t *testing.T) {
	w := witnessLog(t, 9, Config{})
	all := lines(t, w.file)
	thief := signer(t)
	from := int(w.sizes[2]) + 1 // the line that has the third checkpoint
	mixed := write(t, logFile(t), forgery{by: thief, from: from}.of(t, all))
	newest := func(v checkpoint.Verifiers) uint64 {
		t.Helper()
		p, err := Prove([]string{mixed}, 3, VerifyOptions{Keys: v})
		check(t, err)
		c, _, err := checkpoint.Open(p.Note, v)
		check(t, err)
		return c.Size
	}
	if got := newest(checkpoint.Verifiers{}); got != w.sizes[len(w.sizes)-1] {
		t.Errorf("without a key: under the checkpoint over %d", got)
	}
	if got := newest(trusted(t, w.s)); got != w.sizes[1] {
		t.Errorf("with the key: under the checkpoint over %d", got)
	}
	_, err := Prove([]string{mixed}, w.sizes[1]+1, VerifyOptions{Keys: trusted(t, w.s)})
	wantUnauthenticated(t, err, fmt.Sprintf("line %d", from))

	unsigned := logFile(t)
	closeLog(t, open(t, Config{File: unsigned}))
	_, err = Prove([]string{unsigned}, 1, VerifyOptions{})
	wantErr(t, err, "the log has no checkpoint")

	// A record that is being written does no harm, any other damage does.
	torn := write(t, logFile(t), append(contents(t, w.file), `{"agent_`...))
	if _, err := Prove([]string{torn}, 3, VerifyOptions{}); err != nil {
		t.Error(err)
	}
	changed := bytes.Replace(contents(t, w.file), []byte("engine_shutdown"), []byte("engine_shutdowm"), 1)
	_, err = Prove([]string{write(t, logFile(t), changed)}, 3, VerifyOptions{})
	wantErr(t, err, "record was changed")
}

func TestAProofDoesNotHoldForAnythingElse(t *testing.T) {
	w := witnessLog(t, 6, Config{})
	all := lines(t, w.file)
	proof, err := Prove([]string{w.file}, 5, VerifyOptions{})
	check(t, err)
	b := proof.Marshal()
	verify := func(content string, b []byte, v checkpoint.Verifiers) error {
		_, err := VerifyProof([]string{"-"}, b, VerifyOptions{Keys: v, Stdin: strings.NewReader(content)})
		return err
	}
	none := checkpoint.Verifiers{}
	check(t, verify(all[4]+"\n", b, none))
	wantErr(t, verify(all[3]+"\n", b, none), "none of the files has record 5")
	wantErr(t, verify("", b, none), "none of the files has record 5")
	wantErr(t, verify("hello\n", b, none), "line 1")
	wantErr(t, verify(strings.Replace(all[4], `"port":443`, `"port":444`, 1)+"\n", b, none), "the record was changed")
	wantErr(t, verify(rehash(t, strings.Replace(all[4], `"port":443`, `"port":444`, 1))+"\n", b, none), "the record, the proof or the checkpoint was changed")
	wantUnauthenticated(t, verify(all[4]+"\n", b, trusted(t, signer(t))), "is not signed by a key that was given")
	wantErr(t, verify(all[4]+"\n", b[:len(b)-9], none), "reading a proof")
	wantErr(t, verify(all[4]+"\n", b[1:], none), "reading a proof")
	_, err = VerifyProof([]string{w.file + "x"}, b, VerifyOptions{})
	wantErr(t, err, "looking for the record", "no such file")
	for i := range b {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if verify(all[4]+"\n", changed, trusted(t, w.s)) == nil {
			t.Fatalf("byte %d changed and the proof holds", i)
		}
	}
	if _, err := VerifyProof([]string{"-"}, b, VerifyOptions{Stdin: strings.NewReader(all[4] + "\n")}); err != nil {
		t.Error(err)
	}
}

func TestRecordsOfTheLibraryAreProvenByTheirPlace(t *testing.T) {
	s := signer(t)
	file := write(t, logFile(t), contents(t, "testdata/library.jsonl"))
	n := len(lines(t, file))
	if slices.ContainsFunc(lines(t, file), func(line string) bool { return strings.Contains(line, `"seq"`) }) {
		t.Fatal("the library's records have numbers")
	}
	closeLog(t, open(t, Config{File: file, Key: key(s)}))
	for seq := range uint64(n) {
		p, err := Prove([]string{file}, seq+1, VerifyOptions{Keys: trusted(t, s)})
		check(t, err)
		found, err := VerifyProof([]string{file}, p.Marshal(), VerifyOptions{Keys: trusted(t, s)})
		check(t, err)
		alone := write(t, logFile(t), []byte(lines(t, file)[seq]+"\n"))
		if again, err := VerifyProof([]string{alone}, p.Marshal(), VerifyOptions{}); err != nil || again.TS != found.TS || found.Seq != seq+1 {
			t.Fatalf("%+v and %+v, %v", found, again, err)
		}
		if _, err := VerifyProof([]string{os.DevNull}, p.Marshal(), VerifyOptions{}); err == nil {
			t.Fatal("nothing is proven")
		}
	}
}
