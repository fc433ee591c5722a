package audit

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
)

// stream is a standard output that fails or blocks when told.
type stream struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	write func(b []byte) (int, error)
}

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	w := s.write
	s.mu.Unlock()
	n, err := len(b), error(nil)
	if w != nil {
		n, err = w(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(b[:n])
	return n, err
}

func (s *stream) set(w func([]byte) (int, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write = w
}

func TestStandardOutputAloneIsTheTruth(t *testing.T) {
	out := &stream{}
	l := open(t, Config{Stdout: out})
	mustDecide(t, l, 1)
	for _, part := range []int{0, 1, 500, 1 << 20} { // of a batch, before the pipe breaks
		out.set(func(b []byte) (int, error) { return min(part, len(b)), io.ErrClosedPipe })
		if err := noReceipt(t, l, 2); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		if l.Err() == nil {
			t.Fatal("ready without a log")
		}
		noReceipt(t, l, 3) // and the rest of the batch does not get out either
		out.set(func(b []byte) (int, error) { return len(b) / 2, nil })
		noReceipt(t, l, 4)
		out.set(nil)
		mustDecide(t, l, 5)
	}
	l.tick()
	closeLog(t, l)
	rep, err := Verify([]string{"-"}, VerifyOptions{Stdin: bytes.NewReader(out.buf.Bytes())})
	if err != nil || rep.Events["engine_shutdown"] != 1 {
		t.Fatalf("%+v, %v\n%s", rep, err, out.buf.String())
	}
}

func TestStandardOutputBesideAFileIsACopy(t *testing.T) {
	out, file := &stream{}, logFile(t)
	l := open(t, Config{Stdout: out, File: file})
	mustDecide(t, l, 1)
	closeLog(t, l)
	if !bytes.Equal(out.buf.Bytes(), contents(t, file)) {
		t.Fatalf("the copy differs:\n%s", out.buf.String())
	}
}

func TestACopyThatIsStuckHoldsNothingUp(t *testing.T) {
	out, gate, held := &stream{}, make(chan struct{}), make(chan struct{})
	var once sync.Once
	out.set(func(b []byte) (int, error) {
		once.Do(func() { close(held); <-gate })
		return len(b), nil
	})
	file := logFile(t)
	l := open(t, Config{Stdout: out, File: file})
	<-held
	r := decision(1)
	r.Detail = strings.Repeat("x", maxDetail)
	for l.Stats().Dropped < 2 {
		if _, err := l.Decide(r); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	closeLog(t, l)
	verified(t, file)
	if b := out.buf.Bytes(); b[len(b)-1] != '\n' || len(b) >= len(contents(t, file)) {
		t.Fatalf("%d bytes were copied", len(b))
	}
	if err := Read(bytes.NewReader(out.buf.Bytes()), func(*Entry) error { return nil }); err != nil {
		t.Fatal("the copy has parts of records:", err)
	}
}

func TestACopyThatFailsIsCounted(t *testing.T) {
	out, file := &stream{}, logFile(t)
	out.set(func([]byte) (int, error) { return 0, io.ErrClosedPipe })
	l := open(t, Config{Stdout: out, File: file})
	mustDecide(t, l, 1)
	closeLog(t, l)
	verified(t, file)
	if l.Stats().Dropped == 0 {
		t.Fatal("not counted")
	}
}

func TestCloseDoesNotWaitForAStuckCopyForEver(t *testing.T) {
	c := newCopier(blocked{make(chan struct{})})
	c.wait = 1
	c.add([]byte("x\n"))
	c.close()
	close(c.w.(blocked).gate)
	<-c.done
}

type blocked struct{ gate chan struct{} }

func (b blocked) Write(p []byte) (int, error) {
	<-b.gate
	return len(p), nil
}
