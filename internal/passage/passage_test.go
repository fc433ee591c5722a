//go:build linux

package passage

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testPatience = 20 * time.Second

// notes is a Server's mark without the capability that the kernel asks for: it
// remembers the sockets.
type notes struct {
	mu    sync.Mutex
	inode map[uint64]bool
	err   error
}

func inode(fd int) uint64 {
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st)
	return st.Ino
}

func (n *notes) mark(fd int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.inode[inode(fd)] = true
	}
	return n.err
}

func (n *notes) many() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.inode)
}

func (n *notes) marked(fd int) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.inode[inode(fd)], nil
}

// pair is a server that serves and a client of it.
type pair struct {
	*Client
	server *Server
	notes  *notes
	stop   func()
}

func newPair(t testing.TB, uid uint32) *pair {
	t.Helper()
	n := &notes{inode: map[uint64]bool{}}
	return pairOf(t, n, &Server{EngineUID: uid, mark: n.mark})
}

func pairOf(t testing.TB, n *notes, s *Server) *pair {
	t.Helper()
	s.Path = filepath.Join(t.TempDir(), "passage")
	p := &pair{notes: n, server: s}
	p.Client = NewClient(p.server.Path)
	p.marked = n.marked
	p.serve(t)
	return p
}

func (p *pair) serve(t testing.TB) {
	t.Helper()
	ln, err := p.server.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, ln) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { p.stop() })
}

func own() uint32 { return uint32(os.Getuid()) }

// echo is a listener that takes connections and holds them.
func echo(t testing.TB, network, addr string) string {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = conn.Read(make([]byte, 1)) // until the other end goes
				conn.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

func TestADialedSocketIsMarkedBeforeItConnects(t *testing.T) {
	p := newPair(t, own())
	for _, to := range [][2]string{{"tcp", echo(t, "tcp4", "127.0.0.1:0")}, {"tcp", echo(t, "tcp6", "[::1]:0")}, {"udp", "127.0.0.1:9"}, {"udp", "[::1]:9"}} {
		conn, err := p.DialContext(t.Context(), to[0], to[1])
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var marked bool
		_ = raw.Control(func(fd uintptr) { marked, _ = p.notes.marked(int(fd)) })
		conn.Close()
		if !marked {
			t.Errorf("%s: was dialled without a mark", to)
		}
	}
}

func TestNamesAreAskedForByMarkedSocketsToo(t *testing.T) {
	p := newPair(t, own())
	conn, err := p.resolver.Dial(t.Context(), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if p.notes.many() != 1 || !p.resolver.PreferGo {
		t.Errorf("%d sockets were marked, and Go's own resolver is asked: %v", p.notes.many(), p.resolver.PreferGo)
	}
}

func TestManyDialAtOnce(t *testing.T) {
	p := newPair(t, own())
	to := echo(t, "tcp4", "127.0.0.1:0")
	var wg sync.WaitGroup
	for range 4 * served {
		wg.Go(func() {
			conn, err := p.DialContext(t.Context(), "tcp", to)
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		})
	}
	wg.Wait()
}

// held fails the test unless a dial fails, with these words and without reaching anybody.
func (p *pair) held(t *testing.T, says string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err == nil {
		conn.Close()
		t.Error("it was dialled")
	} else if !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), p.server.Path) {
		t.Errorf("%v does not say %q, or not where", err, says)
	}
	for _, network := range []error{syscall.ECONNREFUSED, syscall.ENOENT, syscall.EAGAIN} {
		if errors.Is(err, network) {
			t.Errorf("%v looks like what is dialled: %v", err, network)
		}
	}
	// What was dialled would be in the queue by now.
	ln.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	if conn, err := ln.Accept(); err == nil {
		conn.Close()
		t.Error("a connection arrived")
	}
	ln.Close()
}

func TestWithoutAMarkNothingIsDialled(t *testing.T) {
	t.Run("the peer is not the engine's user", func(t *testing.T) {
		newPair(t, own()+1).held(t, Stranger.String())
	})
	t.Run("the kernel refuses", func(t *testing.T) {
		n := &notes{err: syscall.EPERM}
		pairOf(t, n, &Server{EngineUID: own(), mark: n.mark}).held(t, Failed.String())
	})
	t.Run("the answer is not true", func(t *testing.T) {
		pairOf(t, new(notes), &Server{EngineUID: own(), mark: func(int) error { return nil }}).held(t, "it is not")
	})
	t.Run("nobody is there", func(t *testing.T) {
		p := newPair(t, own())
		p.stop()
		p.held(t, "no such file")
	})
	t.Run("nobody listens", func(t *testing.T) {
		p := newPair(t, own())
		p.stop()
		stale(t, p.server.Path)
		p.held(t, "refused")
	})
	for name, answer := range map[string]string{"no answer": "", "a zero": "\x00", "nonsense": "x"} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, own())
			p.stop()
			ln, err := net.Listen("unix", p.server.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 1))
					_, _ = conn.Write([]byte(answer))
					conn.Close()
				}
			}()
			p.held(t, "nothing leaves without the mark")
		})
	}
}

