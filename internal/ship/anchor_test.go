package ship

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

func TestAnAnchorGetsTheNewestCheckpoint(t *testing.T) {
	signer, rc := newSigner(t), newReceiver(t, hang)
	var log said
	s := prepare(t, "", Config{Anchors: []Target{anchorAt(t, "http://u:hunter2@"+strings.TrimPrefix(rc.URL, "http://")+"/a")}, Logger: log.logger(), timeout: time.Hour})
	s.Publish(1, note(t, signer, 1)) // also before Start
	check(t, s.Start("sess_1", nil))
	t.Cleanup(func() { stop(s) })
	eventually(t, "the first is under way", func() bool { n, _, _, _ := rc.got(); return n == 1 })
	for size := range uint64(100) { // nobody waits
		s.Publish(size+2, note(t, signer, size+2))
	}
	if s.Anchors()[0].Acknowledged != 0 {
		t.Error("acknowledged by nobody")
	}
	rc.CloseClientConnections()
	eventually(t, "the newest is there", func() bool { return s.Anchors()[0].Acknowledged == 101 })
	_, _, notes, h := rc.got()
	if !slices.Equal(notes, []string{string(note(t, signer, 101))}) {
		t.Errorf("%q", notes)
	}
	if h.Get("Content-Type") != "text/plain" || h.Get("X-Aegrail-Log") != "sess_1" || h.Get("Authorization") != "Basic dTpodW50ZXIy" {
		t.Errorf("%v", h)
	}
	check(t, s.Close(t.Context()))
	if st := s.Anchors()[0]; st.Kind != HTTP || st.Failures != 1 || st.Attempts != 2 || st.LastError != "" {
		t.Errorf("%+v", st)
	}
}

