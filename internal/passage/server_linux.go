package passage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of what is served.
const (
	served      = 2 * asked       // connections at once; more wait in the listener's queue
	askTime     = 2 * time.Second // until a connection's first question, and for each answer
	idleTime    = time.Minute     // until its next question
	acceptPause = 50 * time.Millisecond
)

// Server is aegrail-init's end. Its fields are set before it serves.
type Server struct {
	Path string // where it listens; what is left there of an earlier one is replaced

	// EngineUID is who may ask.
	EngineUID uint32

	mark func(fd int) error // nil: setMark
}

// Listen makes the socket. Whoever has its directory may dial it.
func (s *Server) Listen() (*net.UnixListener, error) {
	if info, err := os.Lstat(s.Path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(s.Path); err != nil {
			return nil, fmt.Errorf("removing what an earlier aegrail-init left: %w", err)
		}
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.Path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening for the engine: %w", err)
	}
	// The engine is another user, and there is no capability to change the owner.
	if err := os.Chmod(s.Path, 0o666); err != nil { //nolint:gosec // the volume is what keeps others out
		_ = ln.Close()
		return nil, fmt.Errorf("letting the engine's user ask: %w", err)
	}
	return ln, nil
}

// Serve answers at ln until ctx ends, and then closes it. What is under way is
// answered before it returns. What peers do wrong ends their own connection.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var under sync.WaitGroup
	defer under.Wait()
	slots := make(chan struct{}, served)
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listening for the engine: %w", err)
		case err != nil: // descriptors or memory are short; it passes
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		slots <- struct{}{}
		under.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
			s.converse(ctx, conn)
		})
	}
}

// converse answers questions on conn until one is not answered with Marked.
func (s *Server) converse(ctx context.Context, conn *net.UnixConn) {
	wait := askTime
	for answer := Marked; answer == Marked; wait = idleTime {
		_ = conn.SetDeadline(time.Now().Add(wait))
		if ctx.Err() != nil {
			return // the deadline that ends this may have come before that one
		}
		answer = Stranger
		if s.knows(conn) {
			fds, err := receive(conn)
			if err != nil {
				return
			}
			answer = s.answer(fds)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(askTime))
		if _, err := conn.Write([]byte{byte(answer)}); err != nil {
			return
		}
	}
}

// knows reports that conn is the engine's.
func (s *Server) knows(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cerr == nil && err == nil && peer.Uid == s.EngineUID
}

// answer marks the one socket in fds, and closes them all: the engine has its own.
func (s *Server) answer(fds []int) Answer {
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	if len(fds) != 1 || !dials(fds[0]) {
		return NoSocket
	}
	mark := s.mark
	if mark == nil {
		mark = setMark
	}
	if err := mark(fds[0]); err != nil {
		return Failed
	}
	return Marked
}

// receive returns the descriptors that came with a question, which the caller
// closes: none if the question is not as it has to be. An error is that there
// is no question.
func receive(conn *net.UnixConn) ([]int, error) {
	// Room for a byte and a descriptor too many, to see that there were; the kernel closes what does not fit.
	data, rights := make([]byte, 2), make([]byte, unix.CmsgSpace(2*4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil || n == 0 && oobn == 0 {
		return nil, errors.Join(err, io.EOF)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	bad := err != nil || n != 1 || data[0] != Version || flags&unix.MSG_CTRUNC != 0
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		fds, bad = append(fds, got...), bad || err != nil
	}
	if bad {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, nil
	}
	return fds, nil
}

// dials reports that fd is a socket of the kind that the engine dials with.
func dials(fd int) bool {
	option := func(name int) int {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		if err != nil {
			return -1
		}
		return n
	}
	family, kind, protocol := option(unix.SO_DOMAIN), option(unix.SO_TYPE), option(unix.SO_PROTOCOL)
	return (family == unix.AF_INET || family == unix.AF_INET6) &&
		(kind == unix.SOCK_STREAM && protocol == unix.IPPROTO_TCP || kind == unix.SOCK_DGRAM && protocol == unix.IPPROTO_UDP)
}

func setMark(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, Mark) }
