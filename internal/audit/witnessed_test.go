package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// witnessed is a log and what somebody else kept of it.
type witnessed struct {
	file  string
	s     *checkpoint.Signer
	notes [][]byte // its checkpoints, in order
	sizes []uint64
}

// witnessLog writes a log of requests with a checkpoint behind every three.
func witnessLog(t testing.TB, requested uint64, c Config) *witnessed {
	t.Helper()
	w := &witnessed{file: logFile(t), s: signer(t)}
	var out published
	c.File, c.Key, c.OnCheckpoint = w.file, key(w.s), out.take
	l := open(t, c)
	for id := range requested {
		requests(t, l, id+1, 1)
		if id%3 == 2 {
			l.checkpointTick()
		}
	}
	closeLog(t, l)
	out.mu.Lock()
	defer out.mu.Unlock()
	w.notes, w.sizes = out.notes, out.sizes
	return w
}

func (w *witnessed) anchor() []byte { return bytes.Join(w.notes, []byte("\n")) }

// against holds files against the anchor, and with a key against that as well.
func (w *witnessed) against(anchor []byte, v checkpoint.Verifiers, files ...string) (Report, error) {
	o := VerifyOptions{Keys: v}
	if anchor != nil {
		o.Anchor = bytes.NewReader(anchor)
	}
	return Verify(files, o)
}

func trusted(t testing.TB, signers ...*checkpoint.Signer) checkpoint.Verifiers {
	t.Helper()
	var text string
	for _, s := range signers {
		text += s.VerifierKey() + "\n"
	}
	v, err := checkpoint.ParseVerifiers(text)
	check(t, err)
	return v
}

// lines returns the lines of a file without their newlines.
func lines(t testing.TB, file string) []string {
	t.Helper()
	return strings.Split(strings.TrimSuffix(string(contents(t, file)), "\n"), "\n")
}

var (
	prevMember = regexp.MustCompile(`"prev_hash":(null|"[0-9a-f]{64}")`)
	noteMember = regexp.MustCompile(`"checkpoint":"[^"]*"`)
)

// forgery is what somebody does to a log who can write the file: from a line on
// (from 1) each is passed to change, and then hashes, chain and checkpoints are
// made right again, signed with the key of by.
type forgery struct {
	by     *checkpoint.Signer
	from   int
	change func(n int, line string) string // nil: nothing
}

func (f forgery) of(t testing.TB, log []string) []byte {
	t.Helper()
	var out []byte
	var tree checkpoint.Frontier
	prev := "null"
	for i, b := range log {
		if i+1 >= f.from {
			if f.change != nil {
				b = f.change(i+1, b)
			}
			b = prevMember.ReplaceAllLiteralString(b, `"prev_hash":`+prev)
			if noteMember.MatchString(b) {
				var l line
				check(t, l.parse([]byte(b)))
				c, _, err := checkpoint.Open([]byte(stringOf(l.checkpoint)), checkpoint.Verifiers{})
				check(t, err)
				c.Size, c.Root = tree.Size(), tree.Root()
				b = withNote(t, b, f.by, c)
			}
			b = rehash(t, b)
		}
		h := unhex(t, hashOf(b))
		tree.Append(&h)
		prev = `"` + hashOf(b) + `"`
		out = append(append(out, b...), '\n')
	}
	return out
}

// withNote puts a checkpoint into a line that has one.
func withNote(t testing.TB, line string, s *checkpoint.Signer, c checkpoint.Checkpoint) string {
	t.Helper()
	msg, err := s.Sign(c)
	check(t, err)
	return noteMember.ReplaceAllLiteralString(line, `"checkpoint":"`+string(appendEscaped(nil, msg))+`"`)
}

// rehash puts the right event_hash into a line.
func rehash(t testing.TB, b string) string {
	t.Helper()
	var l line
	check(t, l.parse([]byte(b)))
	sum := sha256.Sum256([]byte(b[:l.cut] + b[l.resume:]))
	return b[:l.cut] + `,"event_hash":"` + hex.EncodeToString(sum[:]) + `"` + b[l.resume:]
}

func wantReport(t testing.TB, rep Report, words ...string) {
	t.Helper()
	var out strings.Builder
	check(t, rep.Write(&out))
	for _, w := range words {
		if !strings.Contains(out.String(), w) {
			t.Fatalf("the report does not say %q:\n%s", w, out.String())
		}
	}
}

func wantDamage(t testing.TB, err error, line int64, words ...string) {
	t.Helper()
	var d *Damage
	if !errors.As(err, &d) || d.Line != line {
		t.Fatalf("%v, want damage at line %d: %q", err, line, words)
	}
	wantErr(t, err, words...)
}

func wantUnauthenticated(t testing.TB, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, ErrUnauthenticated) {
		t.Fatalf("%v, want ErrUnauthenticated", err)
	}
	wantErr(t, err, words...)
}
