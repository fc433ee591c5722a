package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// What the standard library's HTTP/2 server refuses by itself reaches no handler,
// and net/http tells nobody about most of it: HTTP2Config.CountError is not told of
// bad field names, bad pseudo-fields and header blocks over the limit, nor of its own
// answers 400 and 431, and never of which connection. But each of these is a frame
// that the server writes. So h2watch stands between it and the TLS connection and
// looks at the nine bytes that begin each frame on its way out:
//
//	RST_STREAM, GOAWAY   with a code that says the client is at fault
//	HEADERS              that begin an answer, when more streams were answered
//	                     than ever came to our handler
//
// and writes the record before the frame goes out. It reads no header block, keeps
// no state of HTTP/2 but which streams are being answered, and changes nothing. Of
// streams that end before they are answered, each may hide one answer of the
// server's own. What the client sends it counts (h2inbound).
type h2watch struct {
	*tls.Conn
	owner   *conn
	handled atomic.Int64 // streams that came to our handler
	in      h2inbound
	streams h2streams
	closing sync.Once
	closed  chan struct{}

	// Owned by who writes, of which there is one at a time.
	head       [goawayHead]byte // of the frame that is being written
	have, need int              // bytes of it
	skip       int              // bytes of the frame that are still to pass
	answered   int64            // streams that were answered, without those of the server's own that are recorded
	open       []uint32         // streams whose answer has begun and not ended, at most Limits.Streams
}

const (
	frameHead  = 9             // RFC 9113 section 4.1
	rstHead    = frameHead + 4 // … with the code of a RST_STREAM (section 6.4)
	goawayHead = frameHead + 8 // … with stream and code of a GOAWAY (section 6.8)

	frameData, frameHeaders, frameRST, framePing, frameGoaway, frameWindowUpdate, frameContinuation = 0, 1, 3, 6, 7, 8, 9

	flagEndStream = 1

	codeStreamClosed = 5
)

// h2code names the error codes of RFC 9113 section 7 that say that the client
// has broken the protocol; "" for the others. STREAM_CLOSED is not among them: frames that were under
// way when a refused stream ended earn it honestly.
func h2code(code uint32) string {
	switch code {
	case 1:
		return "PROTOCOL_ERROR"
	case 3:
		return "FLOW_CONTROL_ERROR"
	case 4:
		return "SETTINGS_TIMEOUT"
	case 6:
		return "FRAME_SIZE_ERROR"
	case 7:
		return "REFUSED_STREAM"
	case 9:
		return "COMPRESSION_ERROR"
	case 11:
		return "ENHANCE_YOUR_CALM"
	default:
		return ""
	}
}

// watchHTTP2 makes side, the standard library's server, write through an h2watch. The
// server takes no wrapped TLS connection but by one entry, which expects that the
// client's preface was read.
func (s *Server) watchHTTP2(side *http.Server) error {
	serve := side.TLSNextProto[canon.AfterPreface]
	if serve == nil {
		return errors.New("net/http has no entry for a connection whose preface was read")
	}
	side.TLSNextProto["h2"] = func(hs *http.Server, tc *tls.Conn, h http.Handler) {
		w := &h2watch{Conn: tc, owner: ownerOf(tc), need: frameHead, closed: make(chan struct{})}
		if w.owner == nil || !w.readPreface() {
			_ = tc.Close()
			return
		}
		w.streams.of, w.in.tell = w.owner.tally, w.stream
		w.owner.watch = w
		serve(hs, tls.Client(carrier{w}, nil), h)
	}
	return nil
}

// carrier is how net/http wants a connection handed over that is not a plain
// *tls.Conn.
type carrier struct{ net.Conn }

// UnencryptedNetConn is what net/http asks for.
func (c carrier) UnencryptedNetConn() net.Conn { return c.Conn }