// stale leaves a socket at path that nobody listens on, as a process does that is killed.
func stale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestWhoGivesUpWaitsNoLonger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passage")
	ln, err := net.Listen("unix", path) // and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_, _ = conn.Read(make([]byte, 1))
			cancel()
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1))
		}
	}()
	if _, err := NewClient(path).DialContext(ctx, "tcp", "127.0.0.1:9"); !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "operation was canceled") {
		t.Error(err)
	}
}

func TestAQuestionThatTakesTooLongIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passage")
	ln, err := net.Listen("unix", path) // and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	c := NewClient(path)
	// The dial itself has time enough: it is the question that has none.
	d := net.Dialer{ControlContext: func(_ context.Context, network, address string, socket syscall.RawConn) error {
		return c.Control(ctx, network, address, socket)
	}}
	_, err = d.DialContext(t.Context(), "tcp", "127.0.0.1:9")
	if err == nil || !strings.Contains(err.Error(), "did not mark the socket") || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Error(err)
	}
}

func TestTheEngineGoesOnWhenItIsBack(t *testing.T) {
	p := newPair(t, own())
	to := echo(t, "tcp4", "127.0.0.1:0")
	for _, left := range []bool{false, true} { // it ended, and it was killed
		p.stop()
		if left {
			stale(t, p.server.Path)
		}
		p.held(t, "did not mark the socket")
		p.serve(t)
		conn, err := p.DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// question is what a peer sends, and what it gets.
func (p *pair) question(t *testing.T, data string, fds ...int) Answer {
	t.Helper()
	conn, err := net.Dial("unix", p.server.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testPatience))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte(data), rights, nil); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	got := make([]byte, 2)
	n, err := conn.Read(got)
	if n != 1 {
		t.Errorf("an answer of %d bytes: %v", n, err)
	}
	return Answer(got[0])
}

func TestOnlyASocketThatDialsIsMarked(t *testing.T) {
	p := newPair(t, own())
	socket := func(family, kind, protocol int) int {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tcp, udp := socket(unix.AF_INET, unix.SOCK_STREAM, 0), socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	many := make([]int, 200)
	for i := range many {
		many[i] = tcp
	}
	for name, row := range map[string]struct {
		data string
		fds  []int
		want Answer
	}{
		"TCP":                     {"\x01", []int{tcp}, Marked},
		"UDP":                     {"\x01", []int{udp}, Marked},
		"nothing":                 {"\x01", nil, NoSocket},
		"a file":                  {"\x01", []int{int(file.Fd())}, NoSocket},
		"a unix socket":           {"\x01", []int{socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)}, NoSocket},
		"netlink":                 {"\x01", []int{socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)}, NoSocket},
		"UDP-Lite":                {"\x01", []int{socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)}, NoSocket},
		"two":                     {"\x01", []int{tcp, udp}, NoSocket},
		"more than there is room": {"\x01", many, NoSocket},
		"another version":         {"\x02", []int{tcp}, NoSocket},
		"more than a byte":        {"\x01\x01", []int{tcp}, NoSocket},
		"a lot":                   {strings.Repeat("GET / HTTP/1.1\r\n", 1000), []int{tcp}, NoSocket},
	} {
		before := p.notes.many()
		if got := p.question(t, row.data, row.fds...); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
		if row.want != Marked && p.notes.many() != before {
			t.Errorf("%s: was marked", name)
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds) > 100 {
		t.Errorf("%d descriptors are open, %v: some of those that were handed over stay", len(fds), err)
	}
}

func TestGarbageHoldsNobodyUp(t *testing.T) {
	p := newPair(t, own())
	// Those who say nothing, as many as are served at once; each is cut in its time.
	for range served {
		conn, err := net.Dial("unix", p.server.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	gone, err := net.Dial("unix", p.server.Path)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	conn, err := p.DialContext(t.Context(), "tcp", echo(t, "tcp4", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestWhatIsThereAndIsNoSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passage")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Server{Path: path}).Listen(); err == nil || !strings.Contains(err.Error(), "listening for the engine") {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestAListenerThatIsTakenAwayIsAnError(t *testing.T) {
	s := &Server{Path: filepath.Join(t.TempDir(), "passage")}
	ln, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestCheckAsksWhetherSomebodyServes(t *testing.T) {
	for _, uid := range []uint32{own(), own() + 1} { // whoever checks
		p := newPair(t, uid)
		if err := Check(t.Context(), p.server.Path); err != nil {
			t.Error(err)
		}
		p.stop()
		if err := Check(t.Context(), p.server.Path); err == nil || !strings.Contains(err.Error(), p.server.Path) {
			t.Error(err)
		}
	}
}

func TestEachAnswerSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for a := Answer(0); a <= Failed; a++ {
		if seen[a.String()] {
			t.Errorf("%d says what another says", a)
		}
		seen[a.String()] = true
	}
	if Answer(0).String() != Answer(200).String() {
		t.Error("the zero value is an answer")
	}
	if Mark&(0x4000|0x8000|0x0f00|0x80) != 0 || Mark>>16 != 0 {
		t.Error("the mark has bits that are others'")
	}
}
