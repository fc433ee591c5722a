package isolation

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is the two ends of a control socket.
func pair(t *testing.T) (a, b control) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]control, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "control")
		if ends[i], err = controlOf(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].conn.Close() })
	}
	return ends[0], ends[1]
}

func soon() time.Time { return time.Now().Add(20 * time.Second) }

func TestMessagesComeWithTheirDescriptors(t *testing.T) {
	a, b := pair(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	long := Command{Path: "/bin/true", Args: []string{"true"}, Env: []string{"LONG=" + strings.Repeat("x", 1<<20)}}
	go func() {
		_ = a.send(message{Sockets: []socket{forwardSocket}}, int(f.Fd()))
		_ = a.send(message{Command: &long})
	}()
	m, fds, err := b.receive(soon())
	if err != nil || len(fds) != 1 || !slices.Equal(m.Sockets, []socket{forwardSocket}) {
		t.Fatalf("%+v, %v, %v", m, fds, err)
	}
	var l Listeners
	if err := l.take(m.Sockets, fds); err == nil { // the others are missing
		t.Error("an engine without a transparent port was taken")
	}
	if l.Forward == nil || l.Forward.Addr().String() != ln.Addr().String() {
		t.Errorf("the listener is %v, not %v", l.Forward, ln.Addr())
	}
	l.Close()
	m, fds, err = b.receive(soon())
	if err != nil || fds != nil || m.Command == nil || len(m.Command.Env[0]) != 5+1<<20 {
		t.Fatalf("%v, %v", fds, err)
	}
}

// Paths, arguments and variables are bytes to the kernel.
func TestStringsNeedNotBeUTF8(t *testing.T) {
	a, b := pair(t)
	want := message{
		Files:   &Files{ResolvConf: "/tmp/\xe9", Hidden: []string{"/caf\xe9/key"}, ReadOnly: []string{"\xff"}, Sockets: []string{"/run/\x80\ufffd"}},
		Command: &Command{Path: "/\xe9", Args: []string{"\xe9", ""}, Env: []string{"A=\xf0\x28"}},
	}
	go func() { _ = a.send(want) }()
	got, _, err := b.receive(soon())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %+v, %v", got.Files, got.Command, err)
	}
}

// encoded is v as a message.
func encoded(t *testing.T, v any) []byte {
	t.Helper()
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(v); err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(body.Len())), body.Bytes()...)
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	for name, sent := range map[string][]byte{
		"too long":    binary.BigEndian.AppendUint32(nil, maxMessage+1),
		"cut":         {0, 0, 0, 9, '{'},
		"no length":   {0, 0},
		"no message":  {0, 0, 0, 1, 'x'},
		"nothing":     {},
		"an odd type": encoded(t, struct{ Locked string }{"yes"}),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			if _, err := a.conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			_ = a.conn.Close()
			if m, _, err := b.receive(soon()); err == nil {
				t.Errorf("taken for %+v", m)
			}
		})
	}
	a, b := pair(t)
	if _, _, err := b.receive(time.Unix(1, 0)); err == nil {
		t.Error("no deadline")
	}
	if err := a.send(message{Command: &Command{Path: strings.Repeat("x", maxMessage)}}); err == nil {
		t.Error("a message beyond the limit was sent")
	}
}

func TestASocketThatIsNotWhatItSaysIsRefused(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := controlOf(r); err == nil {
		t.Error("a pipe was taken for a control socket")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := controlOf(f); err == nil {
		t.Error("a TCP socket was taken for a control socket")
	}
	var l Listeners
	for _, kind := range []socket{packetSocket, "other"} {
		if err := l.takeOne(kind, f); err == nil {
			t.Errorf("a TCP listener was taken for %q", kind)
		}
	}
	for _, kind := range []socket{packetSocket, forwardSocket} {
		if err := l.takeOne(kind, r); err == nil {
			t.Errorf("a pipe was taken for %q", kind)
		}
	}
}

func TestWhyNamespacesAreForbiddenIsLookedFor(t *testing.T) {
	if got := forbidden(io.EOF); got != "" {
		t.Errorf("%v: %q", io.EOF, got)
	}
	for _, err := range []error{syscall.EPERM, &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: syscall.ENOSPC}} {
		if got := forbidden(err); !strings.HasPrefix(got, "; ") {
			t.Errorf("%v: %q", err, got)
		}
		if got := unwrapPath(err).Error(); strings.Contains(got, "/proc") {
			t.Errorf("%q names a file", got)
		}
	}
	if got := forbiddenText("mounting: " + syscall.EPERM.Error()); got == "" {
		t.Error("no reason")
	}
	if got := forbiddenText("no nf_tables"); got != "" {
		t.Errorf("a reason: %q", got)
	}
}

func TestSocketsOfOtherProgramsAreFound(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "deep", "a socket")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := findSockets(dir, filepath.Join(dir, "none"), dir); !slices.Equal(got, []string{path}) {
		t.Errorf("found %q", got)
	}
	bound, err := boundSockets()
	if err != nil || !slices.Contains(bound, path) {
		t.Errorf("%q is not among %q, %v", path, bound, err)
	}
}