func TestAnAnchorOutlastsEveryFault(t *testing.T) {
	signer, elsewhere := newSigner(t), newReceiver(t)
	rc := newReceiver(t, status(500), status(503), reset, hang, status(429), dribble, status(302, "Location", elsewhere.URL), status(403))
	var log said
	s := prepare(t, "", Config{Anchors: []Target{anchorAt(t, rc.URL)}, Logger: log.logger(), timeout: 200 * time.Millisecond})
	check(t, s.Start("sess_1", nil))
	t.Cleanup(func() { stop(s) })
	s.Publish(7, note(t, signer, 7))
	eventually(t, "it is there", func() bool { return s.Anchors()[0].Acknowledged == 7 })
	if st := s.Anchors()[0]; st.Failures != 8 {
		t.Errorf("%+v", st)
	}
	if n, _, _, _ := elsewhere.got(); n != 0 {
		t.Error("a redirect was followed")
	}
	eventually(t, "that it works again is said", func() bool { return strings.Contains(log.String(), "takes checkpoints again") })
	if n := strings.Count(log.String(), "takes no checkpoints"); n != 2 || !strings.Contains(log.String(), "configuration error") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

func TestClosingBringsTheLastCheckpointOrSaysSo(t *testing.T) {
	signer, rc := newSigner(t), newReceiver(t, status(500))
	s := prepare(t, "", Config{Anchors: []Target{anchorAt(t, rc.URL)}})
	s.anchors[0].pace = pace{first: time.Hour, most: time.Hour}
	check(t, s.Start("sess_1", nil))
	s.Publish(1, note(t, signer, 1))
	eventually(t, "it failed", func() bool { return s.Anchors()[0].Failures == 1 })
	s.Publish(2, note(t, signer, 2))
	check(t, s.Close(t.Context()))
	if _, _, notes, _ := rc.got(); len(notes) != 1 || s.Anchors()[0].Acknowledged != 2 {
		t.Errorf("%q", notes)
	}
	check(t, s.Close(t.Context())) // once more is nothing

	for name, f := range map[string]fault{"answered 401": status(401), "there was no time": hang} {
		rc := newReceiver(t, forever(f)...)
		s := prepare(t, "", Config{Anchors: []Target{anchorAt(t, rc.URL)}})
		check(t, s.Start("sess_1", nil))
		s.Publish(9, note(t, signer, 9))
		ctx, cancel := context.WithCancel(t.Context())
		eventually(t, "it was tried", func() bool { n, _, _, _ := rc.got(); return n > 0 && (name[0] != 'a' || s.Anchors()[0].Failures > 0) })
		cancel()
		wantErr(t, s.Close(ctx), "the last checkpoint, of 9 records, is not there", name)
	}
}

func readAnchor(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	check(t, err)
	defer f.Close()
	var out []string
	check(t, checkpoint.EachAnchored(f, func(msg []byte) error {
		out = append(out, string(msg))
		return nil
	}))
	return out
}

func TestAFileAnchorIsAFileOfNotes(t *testing.T) {
	signer, file := newSigner(t), filepath.Join(t.TempDir(), "anchor.notes")
	var want []string
	for round := range uint64(3) {
		s := prepare(t, "", Config{Anchors: []Target{anchorAt(t, file)}})
		check(t, s.Start("sess_1", nil))
		n := note(t, signer, round+1)
		s.Publish(round+1, n)
		check(t, s.Close(t.Context()))
		if s.Anchors()[0].Acknowledged != round+1 {
			t.Errorf("%+v", s.Anchors())
		}
		want = append(want, string(n))
	}
	if got := readAnchor(t, file); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	st, err := os.Stat(file)
	check(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Error(st.Mode())
	}
}

func TestTheEndOfAFileAnchorIsMendedAndNobodyElsesFileIsTouched(t *testing.T) {
	signer, dir := newSigner(t), t.TempDir()
	one, two := string(note(t, signer, 1))+"\n", string(note(t, signer, 2))+"\n"
	var many strings.Builder
	for range 200 {
		many.WriteString(one)
	}
	for name, c := range map[string]struct {
		before, after string // "" refused
	}{
		"new":                {"", two},
		"whole":              {one, one + two},
		"long":               {many.String(), many.String() + two},
		"without its end":    {strings.TrimSuffix(one, "\n"), one + two},
		"half a note":        {one + two[:len(two)/2], one + two},
		"half a signature":   {one + two[:len(two)-9], one + two},
		"text of a note":     {one + two[:strings.Index(two, "\n\n")+2], one + two},
		"half the first one": {one[:len(one)-9], ""},
		"another text":       {"root:x:0:0\n", ""},
		"empty lines":        {"a\n\nb\n\n", ""},
	} {
		file := filepath.Join(dir, name)
		check(t, os.WriteFile(file, []byte(c.before), 0o600))
		a := &fileAnchor{name: file, logger: (&said{}).logger()}
		err := a.check()
		if err == nil {
			err = a.deliver(t.Context(), pending{size: 2, note: note(t, signer, 2)})
		}
		got, rerr := os.ReadFile(file)
		check(t, rerr)
		switch {
		case c.after == "":
			wantErr(t, err, "does not end with a checkpoint")
			if string(got) != c.before {
				t.Errorf("%s was changed: %q", name, got)
			}
		case err != nil || string(got) != c.after:
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAnAnchorThatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	check(t, os.Symlink(filepath.Join(dir, "target"), link))
	for file, want := range map[string]string{
		dir: "not a regular file", link: "not a regular file", "/dev/null": "not a regular file",
		filepath.Join(dir, "no", "file"): "create it", filepath.Join(link, "x"): "anchor",
	} {
		_, err := New(Config{Anchors: []Target{anchorAt(t, file)}})
		wantErr(t, err, want, file)
	}
	if _, err := os.Stat(filepath.Join(dir, "target")); err == nil {
		t.Error("the link was followed")
	}
}

func TestAFileAnchorThatIsAwayIsTriedAgain(t *testing.T) {
	signer, dir := newSigner(t), filepath.Join(t.TempDir(), "volume")
	check(t, os.Mkdir(dir, 0o700))
	var log said
	s := prepare(t, "", Config{Anchors: []Target{anchorAt(t, filepath.Join(dir, "notes"))}, Logger: log.logger()})
	check(t, s.Start("sess_1", nil))
	t.Cleanup(func() { stop(s) })
	check(t, os.Rename(dir, dir+".away"))
	s.Publish(1, note(t, signer, 1))
	eventually(t, "it fails", func() bool { return s.Anchors()[0].Failures > 3 })
	check(t, os.Rename(dir+".away", dir))
	eventually(t, "it works", func() bool { return s.Anchors()[0].Acknowledged == 1 })
	if n := strings.Count(log.String(), "takes no checkpoints"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	if !bytes.Contains([]byte(log.String()), []byte("create it")) {
		t.Error(log.String())
	}
}
