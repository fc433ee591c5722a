package intake

import (
	"io"
	"net"
	"testing"
	"time"
)

// pair is a connection over loopback.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = accepted.Close() })
	return accepted.(*net.TCPConn), conn.(*net.TCPConn)
}

func TestLeftSeesAnEndBehindUnreadBytes(t *testing.T) {
	for name, row := range map[string]struct {
		leave            func(c *net.TCPConn) error
		finished, broken bool
	}{
		"nothing but bytes": {func(*net.TCPConn) error { return nil }, false, false},
		"a half-close":      {(*net.TCPConn).CloseWrite, true, false},
		"a close":           {(*net.TCPConn).Close, true, false},
		"a reset": {func(c *net.TCPConn) error {
			if err := c.SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			if _, err := io.WriteString(theirs, "the next request"); err != nil {
				t.Fatal(err)
			}
			if err := row.leave(theirs); err != nil {
				t.Fatal(err)
			}
			var finished, broken bool
			for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
				if finished, broken = Left(ours); finished == row.finished && broken == row.broken {
					break
				}
			}
			if finished != row.finished || broken != row.broken {
				t.Errorf("finished %t, broken %t; want %t, %t", finished, broken, row.finished, row.broken)
			}
			if row.broken {
				return
			}
			got := make([]byte, len("the next request"))
			if _, err := io.ReadFull(ours, got); err != nil || string(got) != "the next request" {
				t.Errorf("what was sent before reads as %q, %v", got, err)
			}
		})
	}
	ours, _ := pair(t)
	_ = ours.Close()
	if finished, broken := Left(ours); !finished || !broken {
		t.Error("a connection that we have closed is open")
	}
}
