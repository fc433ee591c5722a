package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/race"
)

// record builds a line with a right hash from the members of a payload.
func record(session, payload, prev string) string {
	body := func(hash string) string {
		if prev != "null" {
			prev = `"` + strings.Trim(prev, `"`) + `"`
		}
		return `{"agent_identity":"a","budget":{},"event":"egress_allowed"` + hash + `,"invoking_user":null,"payload":{` + payload +
			`},"prev_hash":` + prev + `,"principal":"a@` + session + `","session_id":"` + session + `","ts":"2026-05-15T09:42:11.123Z"}`
	}
	sum := sha256.Sum256([]byte(body("")))
	return body(`,"event_hash":"` + hex.EncodeToString(sum[:]) + `"`)
}

func hashOf(line string) string {
	var l line2
	return l.hash(line)
}

type line2 struct{ line }

func (l *line2) hash(s string) string {
	if err := l.parse([]byte(s)); err != nil {
		panic(err)
	}
	return string(l.line.hash)
}

func TestWhatPythonWroteVerifies(t *testing.T) {
	rep := verified(t, "testdata/stock.jsonl")
	if rep.Records != 8 || rep.FirstSeq != 1 || rep.LastSeq != 8 || rep.Respelled != 0 || rep.Incomplete != 0 {
		t.Fatalf("%+v", rep)
	}
}

func TestALogWithOneByteChangedNeverVerifies(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	mustDecide(t, l, 1)
	closeLog(t, l)
	whole := contents(t, file)
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a fixed sequence is wanted
	for i := 0; i < len(whole); i += race.Step(7) {
		for _, c := range []byte{whole[i] ^ 1, whole[i] ^ 0x20, byte(rng.UintN(256)), '\n', ' '} {
			if c == whole[i] {
				continue
			}
			changed := bytes.Clone(whole)
			changed[i] = c
			if _, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(changed)}); err == nil {
				t.Fatalf("byte %d changed from %q to %q and the log verifies", i, whole[i], c)
			}
		}
	}
}

func TestVerifyNamesTheFirstBadLine(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	for id := range uint64(4) {
		mustDecide(t, l, id+1)
	}
	closeLog(t, l)
	whole := contents(t, file)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(n ...int) []byte {
		var b []byte
		for _, i := range n {
			b = append(b, lines[i]...)
		}
		return b
	}
	// A second writer that began at the same record as the third line.
	fork := record("sess_2", `"seq":3`, hashOf(strings.TrimSpace(string(lines[1]))))
	skip := record("sess_2", `"seq":9`, hashOf(strings.TrimSpace(string(lines[1]))))
	for _, row := range []struct {
		name string
		data []byte
		line int64
		what string
	}{
		{"a value changed", bytes.Replace(whole, []byte(`"port":443`), []byte(`"port":444`), 1), 2, "record was changed"},
		{"a record removed", join(0, 1, 3, 4, 5), 3, "removed, inserted or moved"},
		{"records swapped", join(0, 2, 1, 3, 4, 5), 2, "removed, inserted or moved"},
		{"the first removed", join(1, 2), 1, "what stood before it is missing"},
		{"a record twice", join(0, 1, 1, 2), 3, "two writers"},
		{"another chain behind", append(join(0, 1), join(0, 1)...), 3, "a new chain begins"},
		{"a second writer", append(join(0, 1, 2), fork+"\n"...), 4, "two writers"},
		{"seq skips", append(join(0, 1), skip+"\n"...), 3, "payload.seq is 9 behind 2"},
		{"torn", whole[:len(whole)-1], 6, "in the middle of a record"},
		{"CR LF", bytes.ReplaceAll(whole, []byte("\n"), []byte("\r\n")), 1, "more than the ten keys"},
		{"an empty line", append([]byte("\n"), whole...), 1, "expected"},
		{"a space", bytes.Replace(whole, []byte(`:{},`), []byte(`: {},`), 1), 1, "expected"},
		{"too long", append(bytes.Repeat([]byte("x"), maxLine+1), '\n'), 1, "longer than"},
	} {
		t.Run(row.name, func(t *testing.T) {
			damaged(t, row.what, row.line, write(t, logFile(t), row.data))
		})
	}
}

func TestAChainGoesAcrossFiles(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	mustDecide(t, l, 1)
	mustDecide(t, l, 2)
	closeLog(t, l)
	lines := bytes.SplitAfter(contents(t, file), []byte("\n"))
	dir := t.TempDir()
	a := write(t, filepath.Join(dir, "a"), bytes.Join(lines[:2], nil))
	b := write(t, filepath.Join(dir, "b"), bytes.Join(lines[2:], nil))
	if rep := verified(t, a, b); rep.Records != 4 || rep.Files != 2 {
		t.Fatalf("%+v", rep)
	}
	damaged(t, "what stood before it is missing", 1, b, a)
	damaged(t, "a new chain begins", 1, a, b, a)
	_, err := Verify([]string{a, filepath.Join(dir, "none")}, VerifyOptions{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	_, err = Verify(nil, VerifyOptions{})
	wantErr(t, err, "no file")
	_, err = Verify([]string{"-"}, VerifyOptions{Stdin: iotest.ErrReader(io.ErrNoProgress)})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Fatal(err)
	}
}

// TestALineHasOneSpelling takes lines whose hash is right and whose form is
// not: the hash does not make them records.
func TestALineHasOneSpelling(t *testing.T) {
	refuse := func(payload, what string) {
		t.Helper()
		err := new(line).parse([]byte(record("s", payload, "null")))
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v, want %q", payload, err, what)
		}
		if newFollower().next([]byte(record("s", payload, "null"))) == nil {
			t.Errorf("%s: verifies, with the hash over this spelling", payload)
		}
	}
	accept := func(payload string) {
		t.Helper()
		if err := newFollower().next([]byte(record("s", payload, "null"))); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
	accept(`"a":[],"b":{},"c":[1,[2]],"d":-12,"e":1e-07,"f":1.5e+300,"g":true,"h":false,"i":null,"j":0,"k":-0.0`)
	accept(`"a":"\u007f\u2028\ud83d\ude00\udcff\ud800\n\"\\"`)
	accept(`"\u00e9":1,"\ud83d\ude00":2`)
	accept(`"\n":1,"a":2,"\u007f":3`)
	accept(`"a":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1))
	refuse(`"a":`+strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth), "nested deeper")
	refuse(`"b":1,"a":2`, "does not sort behind")
	refuse(`"a":1,"a":2`, "does not sort behind")
	refuse(`"a":2,"\n":1`, "does not sort behind")
	refuse(`"\ud83d\ude00":2,"\uffff":1`, "does not sort behind")
	refuse(`"":1,"":2`, "does not sort behind")
	refuse(`"a":"\u00E9"`, "not an escape")
	refuse(`"a":"\u0041"`, "shorter spelling")
	refuse(`"a":"\u000a"`, "shorter spelling")
	refuse(`"a":"\/"`, "not an escape")
	refuse(`"a":"\u12"`, "not an escape")
	refuse(`"a":"é"`, "not escaped")
	refuse("\"a\":\"\x7f\"", "not escaped")
	refuse("\"a\":\"\t\"", "not escaped")
	refuse(`"a":01`, "not a JSON value")
	refuse(`"a":-0`, "-0")
	refuse(`"a":1.`, "without digits")
	refuse(`"a":1e`, "without digits")
	refuse(`"a":+1`, "not a JSON value")
	refuse(`"a":1E5`, "expected a comma")
	refuse(`"a":NaN`, "not a JSON value")
	refuse(`"a":nul`, "not a JSON value")
	refuse(`"a":[1 ,2]`, "expected a comma")
	refuse(`"a":[1,]`, "not a JSON value")
	refuse(`"a":1,`, "expected a string")
	refuse(`"a" :1`, "expected a colon")
	refuse(`"a":1 `, "expected a comma")
	refuse(`"a":1e5`, "not how Python prints")
	refuse(`"a":1e-7`, "not how Python prints")
	refuse(`"a":1.50`, "not how Python prints")
	refuse(`"a":0.00001`, "not how Python prints")
	refuse(`"a":1e+15`, "not how Python prints")
	refuse(`"a":10000000000000000.0`, "not how Python prints")
	refuse(`"a":2e+308`, "not how Python prints")
	for _, seq := range []string{`"1"`, `1.5`, `-1`, `18446744073709551616`, `null`} {
		if err := newFollower().next([]byte(record("s", `"seq":`+seq, "null"))); err == nil || !strings.Contains(err.Error(), "seq is not a count") {
			t.Errorf("seq %s: %v", seq, err)
		}
	}

	good := record("s", `"seq":1`, "null")
	for _, row := range []struct{ old, new, what string }{
		{`,"budget":{}`, ``, `expected ,"budget":`},
		{`"budget":{}`, `"budget":[]`, "expected an object"},
		{`"event":"egress_allowed"`, `"event":7`, "expected a string"},
		{`"invoking_user":null`, `"invoking_user":7`, "expected a string"},
		{`"prev_hash":null`, `"prev_hash":"abc"`, "prev_hash is neither"},
		{`"prev_hash":null`, `"prev_hash":7`, "expected a string"},
		{`"event_hash":"`, `"event_hash":"0`, "event_hash is not 64"},
		{`"ts":"2026`, `"more":1,"ts":"2026`, `expected ,"ts":`},
		{`"}`, `","zz":1}`, "more than the ten keys"},
		{`"}`, ``, "the string does not end"},
	} {
		bad := strings.Replace(good, row.old, row.new, 1)
		if row.old == `"}` {
			bad = strings.TrimSuffix(good, row.old) + row.new
		}
		err := newFollower().next([]byte(bad))
		if err == nil || !strings.Contains(err.Error(), row.what) {
			t.Errorf("%s: %v, want %q", row.new, err, row.what)
		}
	}
	upper := strings.Replace(good, hashOf(good), strings.ToUpper(hashOf(good)), 1)
	if err := newFollower().next([]byte(upper)); err == nil || !strings.Contains(err.Error(), "lower-case") {
		t.Error(err)
	}
}

