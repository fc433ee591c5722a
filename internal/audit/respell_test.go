package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// respelled returns the canonical spelling of a JSON value.
func respelled(text string) (string, error) {
	var r respeller
	b, err := r.respell([]byte(`{"":` + text + `}`))
	if err != nil {
		return "", err
	}
	return string(b[len(`{"":`) : len(b)-1]), nil
}

func TestValuesAreRespelledAsPythonSpellsThem(t *testing.T) {
	f, err := os.Open("testdata/spellings.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		var l scanner
		l.b = sc.Bytes()
		l.i = len(`{"json":`)
		want, _ := l.text()
		l.i += len(`,"text":`)
		text, err := l.text()
		if err != nil {
			t.Fatal(err)
		}
		in, out := spelled(text), spelled(want)
		if got, err := respelled(in); err != nil || got != out {
			t.Errorf("%s: got %s, %v, Python writes %s", in, got, err, out)
		}
		if got, err := respelled(out); err != nil || got != out {
			t.Errorf("canonical %s: got %s, %v", out, got, err)
		}
		s := scanner{b: []byte(out)}
		if err := s.value(0); err != nil || s.i != len(out) {
			t.Errorf("%s is canonical and not read: %v", out, err)
		}
		if in == out {
			continue
		}
		if s = (scanner{b: []byte(in)}); s.value(0) == nil && s.i == len(in) {
			t.Errorf("%s is read as canonical", in)
		}
	}
	if n < 200 {
		t.Fatalf("only %d vectors", n)
	}
}

// spelled undoes one level of escapes.
func spelled(contents []byte) string { return string(unescape(nil, contents, false)) }

func TestWhatIsNotOneJSONValueIsRefused(t *testing.T) {
	for text, what := range map[string]string{
		`1 2`: "expected a comma", ``: "not a JSON value", `nul`: "not a JSON value", `NaN`: "not a JSON value", `-Infinity`: "not a JSON value",
		`01`: "not a JSON value", `+1`: "not a JSON value", `.5`: "not a JSON value", `0x1p3`: "expected a comma", `1_0`: "expected a comma",
		`1.`: "without digits", `1.e3`: "without digits", `1e`: "without digits", `1e+`: "without digits", `1e999`: "beyond what a float",
		`-1.7976931348623159e308`: "beyond what a float", `'a'`: "not a JSON value", `"a`: "does not end", `"\x"`: "not an escape",
		`"\u12"`: "not an escape", `"\u12g4"`: "not an escape", "\"\\u12\x104\"": "not an escape", `"\`: "not an escape",
		"\"\xff\"": "not UTF-8", "\"\xed\xa0\x80\"": "not UTF-8", "\"\xc0\xaf\"": "not UTF-8", "\"\t\"": "is not escaped", "\"\x00\"": "is not escaped",
		`[1,]`: "not a JSON value", `[,1]`: "not a JSON value", `[1`: "expected a comma", `{"a":1,}`: "expected a string", `{"a"}`: "expected a colon",
		`{a:1}`: "expected a string", `{"a":1`: "expected a comma", `{"a":}`: "not a JSON value", `{"a":1,"b":2,"a":1}`: "occurs twice",
		`{"a":1,"\u0061":1}`: "occurs twice", `{"😀":1,"\uD83D\uDE00":2}`: "occurs twice", `[{"x":{"é":0,"\u00E9":0}}]`: "occurs twice",
		`{"a` + "\xff" + `":1}`: "not UTF-8", "\u00a01": "not a JSON value", "\ufeff1": "not a JSON value", `1}x{`: "text behind",
	} {
		if got, err := respelled(text); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %s, %v, want %q", text, got, err, what)
		}
	}
	deep := strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	if _, err := respelled(deep); err == nil || !strings.Contains(err.Error(), "nested deeper") {
		t.Error(err)
	}
	if _, err := respelled(deep[1 : len(deep)-1]); err != nil {
		t.Error(err)
	}
	for _, text := range []string{``, `[]`, `7`, `"a"`} {
		if _, err := new(respeller).respell([]byte(text)); err == nil || !strings.Contains(err.Error(), "expected a record") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestWhatTheLibraryWroteVerifies has a file as the library's sinks write it.
func TestWhatTheLibraryWroteVerifies(t *testing.T) {
	const file = "testdata/library.jsonl"
	rep := verified(t, file)
	if rep.Records != 4 || rep.Respelled != 4 || rep.LastSeq != 4 || rep.Sessions != 1 || rep.First != "2026-05-15T09:42:10.123Z" {
		t.Fatalf("%+v", rep)
	}
	var out strings.Builder
	check(t, rep.Write(&out))
	if !strings.Contains(out.String(), "4 records are in the Python library's spelling") {
		t.Error(out.String())
	}
	all := entries(t, file)
	if all[3].InvokingUser != "ülrich" || all[2].Event != "tool_call" || !bytes.HasPrefix(all[0].Raw, []byte(`{"ts":`)) {
		t.Errorf("%+v", all)
	}
	whole := contents(t, file)
	for _, row := range []struct{ old, new, what string }{
		{`"größe`, `"grosse`, "record was changed"},
		{`1e-6`, `2e-6`, "record was changed"},
		{`"tokens_used":0`, `"tokens_used":0.0`, "record was changed"},
		{`"usd_used":0.0`, `"usd_used":-0.0`, "record was changed"},
		{`"ok":true`, `"ok":true,"ok":true`, "occurs twice"},
		{`"ok":true`, `"ok":1e999`, "beyond what a float"},
		{"größe", "gr\xf6\xdfe", "not UTF-8"},
		{`"budget":{},`, ``, `spelled canonically, column`},
		{`"budget":{}`, `"budget":{},"more":1`, `spelled canonically, column`},
		{`"normal"}`, `"normal","seq":4}`, "a record of the engine in another spelling"},
	} {
		changed := bytes.Replace(whole, []byte(row.old), []byte(row.new), 1)
		_, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(changed)})
		var d *Damage
		if !errors.As(err, &d) || !strings.Contains(d.What, row.what) {
			t.Errorf("%s for %s: %v, want %q", row.new, row.old, err, row.what)
		}
	}
}

// TestTheSpellingOfALineDoesNotCount writes the library's records in other
// ways, which say the same and hash the same.
func TestTheSpellingOfALineDoesNotCount(t *testing.T) {
	whole := contents(t, "testdata/library.jsonl")
	want := verified(t, "testdata/library.jsonl")
	for name, spell := range map[string]func(b []byte) []byte{
		"CR LF":     func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) },
		"spaces":    func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`":`), []byte("\" :\t")) },
		"escapes":   func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("ö"), []byte(`\u00F6`)) },
		"a float":   func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("1e-7"), []byte("0.10000E-006")) },
		"a solidus": func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("/v1"), []byte(`\/v1`)) },
	} {
		other := spell(bytes.Clone(whole))
		if bytes.Equal(other, whole) {
			t.Fatalf("%s: nothing changed", name)
		}
		rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(other)})
		if err != nil || rep.Head != want.Head || rep.Respelled != 4 {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
	}
}

