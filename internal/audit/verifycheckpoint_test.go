package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

func TestALogIsAuthenticatedUpToItsLastCheckpoint(t *testing.T) {
	w := witnessLog(t, 10, Config{})
	rep, err := w.against(nil, trusted(t, w.s), w.file)
	check(t, err)
	last := rep.LastSeq - 1
	if !rep.Authenticated || rep.Covered != last || rep.Checkpoints != 5 || rep.Signed != 5 || rep.CheckpointSize != last {
		t.Fatalf("%+v", rep)
	}
	wantReport(t, rep, "5 checkpoints, the last over records 1 to", fmt.Sprintf("authenticated: records 1 to %d", last), "nothing stands behind them but that checkpoint")

	// What an engine that died left behind its last checkpoint is not covered.
	all := lines(t, w.file)
	cut := write(t, logFile(t), []byte(strings.Join(all[:len(all)-3], "\n")+"\n"))
	rep, err = w.against(nil, trusted(t, w.s), cut)
	check(t, err)
	if behind := rep.LastSeq - rep.Covered; behind < 2 || !rep.Authenticated {
		t.Fatalf("%+v", rep)
	}
	wantReport(t, rep, fmt.Sprintf("not covered yet: %d records behind them", rep.LastSeq-rep.Covered))

	// Without a key, or without a signature, it is not.
	rep, err = w.against(nil, checkpoint.Verifiers{}, w.file)
	check(t, err)
	if rep.Authenticated || rep.Checkpoints != 5 || rep.Signed != 0 {
		t.Fatalf("%+v", rep)
	}
	wantReport(t, rep, "unauthenticated: no key was given", "signed it anew")
	unsigned := logFile(t)
	l := open(t, Config{File: unsigned})
	closeLog(t, l)
	wantReport(t, verified(t, unsigned), "unauthenticated: no record is signed")
	_, err = w.against(nil, trusted(t, w.s), unsigned)
	wantUnauthenticated(t, err, "no record of the log is signed")
}

func TestL06ACutEndShowsAgainstTheAnchor(t *testing.T) {
	w := witnessLog(t, 10, Config{})
	all := lines(t, w.file)
	newest := w.sizes[len(w.sizes)-1]
	for name, anchor := range map[string][]byte{"notes": w.anchor(), "captured output": captured(t, w.file)} {
		for k := range all {
			cut := write(t, logFile(t), []byte(strings.Join(all[:len(all)-k], "\n")+"\n"))
			if _, err := w.against(nil, trusted(t, w.s), cut); err != nil && k < len(all)-2 {
				t.Fatalf("the log alone, %d records less: %v", k, err)
			}
			rep, err := w.against(anchor, trusted(t, w.s), cut)
			left := uint64(len(all) - k)
			if left >= newest {
				if err != nil || rep.Anchored != int64(len(w.notes)) || rep.AnchorSize != newest {
					t.Fatalf("%s, %d records less: %+v, %v", name, k, rep, err)
				}
				continue
			}
			wantDamage(t, err, int64(left)+1, fmt.Sprintf("the last %d records that were anchored at ", newest-left), "the log's end was cut off")
		}
	}
	rep, err := w.against(w.anchor(), checkpoint.Verifiers{}, w.file)
	check(t, err)
	wantReport(t, rep, "anchor: 5 checkpoints agree with the log", "unauthenticated")
	if rep.Authenticated {
		t.Fatal("an anchor without a key authenticates")
	}

	empty := write(t, logFile(t), nil)
	_, err = w.against(w.anchor(), trusted(t, w.s), empty)
	wantDamage(t, err, 1, "are missing", "or it is another log")
}

