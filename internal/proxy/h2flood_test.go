package proxy

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// inboundFrames are what a client sends: ten frames that count, beside others
// that do not.
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
		f.WriteRSTStream(3, http2.ErrCodeCancel),     // 9
		f.WriteData(1, true, nil),
		f.WriteGoAway(0, http2.ErrCodeNo, []byte("bye")), // 10
	); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestControlFramesAreCountedHoweverTheyAreRead(t *testing.T) {
	all := inboundFrames(t)
	for _, size := range []int{1, 2, 3, 8, 9, 10, 17, 100, 4096, len(all)} {
		var f h2inbound
		cost := 0
		for p := all; len(p) > 0; {
			n := min(size, len(p))
			cost += f.see(p[:n])
			p = p[n:]
		}
		if cost != 10 || f.have != 0 || f.skip != 0 {
			t.Errorf("in pieces of %d: %d frames count, %d and %d bytes of a frame left; want 10, none", size, cost, f.have, f.skip)
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
	if cost := f.see(make([]byte, 1)); cost != 2 {
		t.Errorf("%d resets are the client's, want 2", cost)
	}
}

func TestAPrincipalsControlFramesComeBack(t *testing.T) {
	var c controls
	now := time.Now()
	if !c.take(now, controlBurst) || c.take(now, 1) {
		t.Error("a burst is another than it says")
	}
	if now = now.Add(time.Second); !c.take(now, controlRate) || c.take(now, 1) {
		t.Error("a second's frames are others than it says")
	}
	if now = now.Add(time.Hour); !c.take(now, controlBurst) || c.take(now, 1) {
		t.Error("a long rest gives another burst than the whole")
	}
}

// Who closes its connections and opens others has the frames that it had left.
func TestControlFramesOutliveTheConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := tallies{of: map[string]*tally{}}
		for range 3 {
			y := all.join("agent")
			_ = y.control.take(time.Now(), controlBurst)
			if y.control.take(time.Now(), 1) {
				t.Error("the burst is there again")
			}
			all.leave("agent")
		}
		all.join("agent")
		time.Sleep(2 * controlMemory)
		synctest.Wait()
		if all.of["agent"] == nil {
			t.Error("a principal with a connection is forgotten")
		}
		all.leave("agent")
		time.Sleep(2 * controlMemory)
		synctest.Wait()
		all.join("other")
		all.leave("other")
		all.mu.Lock()
		defer all.mu.Unlock()
		if len(all.of) != 0 {
			t.Errorf("%d principals are kept", len(all.of))
		}
	})
}
