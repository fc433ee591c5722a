package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// anchored returns n notes, and the file that has them.
func anchored(t *testing.T, n int) (notes [][]byte, file []byte) {
	s := signer(t, "log.example")
	for i := range n {
		c := sample()
		c.Size = uint64(i + 1)
		notes = append(notes, sign(t, s, c))
	}
	return notes, bytes.Join(notes, []byte("\n"))
}

// readAnchor is all that EachAnchored gives.
func readAnchor(r io.Reader) (notes [][]byte, err error) {
	err = EachAnchored(r, func(msg []byte) error {
		notes = append(notes, bytes.Clone(msg))
		return nil
	})
	return notes, err
}

func TestAnAnchorGivesItsNotesInOrder(t *testing.T) {
	want, file := anchored(t, 3)
	for name, r := range map[string]io.Reader{
		"as written":             bytes.NewReader(file),
		"in single bytes":        iotest.OneByteReader(bytes.NewReader(file)),
		"an empty line at last":  bytes.NewReader(append(bytes.Clone(file), '\n')),
		"torn in the text":       bytes.NewReader(append(append(bytes.Clone(file), '\n'), file[:20]...)),
		"torn after a line":      bytes.NewReader(append(append(bytes.Clone(file), '\n'), "log.example\n"...)),
		"torn at the empty line": bytes.NewReader(append(append(bytes.Clone(file), '\n'), "log.example\n7\n\n"...)),
		"torn in a signature":    bytes.NewReader(append(append(bytes.Clone(file), '\n'), want[0][:len(want[0])-1]...)),
		"zeros at the end":       bytes.NewReader(append(bytes.Clone(file), make([]byte, 512)...)),
	} {
		got, err := readAnchor(r)
		if err != nil || !bytes.Equal(bytes.Join(got, nil), bytes.Join(want, nil)) || len(got) != len(want) {
			t.Errorf("%s: %d notes, %v", name, len(got), err)
		}
	}
	if got, err := readAnchor(strings.NewReader("")); err != nil || len(got) != 0 {
		t.Errorf("an empty file: %d notes, %v", len(got), err)
	}
}

func TestAMangledAnchorIsRefused(t *testing.T) {
	notes, file := anchored(t, 2)
	for name, c := range map[string]struct {
		text, want string
	}{
		"lines of another system": {strings.ReplaceAll(string(file), "\n", "\r\n"), "line 1: it ends with a carriage return"},
		"an empty line at first":  {"\n" + string(file), "line 1"},
		"two empty lines between": {string(notes[0]) + "\n\n" + string(notes[1]), "line 9"},
		"two empty lines within":  {"a\n\n\n— b c\n", "line 3"},
		"a note without measure":  {strings.Repeat("a\n", MaxNote), "longer than"},
		"a line without measure":  {strings.Repeat("a", 2*MaxNote) + "\n", "longer than"},
	} {
		if _, err := readAnchor(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("disk on fire")
	if _, err := readAnchor(io.MultiReader(bytes.NewReader(file), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a read that fails: %v", err)
	}
	stop := errors.New("stop")
	if err := EachAnchored(bytes.NewReader(file), func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the caller: %v", err)
	}
}

func TestTheLastNoteOfAnAnchorIsFoundAtItsEnd(t *testing.T) {
	notes, _ := anchored(t, 100)
	var file, last []byte
	for _, note := range notes {
		for _, torn := range []int{0, 1, len(note) / 2} { // an end that was being written
			got, err := LastAnchored(bytes.NewReader(append(bytes.Clone(file), note[:torn]...)), int64(len(file)+torn))
			if err != nil || !bytes.Equal(got, last) {
				t.Fatalf("behind %d bytes and %d: %q, %v", len(file), torn, got, err)
			}
		}
		last = note
		file = append(append(file, note...), '\n')
	}
	if len(file) <= lastTail {
		t.Fatal("all of the file is its end")
	}
	if _, err := LastAnchored(bytes.NewReader(file), int64(len(file))+1); err != nil {
		t.Errorf("a file that has become shorter: %v", err)
	}
	if _, err := LastAnchored(failing{}, 10); err == nil {
		t.Error("an anchor that cannot be read has none")
	}
	if _, err := LastAnchored(strings.NewReader("\n\n\n"), 3); err == nil {
		t.Error("what is no anchor was read as one")
	}
}

// failing cannot be read.
type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }
