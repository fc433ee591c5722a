package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

func signer(t testing.TB, name string) *Signer {
	t.Helper()
	private, err := Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifiers(t testing.TB, signers ...*Signer) Verifiers {
	t.Helper()
	text := "# keys\n\n"
	for _, s := range signers {
		text += s.VerifierKey() + "\n"
	}
	v, err := ParseVerifiers(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fixedPrivate is the key of the package comment's example: its seed is the
// SHA-256 of its name.
func fixedPrivate(t testing.TB) string {
	t.Helper()
	const name = "aegrail.example/prod"
	seed := sha256.Sum256([]byte(name))
	public := ed25519.NewKeyFromSeed(seed[:])[32:]
	verifier, err := note.NewEd25519VerifierKey(name, ed25519.PublicKey(public))
	if err != nil {
		t.Fatal(err)
	}
	id := verifier[len(name)+1:][:8]
	return privatePrefix + name + "+" + id + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))
}

func fixed(t testing.TB) *Signer {
	t.Helper()
	s, err := NewSigner(fixedPrivate(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sample covers seven records.
func sample() Checkpoint {
	var f Frontier
	for i := range uint64(7) {
		f.Append(event(i))
	}
	at := time.Date(2026, 5, 15, 9, 42, 11, 123e6, time.UTC)
	return Checkpoint{Size: 7, Root: f.Root(), Session: "sess_1778838131123_0123456789abcdef", Time: at}
}

func sign(t testing.TB, s *Signer, c Checkpoint) []byte {
	t.Helper()
	msg, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestTheManualsExampleIsTrue(t *testing.T) {
	manual, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	s := fixed(t)
	msg := string(sign(t, s, sample()))
	for line := range strings.Lines(msg + s.VerifierKey() + "\n") {
		if line == "\n" {
			continue
		}
		// Long lines are broken in the manual.
		for part := line; part != ""; {
			n := min(len(part), 90)
			if !bytes.Contains(manual, []byte("//\t"+part[:n])) && !bytes.Contains(manual, []byte("//\t    "+part[:n])) {
				t.Errorf("the package comment has no line %q", part[:n])
			}
			part = part[n:]
		}
	}
}

func TestANoteComesBackAsItWasSigned(t *testing.T) {
	s := signer(t, "log.example")
	c := sample()
	c.Origin = "somebody else" // the key's name stands in its place
	c.Time = c.Time.Add(999 * time.Microsecond).In(time.FixedZone("", 3600))
	msg := sign(t, s, c)
	got, ok, err := Open(msg, verifiers(t, s))
	want := sample()
	want.Origin = "log.example"
	if err != nil || !ok || got != want {
		t.Fatalf("%+v, %v, %v; want %+v", got, ok, err, want)
	}
	if got, ok, err := Open(msg, Verifiers{}); err != nil || ok || got != want {
		t.Errorf("without a key: %+v, %v, %v", got, ok, err)
	}
	if got, ok, err := Open(msg, verifiers(t, signer(t, "log.example"))); err != nil || ok || got != want {
		t.Errorf("with another key of that name: %+v, %v, %v", got, ok, err)
	}
	if got, ok, err := Open(msg, verifiers(t, signer(t, "a"), s, signer(t, "b"))); err != nil || !ok || got != want {
		t.Errorf("with three keys: %+v, %v, %v", got, ok, err)
	}
	if n, err := note.Open(msg, verifiers(t, s).list); err != nil || len(n.Sigs) != 1 {
		t.Errorf("x/mod: %v, %v", n, err)
	}
}

func TestOnlyTheLogsOwnKeyAuthenticatesIt(t *testing.T) {
	log, witness := signer(t, "log.example"), signer(t, "witness.example")
	n, err := note.Open(sign(t, log, sample()), verifiers(t, log).list)
	if err != nil {
		t.Fatal(err)
	}
	both, err := note.Sign(n, witness.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := Open(both, verifiers(t, log, witness)); err != nil || !ok {
		t.Errorf("signed by both: %v, %v", ok, err)
	}
	if _, ok, err := Open(both, verifiers(t, witness)); err != nil || ok {
		t.Errorf("only the witness is trusted: %v, %v", ok, err)
	}
	forged, err := note.Sign(&note.Note{Text: n.Text}, witness.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := Open(forged, verifiers(t, log, witness)); err != nil || ok {
		t.Errorf("signed by the witness alone: %v, %v", ok, err)
	}
}

func TestAnyChangeOfASignedNoteShows(t *testing.T) {
	s := signer(t, "log.example")
	msg := sign(t, s, sample())
	v := verifiers(t, s)
	for i := range msg {
		for _, bit := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(msg)
			changed[i] ^= bit
			if c, ok, err := Open(changed, v); err == nil && ok {
				t.Fatalf("byte %d changed and still authenticated: %+v\n%s", i, c, changed)
			}
		}
		if _, ok, err := Open(msg[:i], v); err == nil || ok {
			t.Fatalf("cut at %d and read", i)
		}
	}
	forged := bytes.Replace(msg, []byte("\n7\n"), []byte("\n6\n"), 1)
	if _, ok, err := Open(forged, v); err == nil || ok || !strings.Contains(err.Error(), "false") {
		t.Errorf("a false signature by a trusted key: %v, %v", ok, err)
	}
}

// resign signs any text, as somebody with the key and another program could.
func resign(t *testing.T, s *Signer, text string) []byte {
	t.Helper()
	msg, err := note.Sign(&note.Note{Text: text}, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestAMangledNoteIsRefusedEvenIfSigned(t *testing.T) {
	s := signer(t, "log.example")
	v := verifiers(t, s)
	good := sample()
	good.Origin = "log.example"
	root, session := good.Root.String(), "session sess_1\n"
	const at = "time 2026-05-15T09:42:11.123Z\n"
	if _, ok, err := Open(resign(t, s, "log.example\n7\n"+root+"\n"+session+at), v); err != nil || !ok {
		t.Fatal(ok, err)
	}
	for name, text := range map[string]string{
		"no text":               "\n",
		"three lines":           "log.example\n7\n" + root + "\n",
		"a line more":           good.text() + "more\n",
		"an empty line within":  "log.example\n7\n\n" + root + "\n" + session + at,
		"an empty line behind":  good.text() + "\n",
		"lines in other order":  "log.example\n7\n" + root + "\n" + at + session,
		"a leading zero":        "log.example\n07\n" + root + "\n" + session + at,
		"a sign":                "log.example\n+7\n" + root + "\n" + session + at,
		"a negative size":       "log.example\n-7\n" + root + "\n" + session + at,
		"hexadecimal":           "log.example\n0x7\n" + root + "\n" + session + at,
		"an underscore":         "log.example\n1_0\n" + root + "\n" + session + at,
		"beyond 2^62":           "log.example\n4611686018427387905\n" + root + "\n" + session + at,
		"beyond 2^64":           "log.example\n18446744073709551623\n" + root + "\n" + session + at,
		"size 0 with a root":    "log.example\n0\n" + root + "\n" + session + at,
		"unpadded base64":       "log.example\n7\n" + root[:43] + "\n" + session + at,
		"bits left over":        "log.example\n7\n" + strings.Repeat("A", 42) + "B=\n" + session + at,
		"31 bytes":              "log.example\n7\n" + strings.Repeat("A", 42) + "==\n" + session + at,
		"URL base64":            "log.example\n7\n" + strings.Repeat("_", 42) + "8=\n" + session + at,
		"a space behind":        "log.example\n7\n" + root + " \n" + session + at,
		"an origin with spaces": "log example\n7\n" + root + "\n" + session + at,
		"an origin with plus":   "log+example\n7\n" + root + "\n" + session + at,
		"an empty origin":       "\n7\n" + root + "\n" + session + at,
		"an origin in Cyrillic": "lоg.example\n7\n" + root + "\n" + session + at,
		"a long origin":         strings.Repeat("o", maxName+1) + "\n7\n" + root + "\n" + session + at,
		"no session":            "log.example\n7\n" + root + "\nsession \n" + at,
		"no word session":       "log.example\n7\n" + root + "\nsess_1\n" + at,
		"session with a space":  "log.example\n7\n" + root + "\nsession a b\n" + at,
		"a long session":        "log.example\n7\n" + root + "\nsession " + strings.Repeat("s", maxSession+1) + "\n" + at,
		"no time":               "log.example\n7\n" + root + "\n" + session + "time \n",
		"another time zone":     "log.example\n7\n" + root + "\n" + session + "time 2026-05-15T09:42:11.123+00:00\n",
		"whole seconds":         "log.example\n7\n" + root + "\n" + session + "time 2026-05-15T09:42:11Z\n",
		"a decimal comma":       "log.example\n7\n" + root + "\n" + session + "time 2026-05-15T09:42:11,123Z\n",
		"microseconds":          "log.example\n7\n" + root + "\n" + session + "time 2026-05-15T09:42:11.123456Z\n",
		"no such day":           "log.example\n7\n" + root + "\n" + session + "time 2026-02-30T09:42:11.123Z\n",
		"no word time":          "log.example\n7\n" + root + "\n" + session + "2026-05-15T09:42:11.123Z\n",
		"a go.sum tree":         "go.sum database tree\n7\n" + root + "\n",
	} {
		c, ok, err := Open(resign(t, s, text), v)
		if err == nil || ok || c != (Checkpoint{}) {
			t.Errorf("%s: read as %+v, %v", name, c, ok)
		} else if !strings.HasPrefix(err.Error(), "checkpoint note: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMangledSignaturesAreRefused(t *testing.T) {
	s, other := signer(t, "log.example"), signer(t, "other.example")
	v := verifiers(t, s)
	msg := string(sign(t, s, sample()))
	line := msg[strings.Index(msg, "\n\n")+2:]
	theirs := string(sign(t, other, sample()))
	theirs = theirs[strings.Index(theirs, "\n\n")+2:]
	for name, text := range map[string]string{
		"no signature":           strings.TrimSuffix(msg, line),
		"the same line twice":    msg + line,
		"a stranger's twice":     msg + theirs + theirs,
		"an empty line behind":   msg + "\n",
		"text behind":            msg + "more\n",
		"a hyphen for the dash":  strings.Replace(msg, "— ", "-- ", 1),
		"a carriage return":      strings.TrimSuffix(msg, "\n") + "\r\n",
		"no newline at the end":  strings.TrimSuffix(msg, "\n"),
		"bits left over":         msg + "— other.example AAAAAAB=\n",
		"too short":              msg + "— other.example AAAAAA==\n",
		"a space behind":         strings.TrimSuffix(msg, "\n") + " \n",
		"a control character":    strings.Replace(msg, "sess_", "sess\x1b", 1),
		"not UTF-8":              msg + "— other\xff AAAAAAAA\n",
		"longer than the limit":  msg + "— other.example " + strings.Repeat("AAAA", MaxNote/4) + "\n",
		"a byte order mark":      "\ufeff" + msg,
		"an empty line at first": "\n" + msg,
	} {
		if c, ok, err := Open([]byte(text), v); err == nil || ok {
			t.Errorf("%s: read as %+v, %v", name, c, ok)
		}
	}
	if _, ok, err := Open([]byte(msg+theirs), v); err != nil || !ok {
		t.Errorf("a stranger's signature behind ours: %v, %v", ok, err)
	}
}

func TestSignRefusesWhatHasNoSpelling(t *testing.T) {
	s := signer(t, "log.example")
	for name, change := range map[string]func(*Checkpoint){
		"beyond 2^62":         func(c *Checkpoint) { c.Size = MaxSize + 1 },
		"size 0 with a root":  func(c *Checkpoint) { c.Size = 0 },
		"no session":          func(c *Checkpoint) { c.Session = "" },
		"a newline":           func(c *Checkpoint) { c.Session = "a\nb" },
		"the year 10000":      func(c *Checkpoint) { c.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"before Christ":       func(c *Checkpoint) { c.Time = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a session too long":  func(c *Checkpoint) { c.Session = strings.Repeat("s", maxSession+1) },
		"a session not ASCII": func(c *Checkpoint) { c.Session = "é" },
	} {
		c := sample()
		change(&c)
		if msg, err := s.Sign(c); err == nil {
			t.Errorf("%s: signed as %s", name, msg)
		}
	}
	var f Frontier
	empty := sample()
	empty.Size, empty.Root = 0, f.Root()
	if _, ok, err := Open(sign(t, s, empty), verifiers(t, s)); err != nil || !ok {
		t.Errorf("the empty log: %v, %v", ok, err)
	}
}

func TestSigningAtOnceIsSafe(t *testing.T) {
	s := signer(t, "log.example")
	v := verifiers(t, s)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := sample()
			c.Size = uint64(i + 1)
			msg, err := s.Sign(c)
			if err != nil {
				t.Error(err)
				return
			}
			if got, ok, err := Open(msg, v); err != nil || !ok || got.Size != c.Size {
				t.Error(got, ok, err)
			}
		})
	}
	wg.Wait()
}