func TestALogInTheLibrarysSpellingIsContinued(t *testing.T) {
	file := write(t, logFile(t), append(contents(t, "testdata/library.jsonl"), `{"ts":"2026`...))
	for range 2 {
		l := open(t, Config{File: file})
		mustDecide(t, l, 1)
		closeLog(t, l)
	}
	rep := verified(t, file)
	if rep.Records != 10 || rep.Respelled != 4 || rep.Events["session_end"] != 1 {
		t.Fatalf("%+v", rep)
	}
	if !bytes.HasPrefix(contents(t, file), contents(t, "testdata/library.jsonl")) {
		t.Error("the library's lines were changed")
	}
	if torn, _ := filepath.Glob(file + ".torn-*"); len(torn) != 1 {
		t.Errorf("kept %v", torn)
	}
	changed := bytes.Replace(contents(t, file), []byte("größe"), []byte("grosse"), 1)
	_, err := Open(Config{File: write(t, logFile(t), changed)})
	wantErr(t, err, "damaged and is not continued")
}

func TestALogInTheLibrarysSpellingIsFollowed(t *testing.T) {
	file := write(t, logFile(t), contents(t, "testdata/library.jsonl"))
	l := open(t, Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 4 << 10}})
	requests(t, l, 1, 10)
	closeLog(t, l)
	first, last, err := Span(file)
	if err != nil || first != 1 || last != l.Stats().Seq {
		t.Fatalf("from %d to %d, %v; want 1 to %d", first, last, err, l.Stats().Seq)
	}
	for from := uint64(1); from < 8; from++ {
		next := from
		err := Follow(t.Context(), file, FollowOptions{From: from, Idle: func() error { return errStop }}, func(e *Entry) error {
			if e.Seq != next || (e.Event == "tool_call") != (e.Seq == 3) {
				t.Fatalf("record %d, want %d: %s", e.Seq, next, e.Raw)
			}
			next++
			return nil
		})
		if !errors.Is(err, errStop) || next != last+1 {
			t.Fatalf("from %d: %v before record %d of %d", from, err, next, last)
		}
	}
}

func TestAnEngineRecordHasOneSpelling(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	mustDecide(t, l, 1)
	closeLog(t, l)
	var m map[string]any
	lines := bytes.SplitAfter(contents(t, file), []byte("\n"))
	check(t, json.Unmarshal(lines[1], &m))
	indented, err := json.Marshal(m)
	check(t, err)
	if diff := cmp.Diff(string(lines[1]), string(indented)+"\n"); diff != "" {
		t.Fatal(diff) // ASCII alone and sorted: Go spells it the same
	}
	for _, other := range []string{
		strings.Replace(string(lines[1]), `"port":443`, `"port": 443`, 1),
		strings.Replace(string(lines[1]), `"/v1/`, `"\/v1/`, 1),
		strings.Replace(string(lines[1]), `"ts":`, ` "ts":`, 1),
	} {
		b := bytes.Join([][]byte{lines[0], []byte(other), lines[2]}, nil)
		damaged(t, "a record of the engine in another spelling than the engine's: column", 2, write(t, logFile(t), b))
	}
}

func FuzzRespell(f *testing.F) {
	for _, name := range []string{"testdata/library.jsonl", "testdata/stock.jsonl", "testdata/spellings.jsonl"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for text := range bytes.Lines(b) {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var r respeller
		once, err := r.respell(text)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is no JSON and was read as %s", text, once)
		}
		once = bytes.Clone(once)
		s := scanner{b: once}
		if err := s.value(0); err != nil || s.i != len(once) {
			t.Fatalf("%q became %s, which is not canonical: %v", text, once, err)
		}
		if again, err := r.respell(once); err != nil || !bytes.Equal(once, again) {
			t.Fatalf("%s became %s: %v", once, again, err)
		}
	})
}

func BenchmarkVerifyTheLibrarys(b *testing.B) {
	raw := contents(b, "testdata/library.jsonl")
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(raw)}); err != nil {
			b.Fatal(err)
		}
	}
}
