package intake

import (
	"net"

	"golang.org/x/sys/unix"
)

// Left asks the kernel whether the peer of c has ended what it sends (finished:
// its FIN has come) or the connection as a whole (broken: a reset). It reads
// nothing, does not wait, and may be called beside a Read.
func Left(c *net.TCPConn) (finished, broken bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true, true
	}
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		for err == unix.EINTR {
			n, err = unix.Poll(poll, 0)
		}
		if err == nil && n > 0 {
			finished = poll[0].Revents&unix.POLLRDHUP != 0
			broken = poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		}
	})
	if err != nil { // closed
		return true, true
	}
	return finished, broken
}