func TestL07AWholeRewriteShowsAgainstTheAnchor(t *testing.T) {
	w := witnessLog(t, 10, Config{})
	thief := w.s // who has the key as well
	all := lines(t, w.file)
	for n := range all {
		forged := write(t, logFile(t), forgery{by: thief, change: func(i int, line string) string {
			if i == n+1 {
				return strings.Replace(line, `"principal":"`, `"principal":"x`, 1)
			}
			return line
		}}.of(t, all))
		if rep, err := w.against(nil, trusted(t, w.s), forged); err != nil || !rep.Authenticated {
			t.Fatalf("the forgery is not even consistent: %v", err)
		}
		// The first checkpoint that is over the changed record finds it.
		i, _ := slices.BinarySearch(w.sizes, uint64(n+1))
		_, err := w.against(w.anchor(), checkpoint.Verifiers{}, forged)
		if i == len(w.sizes) {
			check(t, err) // behind all that was anchored
			continue
		}
		words := []string{fmt.Sprintf("the log was rewritten: its first %d records are not those that were anchored at ", w.sizes[i])}
		if i > 0 {
			words = append(words, fmt.Sprintf("though the first %d are", w.sizes[i-1]))
		}
		wantDamage(t, err, int64(w.sizes[i]), words...)
	}

	// A fresh chain over the same requests, or over more.
	for _, n := range []uint64{10, 30} {
		fresh := witnessLog(t, n, Config{})
		_, err := w.against(w.anchor(), checkpoint.Verifiers{}, fresh.file)
		wantDamage(t, err, int64(w.sizes[0]), "the log was rewritten")
	}
	// A record less, and everything behind it made to fit.
	shorter := write(t, logFile(t), forgery{by: thief}.of(t, renumber(all, 5)))
	_, err := w.against(w.anchor(), checkpoint.Verifiers{}, shorter)
	wantDamage(t, err, int64(w.sizes[1]), "the log was rewritten")
}

func TestL07ARewriteUnderAnotherKeyIsNotAuthenticated(t *testing.T) {
	w := witnessLog(t, 10, Config{})
	thief := signer(t) // the name is the same, the key is not
	all := lines(t, w.file)
	forged := write(t, logFile(t), forgery{by: thief}.of(t, all))
	_, err := w.against(nil, trusted(t, w.s), forged)
	wantUnauthenticated(t, err, "line 2", "not signed by a key that was given", "signed anew")
	rep, err := w.against(nil, trusted(t, w.s, thief), forged)
	if err != nil || !rep.Authenticated {
		t.Fatalf("with the thief's key: %v", err)
	}
	// The first half is left as it was, and as it was signed.
	half := len(all) / 2
	for !noteMember.MatchString(all[half-1]) {
		half++
	}
	rep, err = w.against(nil, trusted(t, w.s), write(t, logFile(t), forgery{by: thief, from: half}.of(t, all)))
	wantUnauthenticated(t, err, fmt.Sprintf("line %d:", half), "is not signed by a key that was given")
	if !rep.Authenticated || rep.Covered >= uint64(half) {
		t.Fatalf("%+v", rep)
	}
	// Without checkpoints it is not signed at all.
	bare := write(t, logFile(t), forgery{change: func(_ int, line string) string { return noteMember.ReplaceAllString(line, `"checkpoin":1`) }}.of(t, all))
	_, err = w.against(nil, trusted(t, w.s), bare)
	wantUnauthenticated(t, err, "no record of the log is signed")
}

// renumber leaves line n (from 1) out.
func renumber(log []string, n int) []string {
	var out []string
	seq := regexp.MustCompile(`"seq":\d+`)
	for i, line := range log {
		if i+1 != n {
			out = append(out, seq.ReplaceAllString(line, fmt.Sprintf(`"seq":%d`, len(out)+1)))
		}
	}
	return out
}

// captured is what a platform collected of a pod: the checkpoints among other
// output, and an end that is cut off.
func captured(t testing.TB, file string) []byte {
	t.Helper()
	out := []byte("time=2026-05-15T09:42:11Z level=INFO msg=starting\n{\"level\":\"info\"}\n\n")
	for i, line := range lines(t, file) {
		if noteMember.MatchString(line) {
			if i > 4 {
				out = append(out, "2026-05-15T09:42:11.123456789Z stdout F "...) // as a node keeps it
			}
			out = append(append(out, line...), "\n{\"agent_identity\":\"not a record\"}\n"...)
		}
	}
	out = append(out, strings.Repeat("x", maxLine+1)+"\n"...)
	return append(out, `{"agent_identity":"aegra`...)
}

