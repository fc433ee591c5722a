package upstream

import (
	"io"
	"net/http"
	"net/textproto"
	"sync"
	"sync/atomic"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// h2body is a request's body for net/http, which reads it in a goroutine of its
// own and closes it when it wants no more.
type h2body struct {
	client  *Client
	permit  policy.Permit
	src     Body
	trailer http.Header // announced by its keys, filled at the end; net/http sends it then

	closed  atomic.Bool
	ended   atomic.Bool
	touched atomic.Bool
	cause   atomic.Pointer[error] // what src failed with by itself, unaborted

	mu   sync.Mutex // held while src is read
	rest []byte
	err  error
}

func newH2Body(c *Client, p policy.Permit, req *canon.Request, src Body) *h2body {
	if req.Framing == http1.NoBody {
		src = nil
	}
	b := &h2body{client: c, permit: p, src: src, trailer: http.Header{}}
	for _, name := range req.Trailers {
		b.trailer[textproto.CanonicalMIMEHeaderKey(string(name))] = nil
	}
	return b
}

// Read implements io.Reader.
func (b *h2body) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		if e := b.client.recovered(recover()); e != nil {
			n, err = 0, b.fail(e)
		}
	}()
	if b.closed.Load() {
		return 0, errClosed
	}
	if len(b.rest) == 0 && b.err == nil {
		b.touched.Store(true)
		b.rest, b.err = b.src.Next()
		if b.err != nil && b.err != io.EOF && !b.closed.Load() {
			b.cause.Store(&b.err)
		}
	}
	n = copy(p, b.rest)
	b.rest = b.rest[n:]
	if len(b.rest) > 0 || b.err == nil {
		return n, nil
	}
	if b.err == io.EOF && !b.ended.Load() {
		fields, err := trailersOf(&b.permit, b.src)
		if err != nil {
			return 0, b.fail(err)
		}
		for _, f := range fields {
			name := textproto.CanonicalMIMEHeaderKey(string(f.Name))
			b.trailer[name] = append(b.trailer[name], string(f.Value))
		}
		b.ended.Store(true)
	}
	return n, b.err
}

// fail ends b with an error of ours. Called with mu held.
func (b *h2body) fail(err error) error {
	b.err, b.rest = err, nil
	b.cause.Store(&err)
	return err
}

// Close implements io.Closer. It does not wait.
func (b *h2body) Close() error {
	if !b.closed.Swap(true) && b.src != nil && !b.ended.Load() {
		b.src.Abort()
	}
	return nil
}

// finish closes b and waits until src is not in use.
func (b *h2body) finish() {
	_ = b.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = nil
}
