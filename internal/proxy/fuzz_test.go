package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzWebSocketFrames: what the checker says of one direction of a WebSocket is
// what a parser says that follows RFC 6455 word for word over the whole of it,
// up to the byte at which it is refused, and wherever the bytes are cut in two.
func FuzzWebSocketFrames(f *testing.F) {
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	for _, seed := range [][]byte{
		frame(fin|opText, false, "hello", 0),
		frame(fin|opBinary, true, strings.Repeat("x", 300), 0),
		frame(fin|opBinary, false, strings.Repeat("x", fuzzFrame), 0),
		frame(fin|opBinary, false, strings.Repeat("x", fuzzFrame+1), 0),
		join(frame(opText, false, "a", 0), frame(fin|opPing, false, "", 0), frame(fin|opContinuation, false, "b", 0)),
		join(frame(opText, true, "a", 0), frame(opContinuation, true, "", 0), frame(fin|opPong, true, strings.Repeat("p", 125), 0)),
		join(frame(fin|opClose, false, "\x03\xe8", 0), frame(fin|opText, false, "x", 0)),
		join(frame(opText, false, "x", 0), frame(fin|opText, false, "x", 0)),
		frame(fin|0x40|opText, false, "zz", 0),
		frame(fin|0x20|opText, false, "x", 0),
		frame(fin|0x3, false, "x", 0),
		frame(fin|opText, false, "x", 126),
		frame(fin|opText, false, "x", 127),
		{fin | opBinary, 127, 0x80, 0, 0, 0, 0, 0, 0, 1},
		{fin | opBinary, 126, 1},
		[]byte("DELETE /x HTTP/1.1\r\n"),
	} {
		f.Add(seed, uint16(1), false, false)
		f.Add(seed, uint16(len(seed)/2), true, true)
	}
	f.Fuzz(func(t *testing.T, wire []byte, cut uint16, masked, deflate bool) {
		good, clean := framesByTheBook(wire, masked, deflate)
		whole := frames{masked: masked, deflate: deflate, limit: fuzzFrame}
		if err := whole.check(wire); (err == nil) != (good == len(wire)) {
			t.Fatalf("%x at once: %v; by the book %d of %d bytes are good", wire, err, good, len(wire))
		}
		single := frames{masked: masked, deflate: deflate, limit: fuzzFrame}
		passed := 0
		for passed < len(wire) && single.check(wire[passed:passed+1]) == nil {
			passed++
		}
		if passed != good {
			t.Fatalf("%x byte by byte: %d passed; by the book %d", wire, passed, good)
		}
		if passed < len(wire) {
			return
		}
		if between := whole.have == 0 && whole.left == 0; between != clean {
			t.Fatalf("%x ends between two frames: %t; by the book %t", wire, between, clean)
		}
		halves := frames{masked: masked, deflate: deflate, limit: fuzzFrame}
		at := int(cut) % (len(wire) + 1)
		if halves.check(wire[:at]) != nil || halves.check(wire[at:]) != nil || !sameState(halves, whole) || !sameState(single, whole) {
			t.Fatalf("%x cut at %d: %+v, byte by byte %+v, at once %+v", wire, at, halves, single, whole)
		}
	})
}

// fuzzFrame is the largest frame of the fuzzed direction, in bytes.
const fuzzFrame = 1 << 10

// sameState: what the next byte will be taken for.
func sameState(a, b frames) bool {
	return a.have == b.have && a.left == b.left && a.message == b.message && a.closed == b.closed && bytes.Equal(a.head[:a.have], b.head[:b.have])
}

// framesByTheBook reads wire as frames of RFC 6455 section 5.2 and returns how
// many bytes of it may pass: up to the byte with which it is known to be none.
// clean is that they end between two frames.
func framesByTheBook(wire []byte, masked, deflate bool) (good int, clean bool) {
	inMessage := false
	for at := 0; ; {
		rest := wire[at:]
		if len(rest) < 2 {
			return len(wire), len(rest) == 0
		}
		fin, rsv1, rsv23, op := rest[0]>>7 == 1, rest[0]>>6&1 == 1, rest[0]>>4&3, rest[0]&15
		isMasked, short := rest[1]>>7 == 1, uint64(rest[1]&127)
		starts, continues, control := op == 1 || op == 2, op == 0, op == 8 || op == 9 || op == 10
		ok := rsv23 == 0 && isMasked == masked && (starts && !inMessage || continues && inMessage || control && fin && short <= 125)
		if !ok || rsv1 && (!deflate || !starts) {
			return at + 1, false
		}
		head, length := 2, short
		switch short {
		case 126:
			head = 4
		case 127:
			head = 10
		}
		mask := 0
		if masked {
			mask = 4
		}
		if len(rest) < head+mask {
			return len(wire), false
		}
		least := uint64(0)
		switch short {
		case 126:
			length, least = uint64(binary.BigEndian.Uint16(rest[2:])), 126
		case 127:
			length, least = binary.BigEndian.Uint64(rest[2:]), 1<<16
		}
		if length < least || length > fuzzFrame {
			return at + head + mask - 1, false
		}
		if !control {
			inMessage = !fin
		}
		if uint64(len(rest)-head-mask) < length {
			return len(wire), false
		}
		at += head + mask + int(length)
		if op == 8 {
			return at, at == len(wire)
		}
	}
}

