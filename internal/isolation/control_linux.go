package isolation

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// controlFD is the control socket in the child, in both of its stages.
	controlFD = 3

	// maxMessage bounds a message: arguments and environment of a command,
	// which the kernel keeps under 6 MiB together (execve(2)).
	maxMessage = 16 << 20

	// maxFDs bounds the sockets that come with one.
	maxFDs = 16
)

// message is what the engine and the child say to each other, one member at a
// time. Each is preceded by its length, 4 bytes big-endian. It is gob, which
// keeps strings as they are: paths, arguments and variables need not be UTF-8.
type message struct {
	Files   *Files   // engine to setup: go on with these
	Sockets []socket // setup to engine: what the descriptors with it are
	Locked  bool     // init to engine: nothing is left that could be used
	Command *Command // engine to init
	Started bool     // init to engine: it runs
	Failed  string   // child to engine: why not; it ends
}

// socket says what a descriptor is for.
type socket string

const (
	forwardSocket     socket = "forward"
	transparentSocket socket = "transparent"
	packetSocket      socket = "dns packet"
	streamSocket      socket = "dns stream"
)

// control is one end of the socket pair.
type control struct{ conn *net.UnixConn }

// controlOf wraps f, which stays the caller's.
func controlOf(f *os.File) (control, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return control{}, fmt.Errorf("the control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return control{}, errors.New("the control socket is none: this command is for the engine's own use")
	}
	return control{u}, nil
}

// send writes m and, with it, descriptors.
func (c control) send(m message, fds ...int) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(m); err != nil {
		return err
	}
	if body.Len() > maxMessage {
		return fmt.Errorf("a command of %d bytes with its environment is too long", body.Len())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(body.Len()))
	if _, _, err := c.conn.WriteMsgUnix(head, rights, nil); err != nil {
		return err
	}
	_, err := c.conn.Write(body.Bytes())
	return err
}

// receive reads the next message and what came with it. The deadline is zero
// for none.
func (c control) receive(deadline time.Time) (m message, fds []int, err error) {
	_ = c.conn.SetReadDeadline(deadline)
	head, rights := make([]byte, 4), make([]byte, unix.CmsgSpace(4*maxFDs))
	n, rn, _, _, err := c.conn.ReadMsgUnix(head, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return m, nil, err
	}
	if fds, err = descriptors(rights[:rn]); err != nil {
		return m, nil, err
	}
	if _, err := io.ReadFull(c.conn, head[n:]); err != nil {
		return m, fds, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return m, fds, fmt.Errorf("a message of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return m, fds, err
	}
	return m, fds, gob.NewDecoder(bytes.NewReader(body)).Decode(&m)
}

func descriptors(rights []byte) ([]int, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
		}
		all = append(all, fds...)
	}
	return all, nil
}