func TestAnAnchorThatSaysNothingIsRefused(t *testing.T) {
	w := witnessLog(t, 3, Config{})
	other := witnessLog(t, 3, Config{})
	private, err := checkpoint.Generate("another.test")
	check(t, err)
	stranger, err := checkpoint.NewSigner(private)
	check(t, err)
	theirs, err := stranger.Sign(checkpoint.Checkpoint{Size: 1, Session: "sess_1"})
	check(t, err)
	both := append(append(w.anchor(), '\n'), theirs...)
	try := func(anchor []byte, v checkpoint.Verifiers) (Report, error) { return w.against(anchor, v, w.file) }

	_, err = try([]byte(""), checkpoint.Verifiers{})
	wantErr(t, err, "the anchor has no checkpoint")
	_, err = try([]byte(`{"agent_identity":"x"}`+"\n"), checkpoint.Verifiers{})
	wantErr(t, err, "the anchor has no checkpoint")
	_, err = try([]byte("log.example\n7\n\n— a AAAA\n"), checkpoint.Verifiers{})
	wantErr(t, err, "the anchor: ", "checkpoint note")
	_, err = try(both, checkpoint.Verifiers{})
	wantErr(t, err, "of two logs, or of one whose key was changed", "--key")
	rep, err := try(both, trusted(t, w.s))
	check(t, err)
	if rep.AnchorForeign != 1 || rep.Anchored != int64(len(w.notes)) {
		t.Fatalf("%+v", rep)
	}
	wantReport(t, rep, "anchor: 1 checkpoints are not signed by a key that was given")
	_, err = try(other.anchor(), trusted(t, w.s))
	wantUnauthenticated(t, err, "none of them is signed")
	_, err = Verify([]string{w.file}, VerifyOptions{Anchor: iotest.ErrReader(os.ErrDeadlineExceeded)})
	wantErr(t, err, "reading the anchor")
	_, err = Verify([]string{w.file}, VerifyOptions{Anchor: iotest.TimeoutReader(iotest.HalfReader(bytes.NewReader(captured(t, w.file))))})
	wantErr(t, err, "the anchor")
	full := anchor{notes: make([]anchored, maxAnchored)}
	wantErr(t, full.take(theirs, checkpoint.Verifiers{}), "give the part since the last audit")
	broken := append([]byte(recordStart+"\"x\"}\n"), strings.Repeat("x", 2*sourceBuffer)...)
	err = eachCheckpoint(iotest.TimeoutReader(bytes.NewReader(broken)), nil)
	wantErr(t, err, "reading it")
}

func TestACheckpointThatDoesNotFitNamesItsLine(t *testing.T) {
	w := witnessLog(t, 4, Config{})
	all := lines(t, w.file)
	at := slices.IndexFunc(all[3:], noteMember.MatchString) + 3
	put := func(value string) string {
		changed := slices.Clone(all[:at])
		changed = append(changed, rehash(t, noteMember.ReplaceAllLiteralString(all[at], `"checkpoint":`+value)))
		return write(t, logFile(t), []byte(strings.Join(changed, "\n")+"\n"))
	}
	signed := func(change func(*checkpoint.Checkpoint)) string {
		c, _, err := checkpoint.Open(w.notes[1], checkpoint.Verifiers{})
		check(t, err)
		change(&c)
		msg, err := w.s.Sign(c)
		check(t, err)
		return `"` + string(appendEscaped(nil, msg)) + `"`
	}
	verified(t, put(signed(func(*checkpoint.Checkpoint) {})))
	for _, row := range []struct{ value, what string }{
		{signed(func(c *checkpoint.Checkpoint) { c.Size-- }), "payload.checkpoint is of"},
		{signed(func(c *checkpoint.Checkpoint) { c.Root[3] ^= 1 }), "other records than those before it"},
		{`"hello"`, "malformed"},
		{`7`, "payload.checkpoint"},
		{`[]`, "payload.checkpoint"},
	} {
		_, err := Verify([]string{put(row.value)}, VerifyOptions{})
		wantDamage(t, err, int64(at)+1, row.what)
	}
	// A false signature by the key that is trusted: that of another note.
	text, _, _ := strings.Cut(string(w.notes[1]), "\n\n")
	_, sigs, _ := strings.Cut(string(w.notes[0]), "\n\n")
	_, err := w.against(nil, trusted(t, w.s), put(`"`+string(appendEscaped(nil, text+"\n\n"+sigs))+`"`))
	wantDamage(t, err, int64(at)+1, "the signature by audit.test", "is false")
}

