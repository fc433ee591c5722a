package proxy

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// inboundFrames are what a client sends: frames that count as seventeen, beside
// others that do not.
func inboundFrames(tb testing.TB) []byte {
	tb.Helper()
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	if err := errors.Join(
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}), // 1
		f.WriteSettingsAck(), // 2
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("head"), EndHeaders: true}),
		f.WriteData(1, false, bytes.Repeat([]byte{0, 0, 0, 6}, 5000)), // reads like frames
		f.WriteData(1, false, nil), // 3
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte("head")}),
		f.WriteContinuation(3, true, []byte("more")), // 4
		f.WritePriority(3, http2.PriorityParam{}),    // 5
		f.WritePing(false, [8]byte{}),                // 6
		f.WriteWindowUpdate(1, 100),                  // 7
		f.WriteRawFrame(0x99, 0, 0, []byte("what?")), // 8
		f.WriteData(1, true, nil),
		f.WriteGoAway(0, http2.ErrCodeNo, []byte("bye")), // 9
		f.WriteRSTStream(3, http2.ErrCodeCancel),         // and controlPerReset
	); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestControlFramesAreCountedHoweverTheyAreRead(t *testing.T) {
	all := inboundFrames(t)
	const want = 9 + controlPerReset
	for _, size := range []int{1, 2, 3, 8, 9, 10, 17, 100, 4096, len(all)} {
		var f h2inbound
		cost := 0
		for p := all; len(p) > 0; {
			n := min(size, len(p))
			cost += f.see(p[:n])
			p = p[n:]
		}
		if cost != want || f.have != 0 || f.skip != 0 {
			t.Errorf("in pieces of %d: %d frames count, %d and %d bytes of a frame left; want %d, none", size, cost, f.have, f.skip, want)
		}
	}
}

func TestFramesThatGoWithDataAreNotCounted(t *testing.T) {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	for range 100 {
		if err := errors.Join(framer.WriteWindowUpdate(0, 1), framer.WritePing(false, [8]byte{})); err != nil {
			t.Fatal(err)
		}
	}
	var f h2inbound
	f.sent(0)
	if cost := f.see(out.Bytes()); cost != 200-controlPerData {
		t.Errorf("%d of 200 are counted behind a frame of no byte", cost)
	}
	f.sent(16 << 10)
	if cost := f.see(out.Bytes()); cost != 200-controlPerData-32 {
		t.Errorf("%d of 200 are counted behind a frame of 16 KiB", cost)
	}
	f.sent(1 << 30)
	counted := 0
	for range controlAhead/200 + 1 {
		counted += f.see(out.Bytes())
	}
	if want := (controlAhead/200+1)*200 - controlAhead; counted != want {
		t.Errorf("%d are counted behind 1 GiB, want all but %d: %d", counted, controlAhead, want)
	}
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeInternal, http2.ErrCodeStreamClosed, http2.ErrCodeProtocol} {
		f.reset(uint32(code))
	}
	if cost := f.see(make([]byte, 1)); cost != 2*controlPerReset {
		t.Errorf("the resets that are the client's count %d, want two", cost)
	}
}

func TestAPrincipalsControlFramesComeBack(t *testing.T) {
	const limit = 100
	var c controls
	now := time.Now()
	take := func(frames int) (wait time.Duration, whole bool) { return c.take(now, frames, limit, controlWindow) }
	if wait, whole := take(burst(limit)); wait > 0 || !whole {
		t.Errorf("a burst waits %v of a budget that was whole (%t)", wait, whole)
	}
	if wait, whole := take(1); wait != time.Second/limit || whole {
		t.Errorf("one more waits %v (whole: %t), want its share of a second", wait, whole)
	}
	now = now.Add(time.Second)
	if wait, _ := take(limit - 1); wait > 0 {
		t.Errorf("a second's frames wait %v a second later", wait)
	}
	if wait, _ := take(limit); wait != time.Second {
		t.Errorf("and those of another second %v", wait)
	}
	now = now.Add(time.Hour)
	if wait, whole := take(burst(limit) + 1); wait != time.Second/limit || !whole {
		t.Errorf("after a long rest all but one of a burst and one wait: %v (whole: %t)", wait, whole)
	}
}

// watching is the inbound half of a connection of the principal that y is of.
func watching(y *tally, s *Server) *h2watch {
	return &h2watch{owner: &conn{s: s, tally: y}, closed: make(chan struct{})}
}

// A flooder by itself has no more than its budget, however many connections
// share in it; and time is what it pays with.
func TestFramesBeyondTheBudgetWaitForTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, each, conns = 1000, 1000, 4
		s := &Server{now: time.Now, limits: Limits{ControlFrames: limit}}
		y := new(tally)
		began := time.Now()
		var all sync.WaitGroup
		for range conns {
			all.Go(func() {
				w := watching(y, s)
				for range each {
					if err := w.pay(1); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		if took := time.Since(began) + controlNap; took < conns*each*time.Second/limit-controlWindow {
			t.Errorf("%d frames took %v", conns*each, took)
		}
	})
}

func TestAWaitEndsWithItsConnection(t *testing.T) {
	for name, end := range map[string]func(w *h2watch){
		"closed":  func(w *h2watch) { w.closing.Do(func() { close(w.closed) }) },
		"stopped": func(w *h2watch) { close(w.owner.s.over) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := watching(new(tally), &Server{now: time.Now, over: make(chan struct{}), limits: Limits{ControlFrames: 10}})
			if err := w.pay(burst(10)); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			began := time.Now()
			go func() { done <- w.pay(10) }()
			synctest.Wait()
			end(w)
			if err := <-done; !errors.Is(err, net.ErrClosed) || !time.Now().Equal(began) {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
		})
	}
}

func TestLittlePiecesOfABodyWaitAndNoMore(t *testing.T) {
	var out bytes.Buffer
	if err := http2.NewFramer(&out, nil).WriteData(1, false, []byte{'x'}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := watching(new(tally), &Server{now: time.Now, limits: Limits{}.withDefaults()})
		began := time.Now()
		for range 4 * littleRate {
			if err := w.take(out.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 3*time.Second {
			t.Errorf("four seconds' pieces took %v", took)
		}
	})
}

// What had to wait is forgotten when the budget was whole again: a connection that
// lives for long may have many bursts.
func TestBurstsWithPausesBetweenAreNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		w := watching(new(tally), &Server{now: time.Now, limits: Limits{ControlFrames: limit}})
		for range 10 {
			for range burst(limit) + limit {
				if err := w.pay(1); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * controlWindow)
		}
	})
}

// Who closes its connections and opens others has the frames that it had left.
func TestControlFramesOutliveTheConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := tallies{of: map[string]*tally{}}
		const limit = 100
		first := true
		for range 3 {
			y := all.join("agent", 1000)
			if wait, _ := y.control.take(time.Now(), burst(limit), limit, controlWindow); wait > 0 == first {
				t.Errorf("a burst waits %v", wait)
			}
			first = false
			all.leave("agent")
		}
		all.join("agent", 1000)
		time.Sleep(2 * controlWindow)
		synctest.Wait()
		if all.of["agent"] == nil {
			t.Error("a principal with a connection is forgotten")
		}
		all.leave("agent")
		time.Sleep(2 * controlWindow)
		synctest.Wait()
		all.join("other", 1000)
		all.leave("other")
		all.mu.Lock()
		defer all.mu.Unlock()
		if len(all.of) != 0 {
			t.Errorf("%d principals are kept", len(all.of))
		}
	})
}
