package proxy

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

// TestFramesAreFollowedHoweverTheyAreWritten cuts what a server writes into
// pieces of every size.
func TestFramesAreFollowedHoweverTheyAreWritten(t *testing.T) {
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	for _, err := range []error{
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("interim"), EndHeaders: true}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("final"), EndHeaders: true}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true}),
		f.WriteData(1, false, bytes.Repeat([]byte{0, 0, 4, 3}, 5000)), // reads like frames
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: []byte("final"), EndHeaders: true}),
		f.WriteRSTStream(5, http2.ErrCodeInternal),
		f.WritePing(true, [8]byte{}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("trailers"), EndHeaders: true, EndStream: true}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: []byte("final"), EndHeaders: true}),
		f.WriteGoAway(7, http2.ErrCodeNo, []byte("bye")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{1, 2, 3, 7, 8, 9, 10, 13, 17, 100, 4096, out.Len()} {
		w := &h2watch{need: frameHead}
		w.handled.Store(4)
		for p := out.Bytes(); len(p) > 0; {
			n := min(size, len(p))
			w.see(p[:n])
			p = p[n:]
		}
		if w.answered != 4 || len(w.open) != 1 || w.open[0] != 7 || w.have != 0 || w.skip != 0 {
			t.Errorf("in pieces of %d: %d answers, %v open, %d and %d bytes of a frame left; want 4, [7]", size, w.answered, w.open, w.have, w.skip)
		}
	}
}

func TestCodesThatBlameTheClient(t *testing.T) {
	for code := range http2.ErrCode(20) {
		honest := code == http2.ErrCodeNo || code == http2.ErrCodeInternal || code == http2.ErrCodeStreamClosed || code == http2.ErrCodeCancel ||
			code == http2.ErrCodeConnect || code == http2.ErrCodeInadequateSecurity || code == http2.ErrCodeHTTP11Required || code > 13
		name := h2code(uint32(code))
		if honest != (name == "") || name != "" && name != code.String() {
			t.Errorf("%s is called %q", code, name)
		}
	}
}