func TestSegmentsVerifyFromAnyOnCompressedOrNot(t *testing.T) {
	w := witnessLog(t, 60, Config{Rotate: Rotation{Size: 8 << 10}})
	all := files(t, w.file)
	if len(all) < 5 {
		t.Fatalf("%d files", len(all))
	}
	packed := make([]string, len(all))
	for i, name := range all {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(contents(t, name))
		check(t, errors.Join(err, z.Close()))
		packed[i] = write(t, filepath.Join(t.TempDir(), "segment"), b.Bytes())
	}
	whole, err := w.against(w.anchor(), trusted(t, w.s), all...)
	check(t, err)
	for from := range all {
		for _, names := range [][]string{all[from:], packed[from:], append(packed[from:from+1:from+1], all[from+1:]...)} {
			rep, err := w.against(w.anchor(), trusted(t, w.s), names...)
			check(t, err)
			if rep.Head != whole.Head || rep.LastSeq != whole.LastSeq || rep.Covered != whole.Covered || rep.Before != rep.FirstSeq-1 ||
				rep.Anchored+rep.AnchorBefore != int64(len(w.notes)) || (from == 0) != (rep.Before == 0) {
				t.Fatalf("from file %d: %+v", from, rep)
			}
			if from > 0 {
				wantReport(t, rep, fmt.Sprintf("records 1 to %d are in earlier segments, which were not given", rep.Before))
			}
			if rep.AnchorBefore > 0 {
				wantReport(t, rep, "are over earlier segments alone and were not compared")
			}
		}
	}
	// An anchor over exactly what stood before a header is compared.
	mid := entries(t, all[2])[0].Seq
	rep, err := w.against([]byte(entries(t, all[2])[0].Checkpoint), trusted(t, w.s), all[2])
	if err != nil || rep.Anchored != 1 || rep.AnchorSize != mid-1 || rep.AnchorBefore != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	// A header with another frontier, and the checkpoint made to fit.
	thief := signer(t)
	var tree checkpoint.Frontier
	for i := range mid - 1 {
		tree.Append(&checkpoint.Hash{byte(i)})
	}
	first := lines(t, all[2])[0]
	first = regexp.MustCompile(`"frontier":\[[^]]*\]`).ReplaceAllLiteralString(first, `"frontier":`+hexes(tree.Hashes(nil)))
	first = rehash(t, withNote(t, first, thief, checkpoint.Checkpoint{Size: mid - 1, Root: tree.Root(), Session: entries(t, all[2])[0].Session, Time: time.UnixMilli(1)}))
	forged := write(t, logFile(t), []byte(first+"\n"))
	verified(t, forged)
	_, err = w.against(nil, trusted(t, w.s), forged)
	wantUnauthenticated(t, err, "line 1")
	_, err = w.against([]byte(entries(t, all[2])[0].Checkpoint), checkpoint.Verifiers{}, forged)
	wantDamage(t, err, 1, "the log was rewritten")

	damaged(t, "files are given oldest first", 1, all[1], all[0])
	// Behind the right records it does not even stand.
	damaged(t, "payload.frontier is not that of the records before", 1, all[0], all[1], forged)

	broken := contents(t, packed[1])
	for name, b := range map[string][]byte{"changed": append(bytes.Clone(broken[:300]), append([]byte{broken[300] ^ 1}, broken[301:]...)...), "cut": broken[:len(broken)-9], "a header alone": broken[:3]} {
		if _, err := Verify([]string{packed[0], write(t, logFile(t), b)}, VerifyOptions{}); err == nil {
			t.Errorf("a compressed file that is %s verifies", name)
		}
	}
	piped, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(contents(t, packed[0]))})
	if err != nil || piped.Records == 0 {
		t.Fatalf("compressed on standard input: %v", err)
	}
}