// readPreface reads what an HTTP/2 client says first (RFC 9113 section 3.4).
func (w *h2watch) readPreface() bool {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	c := w.owner
	_ = c.tcp.SetReadDeadline(c.s.now().Add(c.s.limits.Head))
	var got [len(preface)]byte
	n, err := io.ReadFull(w.Conn, got[:])
	_ = c.tcp.SetReadDeadline(noDeadline)
	switch {
	case err == nil && string(got[:]) == preface:
		return true
	case n == 0 && errors.Is(err, io.EOF):
	case n == 0 && err != nil && !isTimeout(err):
		c.leftWithAlert(err)
	case isTimeout(err):
		c.refuseQuietly(&refusal{status: 408, reason: "head_timeout", detail: "HTTP/2's preface came too slowly"})
	default:
		c.refuseQuietly(&refusal{status: 400, reason: "h2_protocol_error", detail: "HTTP/2 was agreed on, and the client speaks another protocol"})
	}
	return false
}

// Write implements net.Conn.
func (w *h2watch) Write(p []byte) (int, error) {
	w.see(p)
	return w.Conn.Write(p)
}

// see follows the frames in p.
func (w *h2watch) see(p []byte) {
	for len(p) > 0 {
		if w.skip > 0 {
			n := min(len(p), w.skip)
			w.skip, p = w.skip-n, p[n:]
			continue
		}
		n := copy(w.head[w.have:w.need], p)
		w.have, p = w.have+n, p[n:]
		if w.have < w.need {
			return
		}
		length := frameLength((*[frameHead]byte)(w.head[:]))
		switch {
		case w.have == frameHead && w.head[3] == frameRST && length >= rstHead-frameHead:
			w.need = rstHead
		case w.have == frameHead && w.head[3] == frameGoaway && length >= goawayHead-frameHead:
			w.need = goawayHead
		default:
			clear(w.head[w.have:]) // a frame too short for a code has none
			w.frame(length)
			w.skip = length - (w.need - frameHead)
			w.have, w.need = 0, frameHead
		}
	}
}

// frame is called with each frame's head, and its error code where it has one,
// and the length of what follows the head.
func (w *h2watch) frame(length int) {
	stream := binary.BigEndian.Uint32(w.head[5:]) & (1<<31 - 1)
	ends := w.head[4]&flagEndStream != 0
	switch w.head[3] {
	case frameData:
		w.in.sent(length)
		if ends {
			w.close(stream)
		}
	case frameHeaders:
		w.answer(stream, ends)
	case frameRST:
		code := binary.BigEndian.Uint32(w.head[frameHead:])
		w.close(stream)
		w.in.reset(code)
		w.ended("a stream", code)
	case frameGoaway:
		w.ended("the connection", binary.BigEndian.Uint32(w.head[frameHead+4:]))
	}
}

// answer takes a HEADERS frame: the beginning of an answer, a final answer
// after an interim one, or trailers.
func (w *h2watch) answer(stream uint32, ends bool) {
	if ends {
		defer w.close(stream)
	}
	if slices.Contains(w.open, stream) {
		return
	}
	w.open = append(w.open, stream)
	// A stream comes to our handler before it is answered, so what was answered
	// beyond that was answered by the server itself.
	if w.answered++; w.answered > w.handled.Load() {
		w.answered--
		w.record(&refusal{
			status: 400, reason: "h2_bad_request",
			detail: "refused by the HTTP/2 server: a field that HTTP/2 forbids, or a header block over its limit",
		})
	}
}

func (w *h2watch) close(stream uint32) {
	w.streams.end(stream)
	if i := slices.Index(w.open, stream); i >= 0 {
		w.open = slices.Delete(w.open, i, i+1)
	}
}

func (w *h2watch) ended(what string, code uint32) {
	if name := h2code(code); name != "" {
		w.record(&refusal{
			status: 400, reason: "h2_protocol_error", detail: fmt.Sprintf("refused by the HTTP/2 server: %s ended with %s", what, name),
		})
	}
}

// record records a refusal. The server answers it, whatever the log says.
func (w *h2watch) record(why *refusal) { _ = w.owner.recordRefusal(why) }
