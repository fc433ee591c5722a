package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// slowTaker is a client that takes so many bytes in a second.
type slowTaker struct {
	http.ResponseWriter
	rate int
}

func (s slowTaker) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(s.rate)) // the bubble's time
	return len(p), nil
}

func TestAnHTTP2ClientThatTakesALittleIsNotEnded(t *testing.T) {
	for what, row := range map[string]struct {
		rate int
		ends bool
	}{"2 KiB a second": {2 << 10, false}, "a few bytes": {16, true}} {
		synctest.Test(t, func(t *testing.T) {
			s := &Server{now: time.Now, limits: Limits{}.withDefaults()}
			w := slowTaker{httptest.NewRecorder(), row.rate}
			cl := &h2client{s: s, w: w, ctl: http.NewResponseController(w)}
			x := &exchange{s: s, client: cl}
			c := &conn{s: s, streams: map[*exchange]struct{}{x: {}}}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := cl.write(x, make([]byte, 66<<10)); err != nil {
					t.Error(err)
				}
			}()
			for looking := true; looking; {
				select {
				case <-done:
					looking = false
				case <-time.After(s.limits.ClientLook):
					c.look(time.Time{})
				}
			}
			if cl.stalled.Load() != row.ends {
				t.Errorf("%s: ended %t", what, !row.ends)
			}
		})
	}
}

// Who works on an event for a minute before it reads the next is there.
func TestAnHTTP2ClientThatPausesIsNotEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{now: time.Now, limits: Limits{}.withDefaults()}
		cl := &h2client{s: s, ctl: http.NewResponseController(httptest.NewRecorder())}
		x := &exchange{s: s, client: cl}
		c := &conn{s: s, streams: map[*exchange]struct{}{x: {}}}
		x.writes.Store(s.now().UnixNano()) // as a flush does, until it is through
		time.Sleep(100 * time.Second)
		if c.look(time.Time{}); cl.stalled.Load() {
			t.Error("ended after 100 s")
		}
		time.Sleep(30 * time.Second)
		if c.look(time.Time{}); !cl.stalled.Load() {
			t.Error("not ended after 130 s")
		}
	})
}
