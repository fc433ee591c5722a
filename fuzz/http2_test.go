package fuzz

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
)

const (
	// firstStream is a request that every input begins with. It is open for more,
	// and its :authority, which has a port that differs from run to run, is the
	// newest entry of HPACK's table: one byte names it from then on.
	firstStream = 1

	lastStream = 1<<31 - 1 // asks whether the connection still serves

	mostFrames = 16 << 10 // bytes of an input
)

// FuzzHTTP2Frames writes frames to an engine, behind a preface and the head of
// a first request. Whatever they are, nothing panics, the connection ends or
// still serves a request, and no request reaches the origin before its decision
// is in the log.
func FuzzHTTP2Frames(f *testing.F) {
	for _, seed := range frameSeeds(f) {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	e := startEngine(f, "    - name: all\n      %s\n", []string{"http/1.1"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	f.Fuzz(func(t *testing.T, frames []byte, whole bool) {
		if len(frames) > mostFrames {
			return
		}
		c, err := e.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		out := bytes.NewBufferString(http2.ClientPreface)
		fr := http2.NewFramer(out, nil)
		head := append([]byte{hpackPOST, hpackHTTPS, hpackSlash}, hpackAuthority(0x40, e.authority)...)
		if err := errors.Join(fr.WriteSettings(), fr.WriteHeaders(http2.HeadersFrameParam{StreamID: firstStream, BlockFragment: head, EndHeaders: true})); err != nil {
			t.Fatal(err)
		}
		if whole {
			frames = wholeFrames(frames)
		}
		out.Write(frames)
		head = append([]byte{hpackGET, hpackHTTPS, hpackSlash}, hpackAuthority(0, e.authority)...)
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: lastStream, BlockFragment: head, EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
		_, _ = out.WriteTo(c) // an engine that has closed is noticed below
		if !whole {
			_ = c.CloseWrite() // the request may be inside a frame
		}
		if err := endsOrServes(c); err != nil {
			t.Fatalf("%x: %v", frames, err)
		}
		e.check(t, frames)
	})
}

// Fields of HPACK's static table (RFC 7541 appendix A), as a block has them.
const (
	hpackGET, hpackPOST, hpackSlash, hpackHTTPS = 0x82, 0x83, 0x84, 0x87

	hpackLastField = 0xbe // the newest entry of the dynamic table
)

// hpackAuthority is a literal :authority (RFC 7541 section 6.2). How is 0x40 for
// one that goes into the table, 0 for one that does not.
func hpackAuthority(how byte, authority string) []byte {
	return append([]byte{how | 1, byte(len(authority))}, authority...)
}

// frameSeeds are what a client may send, what it must not, and floods in small.
func frameSeeds(f *testing.F) [][]byte {
	f.Helper()
	made := func(write ...func(fr *http2.Framer) error) []byte {
		var out bytes.Buffer
		fr := http2.NewFramer(&out, nil)
		fr.AllowIllegalWrites = true
		for _, w := range write {
			if err := w(fr); err != nil {
				f.Fatal(err)
			}
		}
		return out.Bytes()
	}
	head := func(stream uint32, end, whole bool, block ...byte) func(*http2.Framer) error {
		return func(fr *http2.Framer) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndStream: end, EndHeaders: whole})
		}
	}
	data := func(stream uint32, end bool, text string) func(*http2.Framer) error {
		return func(fr *http2.Framer) error { return fr.WriteData(stream, end, []byte(text)) }
	}
	reset := func(stream uint32) func(*http2.Framer) error {
		return func(fr *http2.Framer) error { return fr.WriteRSTStream(stream, http2.ErrCodeCancel) }
	}
	get := []byte{hpackGET, hpackHTTPS, hpackSlash, hpackLastField}
	repeat := func(n int, write func(i uint32) []byte) []byte {
		var all []byte
		for i := range n {
			all = append(all, write(uint32(2*i+3))...)
		}
		return all
	}
	literal := func(name, value string) []byte {
		return append(append(append([]byte{0, byte(len(name))}, name...), byte(len(value))), value...)
	}
	return [][]byte{
		nil,
		made(data(1, true, "hello")),
		made(data(1, false, "hel"), head(1, true, true, literal("x-sum", "1")...)),
		made(head(3, true, true, get...), head(5, true, true, get...), data(1, true, "")),
		made(head(3, true, false, get[:2]...), func(fr *http2.Framer) error { return fr.WriteContinuation(3, true, get[2:]) }),
		made(head(3, true, false, get...), data(1, true, "inside a header block")),
		made(head(3, true, true, append(get[:4:4], literal("content-length", "5")...)...)),
		made(head(3, false, true, append(get[:4:4], literal("host", "denied.test")...)...), data(3, true, "x")),
		made(head(3, true, true, append(get[:4:4], literal("connection", "close")...)...)),
		made(head(3, true, true, append(get[:4:4], literal("X-Upper", "a\r\nb")...)...)),
		made(head(3, true, true, append(literal("a", "b"), get...)...)),
		made(head(2, true, true, get...)), made(head(0, true, true, get...)), made(data(9, true, "x")),
		repeat(40, func(n uint32) []byte { return made(head(n, true, true, get...), reset(n)) }),
		repeat(20, func(uint32) []byte {
			return made(func(fr *http2.Framer) error { return fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize}) })
		}),
		repeat(20, func(uint32) []byte {
			return made(func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{1}) })
		}),
		append(made(head(3, true, false, get...)), repeat(20, func(uint32) []byte {
			return made(func(fr *http2.Framer) error { return fr.WriteContinuation(3, false, nil) })
		})...),
		made(func(fr *http2.Framer) error {
			return fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384})
		}, head(3, true, true, get...)),
		made(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(0, 1<<31-1) }),
		made(func(fr *http2.Framer) error { return fr.WriteGoAway(0, http2.ErrCodeNo, nil) }),
		made(func(fr *http2.Framer) error {
			return fr.WritePriority(3, http2.PriorityParam{StreamDep: 3, Weight: 1})
		}),
		made(func(fr *http2.Framer) error {
			return fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: get, EndHeaders: true})
		}),
		made(func(fr *http2.Framer) error { return fr.WriteRawFrame(0xfa, 0xff, 1, []byte("unknown")) }),
		made(head(3, true, true, 0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f)), // a table of 4 GiB
		made(head(3, true, true, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)),
		{0, 0, 5, byte(http2.FrameData), 0, 0, 0, 0, 1, 'c', 'u', 't'},
		{0xff, 0xff, 0xff, byte(http2.FrameData), 0, 0, 0, 0, 1},
		[]byte("GET / HTTP/1.1\r\n\r\n"),
	}
}

// wholeFrames is b with a last frame that is no longer than there is of it.
func wholeFrames(b []byte) []byte {
	b = bytes.Clone(b)
	for at := 0; ; {
		rest := b[at:]
		if len(rest) < 9 {
			return b[:at]
		}
		n := int(rest[0])<<16 + int(rest[1])<<8 + int(rest[2])
		if have := len(rest) - 9; n > have {
			rest[0], rest[1], rest[2] = byte(have>>16), byte(have>>8), byte(have)
			return b
		}
		at += 9 + n
	}
}

// endsOrServes reads frames until the engine ends the connection, or says that
// it will, or answers the last stream.
func endsOrServes(r io.Reader) error {
	for {
		h, err := http2.ReadFrameHeader(r)
		if err == nil {
			_, err = io.CopyN(io.Discard, r, int64(h.Length))
		}
		switch {
		case isTimeout(err):
			return errors.New("the connection neither ends nor serves another request")
		case err != nil, h.Type == http2.FrameGoAway, h.StreamID == lastStream && (h.Type == http2.FrameHeaders || h.Type == http2.FrameRSTStream):
			return nil //nolint:nilerr // the end of the connection is one of the two
		}
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}
