package upstream

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

func TestH2RetryOnlyWhatWasNotProcessed(t *testing.T) {
	ca := newAuthority(t)
	goAway := func(last uint32) func(*rawH2, uint32) {
		return func(s *rawH2, _ uint32) { s.write(frameGoAway, 0, 0, code(last)+code(0)) }
	}
	reset := func(n uint32) func(*rawH2, uint32) {
		return func(s *rawH2, stream uint32) { s.write(frameReset, 0, stream, code(n)) }
	}
	for name, row := range map[string]struct {
		answer func(*rawH2, uint32)
		body   bool
		want   string
		retry  bool
	}{
		"REFUSED_STREAM":                      {reset(7), false, "upstream_refused 502", true},
		"REFUSED_STREAM after a body":         {reset(7), true, "upstream_refused 502", false},
		"GOAWAY below our stream":             {goAway(0), false, "upstream_refused 502", true},
		"CANCEL":                              {reset(8), false, "upstream_reset 502", false},
		"PROTOCOL_ERROR from the peer":        {reset(1), false, "upstream_reset 502", false},
		"GOAWAY that covers us, then the end": {func(s *rawH2, n uint32) { goAway(n)(s, n); _ = s.conn.Close() }, false, "upstream_closed 502", false},
		"the end":                             {func(s *rawH2, _ uint32) { _ = s.conn.Close() }, false, "upstream_closed 502", false},
		"no :status":                          {func(s *rawH2, n uint32) { s.write(frameHeaders, flagEndHeaders|flagEndStream, n, literal("a", "b")) }, false, "bad_response 502", false},
		"two lengths": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200+literal("content-length", "1")+literal("content-length", "2"))
		}, false, "bad_response 502", false},
		"a length that is none": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200+literal("content-length", "+1"))
		}, false, "bad_response 502", false},
		"a 101": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, literal(":status", "101"))
		}, false, "bad_response 502", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := listenH2(t, ca, func(s *rawH2) {
				for {
					_, flags, stream, ok := s.next()
					if !ok {
						return
					}
					if flags&flagEndStream != 0 {
						row.answer(s, stream)
					}
				}
			})
			w := newWorld(t, ca, nil)
			raw, opts := "GET / HTTP/1.1", withBody(nil)
			if row.body {
				raw, opts = "POST / HTTP/1.1\nContent-Length: 3", withBody(whole("abc"))
			}
			_, err := w.send(o, raw, opts)
			var e *Error
			if !errors.As(err, &e) || e.Retry != row.retry {
				t.Fatalf("%#v", err)
			}
			wantReason(t, err, row.want)
		})
	}
}

func TestH2BodiesThatAreNotAsDeclared(t *testing.T) {
	ca := newAuthority(t)
	for name, row := range map[string]struct {
		answer func(*rawH2, uint32)
		want   string
	}{
		"too short": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200+literal("content-length", "9"))
			s.write(frameData, flagEndStream, n, "abc")
		}, "upstream_truncated 502"},
		"too long": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200+literal("content-length", "2"))
			s.write(frameData, flagEndStream, n, "abc")
		}, "bad_response 502"},
		"reset inside": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200)
			s.write(frameData, 0, n, "abc")
			s.write(frameReset, 0, n, code(2))
		}, "upstream_reset 502"},
		"cut inside": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200)
			s.write(frameData, 0, n, "abc")
			_ = s.conn.Close()
		}, "upstream_truncated 502"},
		"a forbidden trailer": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200)
			s.write(frameHeaders, flagEndHeaders|flagEndStream, n, literal("content-length", "3"))
		}, "bad_response 502"},
		"silence": {func(s *rawH2, n uint32) {
			s.write(frameHeaders, flagEndHeaders, n, status200)
		}, "upstream_timeout 504"},
	} {
		t.Run(name, func(t *testing.T) {
			o := listenH2(t, ca, func(s *rawH2) {
				for {
					_, _, stream, ok := s.next()
					if !ok {
						return
					}
					row.answer(s, stream)
				}
			})
			w := newWorld(t, ca, func(c *Config) { c.BodyIdleTimeout = 100 * time.Millisecond })
			res, err := w.send(o, "GET / HTTP/1.1", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = readAll(res)
			wantReason(t, err, row.want)
			if _, again := res.Next(); again == nil {
				t.Error("the error does not stick")
			}
			res.Close()
		})
	}
}

// An origin that takes one stream on each connection has one for every request. What
// those in use beyond the first hold is the least that HTTP/2 allows; of those that are
// not, one ends instead.
func TestH2ConnectionsBeyondTheFirstHoldLittle(t *testing.T) {
	ca := newAuthority(t)
	offered := make(chan int, 1)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}, NextProtos: []string{"h2"}}
	serve := func(conn net.Conn) {
		preface := make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")+9)
		_, _ = io.ReadFull(conn, preface)
		settings := make([]byte, preface[len(preface)-7])
		_, _ = io.ReadFull(conn, settings)
		for one := range slices.Chunk(settings, 6) { // RFC 9113 section 6.5.1
			if binary.BigEndian.Uint16(one) == 4 {
				offered <- int(binary.BigEndian.Uint32(one[2:]))
			}
		}
		s := &rawH2{t: t, conn: conn}
		s.write(frameSettings, 0, 0, "")
		if kind, _, stream, ok := s.next(); ok && kind == frameHeaders {
			s.write(frameHeaders, flagEndHeaders|flagEndStream, stream, status200)
		}
		_, _ = io.Copy(io.Discard, conn)
	}
	w := newWorld(t, ca, nil)
	hang := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	next := func(want int) {
		t.Helper()
		res, err := w.send(listen(t, conf, serve), "GET / HTTP/1.1", &SendOptions{Principal: "loud"})
		w.expect(res, err, "")
		if got := <-offered; got != want {
			t.Errorf("a window of %d, want %d", got, want)
		}
	}
	for i := range wideConnections {
		if i == wideConnections-1 { // one that is not in use
			next(streamWindow)
		}
		res, err := w.send(serveHTTP(t, conf, true, hang), "GET / HTTP/1.1", &SendOptions{Principal: "loud"})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Close()
	}
	next(narrowWindow)
	next(narrowWindow) // the one before is not in use, and makes no room for a wide one
}
