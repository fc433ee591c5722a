package upstream

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// lastWord is how long end waits for a body whose declared bytes are all sent
// to say that it has ended.
const lastWord = 100 * time.Millisecond

// chunkData is the most that goes into one chunk: with its framing it fits the
// buffer, and with TLS four records.
const chunkData = 64 << 10

// upload sends a large or chunked body in a goroutine of its own, while the
// exchange's reads the answer. The methods may be called on nil: no upload.
type upload struct {
	c      *conn
	permit policy.Permit
	body   Body
	left   int64 // of the declared length; -1 if chunked

	begun   bool
	stopped atomic.Bool   // by stop
	sent    atomic.Bool   // all that is needed for the answer is written
	done    chan struct{} // closed at the end of the goroutine
	err     error         // why it ended early; read after done
	cutting bool          // err ended the exchange too
}

func newUpload(c *conn, req *canon.Request, body Body) *upload {
	u := &upload{c: c, permit: c.permit, body: body, left: -1, done: make(chan struct{})}
	if req.Framing == http1.Length {
		u.left = req.Length
	}
	return u
}

func (u *upload) start() {
	u.begun = true
	go func() {
		u.err, u.cutting = u.run()
		close(u.done) // before cut: who then fails to read asks for the cause
		if u.cutting && !u.stopped.Load() {
			u.c.cut()
		}
	}()
}

// run sends the body. cutting: the exchange is not to go on. A peer that takes
// no more may still answer, so that this is not such a case.
func (u *upload) run() (err error, cutting bool) {
	defer func() {
		if e := u.c.client.recovered(recover()); e != nil {
			err, cutting = e, true
		}
	}()
	buf := u.c.client.bufs.Get().(*[]byte)
	cork := u.c.client.bufs.Get().(*[]byte)
	defer u.c.client.bufs.Put(buf)
	defer u.c.client.bufs.Put(cork)
	for {
		p, err := u.body.Next()
		end := err == io.EOF
		if err != nil && !end {
			return bodyError(err), true
		}
		if u.left >= 0 && int64(len(p)) > u.left || end && u.left > int64(len(p)) {
			return fail(ReasonRequestAborted, http.StatusBadRequest,
				fmt.Sprintf("the body is not as long as declared: %d bytes were to come, %d came", u.left, len(p)), nil), true
		}
		var trailers []http1.Field
		if end && u.left < 0 {
			if trailers, err = trailersOf(&u.permit, u.body); err != nil {
				return err, true
			}
		}
		if err := u.write(p, *buf, *cork); err != nil {
			return u.c.writeError(err), timedOut(err)
		}
		if !end {
			continue
		}
		u.sent.Store(true)
		if u.left >= 0 {
			return nil, false
		}
		if err := u.flush(http1.AppendLastChunk((*buf)[:0], trailers), *cork); err != nil {
			return u.c.writeError(err), timedOut(err)
		}
		return nil, false
	}
}

// write sends p.
func (u *upload) write(p, buf, cork []byte) error {
	if u.left >= 0 {
		if len(p) == 0 {
			return nil
		}
		u.left -= int64(len(p))
		if u.left == 0 {
			u.sent.Store(true)
		}
		return u.flush(p, cork)
	}
	for len(p) > 0 {
		n := min(len(p), chunkData)
		out := http1.AppendChunkHead(buf[:0], n)
		out = append(append(out, p[:n]...), "\r\n"...)
		if err := u.flush(out, cork); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// flush writes out; the TLS records of a large one go in one write(2).
func (u *upload) flush(out, cork []byte) error {
	c := u.c
	c.allowWrite(c.client.conf.WriteTimeout)
	if u.stopped.Load() { // the deadline that stop set may just have been moved
		return os.ErrDeadlineExceeded
	}
	if c.tls == nil || len(out) <= 16<<10 {
		_, err := c.rw.Write(out)
		return err
	}
	c.w.cork(cork)
	_, err := c.rw.Write(out)
	if ferr := c.w.uncork(); err == nil {
		err = ferr
	}
	return err
}

// running reports that the request has not ended yet.
func (u *upload) running() bool {
	if u == nil || !u.begun || u.sent.Load() {
		return false
	}
	select {
	case <-u.done:
		return false
	default:
		return true
	}
}

// cause returns what ended both the upload and the exchange.
func (u *upload) cause() error {
	if u == nil || !u.begun {
		return nil
	}
	select {
	case <-u.done:
		if u.cutting {
			return u.err
		}
	default:
	}
	return nil
}

// stop ends an upload that nobody wants any more. It does not wait. One whose
// last byte is on its way is left to end by itself.
func (u *upload) stop() {
	if u == nil || u.sent.Load() || u.stopped.Swap(true) || !u.begun {
		return
	}
	u.body.Abort()
	_ = u.c.w.SetWriteDeadline(time.Unix(1, 0))
}

// end waits until the body is no longer in use, stopping it if need be, and
// reports whether all of it was sent.
func (u *upload) end() bool {
	if u == nil {
		return true
	}
	if !u.begun {
		return false
	}
	u.stop()
	select {
	case <-u.done:
	default:
		t := time.NewTimer(lastWord)
		defer t.Stop()
		select {
		case <-u.done:
		case <-t.C:
			u.body.Abort()
			_ = u.c.w.SetWriteDeadline(time.Unix(1, 0))
			<-u.done
		}
	}
	return u.err == nil && !u.stopped.Load()
}
