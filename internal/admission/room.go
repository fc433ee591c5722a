package admission

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// What the texts of all questions that are not answered yet may hold in memory. Anybody who reaches the port may send them, and
// the API server does not say who it is; so an address has a share, and waits when it is used up: 600 requests at once, an API server's
// own limit, may have 27 KiB each.
const (
	maxHeld      = 64 << 20 // 64 MiB
	maxHeldOfOne = 16 << 20 // 16 MiB, of one address
	leastHeld    = 4 << 10  // 4 KiB: what the shortest question counts for, and so what bounds their number

	// A question about a pod is short, and whoever promises long ones and sends nothing must not keep it waiting: those
	// above smallQuestion have three quarters of the memory together.
	smallQuestion  = 64 << 10 // 64 KiB
	maxHeldByLarge = maxHeld / 4 * 3
)

// errNoRoom is a question for whose text there was no memory in time.
var errNoRoom = errors.New("the reviews that are under way hold all the memory there is for them; try again")

// room is the memory for questions. The zero value is empty and ready.
type room struct {
	mu    sync.Mutex
	held  int            // bytes
	large int            // … of them by questions above smallQuestion
	of    map[string]int // :: address → bytes, of those that hold any
	freed chan struct{}  // closed when some is given back; nil if nobody waits for that
}

// take takes n bytes for address, and waits for them as long as ctx lasts. All that a question needs is taken at once, so that no two
// wait for each other. Whoever took them gives them back.
func (r *room) take(ctx context.Context, address string, n int) error {
	for {
		freed := r.tryTake(address, n)
		if freed == nil {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return errNoRoom
		}
	}
}

// tryTake returns what to wait for before it is tried again, or nil.
func (r *room) tryTake(address string, n int) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held+n > maxHeld || r.of[address]+n > maxHeldOfOne || n > smallQuestion && r.large+n > maxHeldByLarge {
		if r.freed == nil {
			r.freed = make(chan struct{})
		}
		return r.freed
	}
	if r.of == nil {
		r.of = map[string]int{}
	}
	if n > smallQuestion {
		r.large += n
	}
	r.held += n
	r.of[address] += n
	return nil
}

func (r *room) give(address string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > smallQuestion {
		r.large -= n
	}
	r.held -= n
	if r.of[address] -= n; r.of[address] == 0 {
		delete(r.of, address)
	}
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
	}
}

// sizeOf is what the text of r counts for: its length, or the most it may have where it does not say.
func sizeOf(r *http.Request) int {
	if r.ContentLength < 0 || r.ContentLength > maxReview {
		return maxReview
	}
	return max(int(r.ContentLength), leastHeld)
}

// readAll is io.ReadAll of r's body, which has at most size bytes, its sizeOf. What is only promised takes no memory.
func readAll(r *http.Request, size int) ([]byte, error) {
	text := make([]byte, 0, leastHeld)
	for {
		n, err := r.Body.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case err == io.EOF:
			return text, nil
		case err != nil:
			return nil, err
		case len(text) > size:
			return nil, io.ErrShortBuffer
		case len(text) == cap(text):
			text = append(make([]byte, 0, min(2*cap(text), size+1)), text...) // a byte more, for the end to be seen
		}
	}
}