func hexes(hashes []checkpoint.Hash) string {
	var list []string
	for _, h := range hashes {
		list = append(list, `"`+hex.EncodeToString(h[:])+`"`)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func TestL08VerifyNamesTheFirstStepOfTheClock(t *testing.T) {
	wall := newClock()
	file := logFile(t)
	l := open(t, Config{File: file, Now: wall.now, elapsed: func() time.Duration { return 0 }})
	wall.add(-time.Hour)
	mustDecide(t, l, 1)
	wall.add(365 * 24 * time.Hour)
	mustDecide(t, l, 2)
	mustDecide(t, l, 3)
	closeLog(t, l)
	rep := verified(t, file)
	if rep.ClockJumps != 2 || !strings.HasSuffix(rep.FirstJump, "line 2: by -1h0m0s") {
		t.Fatalf("%+v", rep)
	}
	wantReport(t, rep, "the clock was set 2 times, first at ", "the order of records is that of the file")
	// The library says nothing of it, and its ts goes back.
	a := record("s", "", "null")
	b := strings.Replace(record("s", "", hashOf(a)), "09:42:11.123Z", "09:41:11.123Z", 1)
	rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: strings.NewReader(a + "\n" + rehash(t, b) + "\n")})
	if err != nil || rep.ClockJumps != 1 || rep.FirstJump != "-: line 2: by -1m0s" {
		t.Fatalf("%+v, %v", rep, err)
	}
	odd := strings.Replace(record("s", "", hashOf(a)), "2026-05-15T09:42:11.123Z", "1999, in the summer time", 1)
	rep, err = Verify([]string{"-"}, VerifyOptions{Stdin: strings.NewReader(a + "\n" + rehash(t, odd) + "\n")})
	if err != nil || rep.FirstJump != "-: line 2: by 0s" {
		t.Fatalf("%+v, %v", rep, err)
	}
}

func TestL10WhatWasRunningAtACrashIsNamedInASignedLog(t *testing.T) {
	w := witnessLog(t, 4, Config{})
	all := lines(t, w.file)
	// It died behind a decision, the second record behind the last checkpoint.
	at := len(all) - 1
	for !strings.Contains(all[at], `"phase":"decision"`) {
		at--
	}
	crashed := write(t, logFile(t), []byte(strings.Join(all[:at+1], "\n")+"\n"))
	rep, err := w.against(nil, trusted(t, w.s), crashed)
	if err != nil || rep.Incomplete != 1 || !strings.HasSuffix(rep.IncompleteIDs[0], "/0000000000000004") || rep.Covered != rep.LastSeq-2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	wantReport(t, rep, "1 requests were allowed and have no completion", "0000000000000004")
}

func TestProgressIsTheFilesOwnBytes(t *testing.T) {
	w := witnessLog(t, 60, Config{Rotate: Rotation{Size: 16 << 10}})
	all := files(t, w.file)
	want, last := int64(0), int64(0)
	for _, name := range all {
		want += int64(len(contents(t, name)))
	}
	_, err := Verify(all, VerifyOptions{Progress: func(n int64) {
		if n <= last {
			t.Errorf("%d bytes behind %d", n, last)
		}
		last = n
	}})
	if err != nil || last != want {
		t.Fatalf("%d bytes of %d, %v", last, want, err)
	}
	proof, err := Prove(all, uint64(len(lines(t, all[0]))+1), VerifyOptions{})
	check(t, err)
	last = 0
	_, err = VerifyProof(all[:2], proof.Marshal(), VerifyOptions{Progress: func(n int64) { last = n }})
	if err != nil || last <= int64(len(contents(t, all[0]))) {
		t.Fatalf("%d bytes, %v", last, err)
	}
}