func TestVerifyHoldsLittleInMemory(t *testing.T) {
	var b bytes.Buffer
	prev := "null"
	add := func(session, payload string) {
		l := record(session, payload, prev)
		prev = hashOf(l)
		b.WriteString(l + "\n")
	}
	for i := range maxIncomplete + 10 {
		add("s1", fmt.Sprintf(`"id":"%d","phase":"decision"`, i))
	}
	add("s1", `"id":"999999","phase":"complete"`)
	for i := range 100 {
		l := strings.Replace(record("s2", "", prev), "egress_allowed", fmt.Sprint("event_", i), 1)
		l = strings.Replace(l, hashOf(l), strings.Repeat("0", 64), 1)
		f := newFollower()
		_ = f.next([]byte(l)) // for its right hash
		l = strings.Replace(l, strings.Repeat("0", 64), string(f.hex[:]), 1)
		prev = hashOf(l)
		b.WriteString(l + "\n")
	}
	rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: &b})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Incomplete != maxIncomplete || rep.Unasked != 0 || len(rep.IncompleteIDs) != maxNamed || len(rep.Events) > maxEventNames+1 || rep.Events["other"] == 0 {
		t.Fatalf("%d, %d, %d, %v", rep.Incomplete, rep.Unasked, len(rep.IncompleteIDs), rep.Events)
	}
	var out strings.Builder
	check(t, rep.Write(&out))
	if !strings.Contains(out.String(), fmt.Sprintf("and %d more", maxIncomplete-maxNamed)) {
		t.Fatal(&out)
	}
}

func BenchmarkVerify(b *testing.B) {
	file := logFile(b)
	l := open(b, Config{File: file})
	for id := range uint64(2000) {
		mustDecide(b, l, id+1)
		if err := l.Complete(completion(id + 1)); err != nil {
			b.Fatal(err)
		}
	}
	raw := contents(b, file)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(raw)}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWordsOfTheLibrarysPayloadAreItsOwn has an agent that saves checkpoints of
// its own kind.
func TestWordsOfTheLibrarysPayloadAreItsOwn(t *testing.T) {
	first := record("s", `"checkpoint":"step-3","frontier":[],"reason":"segment","segment":"a"`, "null")
	file := write(t, logFile(t), []byte(first+"\n"+record("s", `"checkpoint":{"step":4},"frontier":"x"`, hashOf(first))+"\n"))
	l := open(t, Config{File: file, Key: key(signer(t))})
	mustDecide(t, l, 1)
	closeLog(t, l)
	if rep := verified(t, file); rep.Checkpoints != 2 || rep.FirstSeq != 1 {
		t.Errorf("%+v", rep)
	}
}