// FuzzHTTP2Watch: what is concluded from the frames that a server writes is
// what a framer concludes that has each whole, in whatever pieces they are
// written; and of no more streams is it remembered that they are being
// answered than were.
func FuzzHTTP2Watch(f *testing.F) {
	var out bytes.Buffer
	fr := http2.NewFramer(&out, nil)
	fr.AllowIllegalWrites = true
	for _, err := range []error{
		fr.WriteSettings(),
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("interim"), EndHeaders: true}),
		fr.WriteData(1, false, bytes.Repeat([]byte{0, 0, 4, 3}, 50)), // reads like frames
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true}),
		fr.WriteRSTStream(5, http2.ErrCodeCancel),
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("trailers"), EndHeaders: true, EndStream: true}),
		fr.WriteGoAway(7, http2.ErrCodeNo, []byte("bye")),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Add(out.Bytes(), uint8(1))
	f.Add(out.Bytes(), uint8(13))
	f.Add([]byte{0, 0, 0, frameRST, 0, 0, 0, 0, 1, 0, 0, 2, frameGoaway, 0, 0, 0, 0, 1, 0, 0}, uint8(3))
	f.Add([]byte{0xff, 0xff, 0xff, frameHeaders, 1, 0x80, 0, 0, 1}, uint8(4))
	f.Fuzz(func(t *testing.T, wire []byte, size uint8) {
		wire = blameless(wire)
		var w h2watch
		w.need = frameHead
		w.handled.Store(1 << 62)
		for piece := range slices.Chunk(wire, max(1, int(size))) {
			w.see(piece)
		}
		answered, open := answersOf(wire)
		if w.answered != answered || !slices.Equal(w.open, open) {
			t.Fatalf("%x in pieces of %d: %d answers and %v open; a framer sees %d and %v", wire, size, w.answered, w.open, answered, open)
		}
	})
}

// blameless takes the codes out of frames that would be recorded, which needs a
// connection and its log.
func blameless(wire []byte) []byte {
	wire = bytes.Clone(wire)
	for at := 0; at+frameHead <= len(wire); {
		length := int(wire[at])<<16 | int(wire[at+1])<<8 | int(wire[at+2])
		payload := wire[at+frameHead : min(len(wire), at+frameHead+length)]
		switch kind := wire[at+3]; {
		case kind == frameRST:
			clear(payload[:min(len(payload), 4)])
		case kind == frameGoaway:
			clear(payload[min(len(payload), 4):min(len(payload), 8)])
		}
		at += frameHead + length
	}
	return wire
}

// answersOf is what h2watch is to learn from wire, by whole frames.
func answersOf(wire []byte) (answered int64, open []uint32) {
	for r := bytes.NewReader(wire); ; {
		h, err := http2.ReadFrameHeader(r)
		if err != nil {
			return answered, open
		}
		payload, _ := io.ReadAll(io.LimitReader(r, int64(h.Length)))
		i := slices.Index(open, h.StreamID)
		ends := h.Flags.Has(http2.FlagHeadersEndStream)
		switch h.Type {
		case http2.FrameHeaders:
			if i < 0 {
				answered++
			}
			if i < 0 && !ends {
				open = append(open, h.StreamID)
			}
			if i >= 0 && ends {
				open = slices.Delete(open, i, i+1)
			}
		case http2.FrameData:
			if i >= 0 && ends {
				open = slices.Delete(open, i, i+1)
			}
		case http2.FrameRSTStream:
			if i >= 0 && (len(payload) >= 4 || int(h.Length) < 4) {
				open = slices.Delete(open, i, i+1)
			}
		default: // nothing to learn
		}
	}
}

// FuzzGRPCMessage: a refusal's text, whatever the agent's bytes in it, is a
// Grpc-Message that any gRPC client decodes to that text, in printable ASCII;
// and every status of a refusal is a gRPC code that says that it failed.
func FuzzGRPCMessage(f *testing.F) {
	for _, s := range []string{"denied: /a%2fb", "100%", "\r\nGrpc-Status: 0", "é\xff\x00\x7f", "%41", ""} {
		f.Add(s, uint16(403))
	}
	f.Fuzz(func(t *testing.T, s string, status uint16) {
		wire := grpcMessage(s)
		if strings.ContainsFunc(wire, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q is written as %q", s, wire)
		}
		if got, err := url.PathUnescape(wire); err != nil || got != s {
			t.Fatalf("%q is written as %q, which is %q, %v", s, wire, got, err)
		}
		if code := grpcStatus(int(status)); code < 1 || code > 16 {
			t.Fatalf("status %d is code %d", status, code)
		}
	})
}
