package ship

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// anchor brings checkpoints to one place. Its goroutine is the only one that
// talks to it.
type anchor struct {
	target  Target
	deliver func(context.Context, pending) error
	pace    pace
	trouble trouble
	acked   atomic.Uint64 // size of the newest checkpoint that is there

	mu      sync.Mutex
	newest  pending       // waits to be brought; no note: nothing waits
	wake    chan struct{} // has room for one
	closing chan struct{}
	done    chan struct{}
}

// pending is a signed note about the first size records.
type pending struct {
	size uint64
	note []byte
}

// publish never blocks. A checkpoint that waits is superseded: the newer one
// covers what it covers.
func (a *anchor) publish(c pending) {
	a.mu.Lock()
	a.newest = c
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // it is awake
	}
}

func (a *anchor) waiting() (pending, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.newest, len(a.newest.note) > 0
}

// brought forgets c, unless a newer one waits by now.
func (a *anchor) brought(c pending) {
	a.acked.Store(c.size)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest.size == c.size {
		a.newest = pending{}
	}
}

// run brings what is published until ctx ends, or until close was called and
// nothing waits.
func (a *anchor) run(ctx context.Context) {
	defer close(a.done)
	closing := a.closing
	for failures := 0; ; {
		c, ok := a.waiting()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-a.closing:
				if _, more := a.waiting(); !more {
					return
				}
			case <-a.wake:
			}
			continue
		}
		err := a.deliver(ctx, c)
		if err == nil {
			failures = 0
			a.brought(c)
			a.trouble.worked("size", c.size)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		failures++
		a.trouble.failed(err, "size", c.size)
		if !pause(ctx, a.pace.wait(failures, err), closing) {
			return
		}
		if closed(a.closing) {
			closing = nil // once at once, then at the usual pace
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lost says what could not be brought, after run has ended.
func (a *anchor) lost() error {
	c, ok := a.waiting()
	if !ok {
		return nil
	}
	_, _, last := a.trouble.counts()
	if last == "" {
		last = "there was no time"
	}
	return fmt.Errorf("anchor %s: the last checkpoint, of %d records, is not there: %s", &a.target, c.size, last)
}

// httpAnchor posts notes.
type httpAnchor struct {
	target  *Target
	client  *http.Client
	headers http.Header
}

func (h *httpAnchor) deliver(ctx context.Context, c pending) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.target.url.String(), strings.NewReader(string(c.note)))
	if err != nil {
		return bare(err)
	}
	req.Header = h.headers.Clone()
	req.Header.Set("Content-Type", "text/plain")
	return h.target.post(ctx, h.client, req)
}

// grace is how long a goroutine that was told to stop may take: long enough for
// a request to notice, not for a disk that hangs.
const grace = time.Second
