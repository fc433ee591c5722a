package passage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a question.
const (
	asked    = 64              // questions at once; more wait for their turn, as the listener's queue is short
	patience = 5 * time.Second // of a question whose context has no earlier end
)

// Client is the engine's end. Make one with NewClient. It is safe for
// concurrent use.
type Client struct {
	path     string
	turns    chan struct{}
	idle     chan *net.UnixConn // connections between two questions
	resolver *net.Resolver
	marked   func(fd int) (bool, error)
}

// NewClient makes a Client of the socket at path. Nothing is dialled before a
// question: aegrail-init may come later, and come back.
func NewClient(path string) *Client {
	c := &Client{path: path, turns: make(chan struct{}, asked), idle: make(chan *net.UnixConn, asked), marked: isMarked}
	c.resolver = &net.Resolver{PreferGo: true, Dial: c.DialContext} // to a server's address, so that no name needs a resolver
	return c
}

// DialContext dials as a net.Dialer does, by sockets that are marked before
// they connect, those that ask for names among them.
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{ControlContext: c.Control, Resolver: c.resolver}
	return d.DialContext(ctx, network, address)
}

// Control is a net.Dialer's ControlContext: it has the socket marked, or fails,
// and with it the dial. Its errors are about this machine and never an
// errno of the network's.
func (c *Client) Control(ctx context.Context, _, _ string, socket syscall.RawConn) error {
	var err error
	if cerr := socket.Control(func(fd uintptr) { err = c.mark(ctx, int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func (c *Client) mark(ctx context.Context, fd int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return c.failed(ctx, ctx.Err())
	}
	answer, err := c.ask(ctx, unix.UnixRights(fd))
	if err != nil {
		return c.failed(ctx, cmp.Or(ctx.Err(), err)) // what its end does to the connection says less
	}
	if answer != Marked {
		return c.failed(ctx, errors.New(answer.String()))
	}
	switch ok, err := c.marked(fd); {
	case err != nil:
		return c.failed(ctx, fmt.Errorf("reading the mark back: %w", err))
	case !ok:
		return c.failed(ctx, errors.New("it says that the socket is marked, and it is not"))
	}
	return nil
}

// failed keeps err's text and not err: that the socket of aegrail-init refuses
// must not be taken for what is dialled refusing.
func (c *Client) failed(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("the way out of the pod: aegrail-init, at %s, did not mark the socket, and nothing leaves without the mark: %v; see whether the container aegrail-init runs", c.path, err) //nolint:errorlint // on purpose
}

// isMarked reads the mark back, which needs no capability.
func isMarked(fd int) (bool, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
	return n == Mark, err
}

// ask asks on a connection of an earlier question, or on a new one. That an old
// one has ended says only that aegrail-init has been away.
func (c *Client) ask(ctx context.Context, rights []byte) (Answer, error) {
	for {
		var conn *net.UnixConn
		select {
		case conn = <-c.idle:
		default:
			return c.askNew(ctx, rights)
		}
		if answer, err := c.askOn(ctx, conn, rights); err == nil || ctx.Err() != nil {
			return answer, err
		}
	}
}

func (c *Client) askNew(ctx context.Context, rights []byte) (Answer, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
	if err != nil {
		return 0, err
	}
	return c.askOn(ctx, conn.(*net.UnixConn), rights)
}

// askOn asks on conn, which it keeps for the next question or closes.
func (c *Client) askOn(ctx context.Context, conn *net.UnixConn, rights []byte) (Answer, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	answer, err := ask(conn, rights)
	if !stop() || err != nil || answer != Marked {
		_ = conn.Close()
		return answer, err
	}
	c.idle <- conn // there is room: it has as much as there are turns
	return answer, nil
}

func ask(conn *net.UnixConn, rights []byte) (Answer, error) {
	_, _, err := conn.WriteMsgUnix([]byte{Version}, rights, nil)
	// A stranger is answered before the question, so that it may not get that out.
	var answer [1]byte
	if _, rerr := conn.Read(answer[:]); rerr != nil {
		return 0, errors.Join(err, rerr)
	}
	return Answer(answer[0]), nil
}

// Check returns nil if somebody answers at path, as aegrail-init does: nothing
// is handed over, so that the answer is a refusal.
func Check(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := NewClient(path).askNew(ctx, nil)
	if err == nil && answer != Stranger && answer != NoSocket {
		err = errors.New(answer.String())
	}
	if err != nil {
		return fmt.Errorf("asking at %s: %w", path, err)
	}
	return nil
}
