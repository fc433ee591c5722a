package upstream

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// frame types of RFC 9113 section 6
const (
	frameData, frameHeaders, frameReset, frameSettings = 0, 1, 3, 4
	framePing, frameGoAway, frameWindow                = 6, 7, 8

	flagEndStream, flagEndHeaders, flagAck = 1, 4, 1
)

// rawH2 is a server that speaks frames, for what net/http's does not do.
type rawH2 struct {
	t    *testing.T
	conn net.Conn
}

func (s *rawH2) write(kind, flags byte, stream uint32, payload string) {
	h := make([]byte, 9, 9+len(payload))
	h[0], h[1], h[2], h[3], h[4] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags
	binary.BigEndian.PutUint32(h[5:], stream)
	_, _ = s.conn.Write(append(h, payload...))
}

// next returns the next frame that is about a stream, and answers the others.
func (s *rawH2) next() (kind, flags byte, stream uint32, ok bool) {
	for {
		var h [9]byte
		if _, err := io.ReadFull(s.conn, h[:]); err != nil {
			return 0, 0, 0, false
		}
		payload := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(s.conn, payload); err != nil {
			return 0, 0, 0, false
		}
		kind, flags, stream = h[3], h[4], binary.BigEndian.Uint32(h[5:])
		switch {
		case kind == frameSettings && flags&flagAck == 0:
			s.write(frameSettings, flagAck, 0, "")
		case kind == framePing && flags&flagAck == 0:
			s.write(framePing, flagAck, 0, string(payload))
		case kind == frameHeaders || kind == frameData:
			return kind, flags, stream, true
		}
	}
}

// literal is a header field for HPACK without its tables (RFC 7541 section 6.2.2).
func literal(name, value string) string {
	return "\x00" + string(rune(len(name))) + name + string(rune(len(value))) + value
}

const status200 = "\x88" // RFC 7541 appendix A, entry 8

func listenH2(t *testing.T, ca *authority, serve func(s *rawH2)) *origin {
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}, NextProtos: []string{"h2"}}
	return listen(t, conf, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
			return
		}
		s := &rawH2{t, conn}
		s.write(frameSettings, 0, 0, "")
		serve(s)
		_, _ = io.Copy(io.Discard, conn)
	})
}

func code(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

func TestH2Exchange(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Uri", r.RequestURI)
			w.Header().Set("X-Host", r.Host)
			w.Header().Set("X-Te", r.Header.Get("Te"))
			w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
			w.Header().Set("X-Agent", fmt.Sprint(r.Header["User-Agent"]))
			w.Header().Set("Alt-Svc", "h3")
			switch r.URL.Path {
			case "/204":
				w.WriteHeader(204)
			case "/304":
				w.Header().Set("Content-Length", "7")
				w.WriteHeader(304)
			default:
				w.Header().Set("Content-Length", "2")
				_, _ = io.WriteString(w, "ok")
			}
		}))
	w := newWorld(t, ca, nil)
	host := strings.TrimPrefix(o.url("https"), "https://")
	for _, row := range []struct {
		send, want, uri, agent string
		status                 int
		length                 int64
	}{
		{"GET / HTTP/1.1", "ok", "/", "[]", 200, 2},
		{"GET //double/%41?q=%2F&x HTTP/1.1\nUser-Agent: me\nCookie: a=1; b=2\nTE: trailers\nConnection: TE", "ok", "//double/A?q=%2F&x", "[me]", 200, 2},
		{"HEAD /x HTTP/1.1", "", "/x", "[]", 200, 2},
		{"GET /204 HTTP/1.1", "", "/204", "[]", 204, -1},
		{"GET /304 HTTP/1.1", "", "/304", "[]", 304, 7},
	} {
		res, err := w.send(o, row.send, nil)
		if err != nil {
			t.Fatalf("%q: %v", row.send, err)
		}
		if res.Status != row.status || res.Proto != "HTTP/2.0" || res.Length != row.length || field(res.Fields, "x-uri") != row.uri ||
			field(res.Fields, "x-host") != host || field(res.Fields, "x-agent") != row.agent || field(res.Fields, "alt-svc") != "" ||
			field(res.Fields, "content-length") != "" {
			t.Errorf("%q: %+v %q", row.send, res, res.Fields)
		}
		if strings.Contains(row.send, "Cookie") && (field(res.Fields, "x-cookie") != "a=1; b=2" || field(res.Fields, "x-te") != "trailers") {
			t.Errorf("%q", res.Fields)
		}
		w.expect(res, err, row.want)
	}
	if o.conns.Load() != 1 {
		t.Errorf("%d connections", o.conns.Load())
	}
	res, err := w.send(o, "OPTIONS * HTTP/1.1", nil) // net/http answers that itself, and only if :path is "*"
	w.expect(res, err, "")
	req := w.request(o.url("https"), "GET / HTTP/1.1\nUser-Agent: a")
	p, rc := permit(t, req, w.rule), w.receipt(req)
	req.Fields = append(req.Fields, req.Fields...) // canon does not let it come to this
	_, err = w.c.Send(context.Background(), p, rc, req, &SendOptions{Principal: "agent"})
	wantReason(t, err, "upstream_unsendable 400")
	if !w.get(o, "ok").Reused {
		t.Error("not reused")
	}
}

func TestH2BidirectionalStreamWithTrailers(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "Grpc-Status")
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			b := make([]byte, 5)
			for {
				if _, err := io.ReadFull(r.Body, b); err != nil {
					break
				}
				_, _ = w.Write(b)
				_ = http.NewResponseController(w).Flush()
			}
			w.Header().Set("Grpc-Status", "0")
		}))
	w := newWorld(t, ca, nil)
	body := newFeed()
	res, err := w.send(o, "POST /pkg.Service/Method HTTP/1.1\nContent-Type: application/grpc\nTE: trailers\nConnection: TE\nTransfer-Encoding: chunked", withBody(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		msg := fmt.Sprintf("msg-%d", i)
		body.pieces <- []byte(msg)
		got := ""
		for len(got) < len(msg) {
			p, err := res.Next()
			if err != nil {
				t.Fatal(err)
			}
			got += string(p)
		}
		if got != msg || res.Trailers() != nil {
			t.Errorf("%q", got)
		}
	}
	close(body.pieces)
	if _, err := res.Next(); err != io.EOF {
		t.Error(err)
	}
	if !res.Buffered() || field(res.Trailers(), "grpc-status") != "0" || res.Framing != http1.Chunked {
		t.Errorf("%q", res.Trailers())
	}
	res.EndUpload()
	res.Close()
	if body.aborted() {
		t.Error("aborted a body that had ended")
	}
}

func TestH2RequestTrailersAreForwarded(t *testing.T) {
	ca := newAuthority(t)
	kinds := make(chan byte, 8)
	o := listenH2(t, ca, func(s *rawH2) {
		for {
			kind, flags, stream, ok := s.next()
			if !ok {
				return
			}
			kinds <- kind
			if flags&flagEndStream != 0 {
				s.write(frameHeaders, flagEndHeaders|flagEndStream, stream, status200)
			}
		}
	})
	w := newWorld(t, ca, nil)
	body := whole("abc")
	body.trailers = []http1.Field{{Name: []byte("X-Sum"), Value: []byte("1")}}
	res, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	w.expect(res, err, "")
	if a, b, c := <-kinds, <-kinds, <-kinds; a != frameHeaders || b != frameData || c != frameHeaders {
		t.Error(a, b, c)
	}
}

func TestH2InterimAnswers(t *testing.T) {
	ca := newAuthority(t)
	count := make(chan int, 1)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a>")
			for range <-count {
				w.WriteHeader(http.StatusEarlyHints)
			}
			_, _ = io.WriteString(w, "ok")
		}))
	w := newWorld(t, ca, nil)
	var seen int
	opts := &SendOptions{Principal: "agent", OnInterim: func(status int, fields []http1.Field) error {
		if status != 103 || field(fields, "link") != "</a>" {
			t.Errorf("%d %q", status, fields)
		}
		seen++
		return nil
	}}
	count <- 8
	res, err := w.send(o, "GET / HTTP/1.1", opts)
	w.expect(res, err, "ok")
	if seen != 8 {
		t.Errorf("%d relayed", seen)
	}
	count <- 9
	_, err = w.send(o, "GET / HTTP/1.1", opts)
	wantReason(t, err, "bad_response 502")
	opts.OnInterim = func(int, []http1.Field) error { return errAborted }
	count <- 1
	if res, err = w.send(o, "GET / HTTP/1.1", opts); !errors.Is(err, errAborted) {
		t.Error(err, res)
	}
}

func TestH2ClientGoneMidBody(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true, echo())
	w := newWorld(t, ca, nil)
	body := newFeed("abc")
	body.fail <- &http1.Error{Reason: "bad_chunk", Status: 400}
	_, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	wantReason(t, err, "bad_chunk 400")
	broken := newFeed()
	broken.fail <- io.ErrUnexpectedEOF
	_, err = w.send(o, "POST / HTTP/1.1\nContent-Length: 0", withBody(broken))
	wantReason(t, err, "request_aborted 400")
	_, err = w.send(o, "POST / HTTP/1.1\nContent-Length: 0", withBody(whole("x")))
	wantReason(t, err, "request_aborted 400")
	_, err = w.send(o, "POST / HTTP/1.1\nContent-Length: 5", withBody(nil))
	wantReason(t, err, "upstream_unsendable 500")
	ctx, cancel := context.WithCancel(context.Background())
	blocked := newFeed()
	go func() { <-blocked.asked; cancel() }()
	_, err = w.sendTo(ctx, o.url("https"), "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(blocked))
	wantReason(t, err, "canceled 502")
	if !blocked.aborted() || blocked.inNext.Load() != 0 {
		t.Error("the body is still in use")
	}
	if o.conns.Load() != 1 {
		t.Error("a stream's end took the connection with it")
	}
}

func TestH2EarlyResponseEndsTheUpload(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }))
	w := newWorld(t, ca, nil)
	body := newFeed("first")
	res, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	if err != nil {
		t.Fatal(err)
	}
	w.expect(res, nil, "")
	if !body.aborted() || body.inNext.Load() != 0 {
		t.Error("the body is still in use")
	}
}

func TestH2ExpectContinue(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				w.WriteHeader(403)
				return
			}
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		}))
	w := newWorld(t, ca, func(c *Config) { c.ContinueTimeout = deadline })
	body := whole("abc")
	res, err := w.send(o, "POST / HTTP/1.1\nContent-Length: 3\nExpect: 100-continue", withBody(body))
	w.expect(res, err, "abc")
	body = whole("abc")
	res, err = w.send(o, "POST /no HTTP/1.1\nContent-Length: 3\nExpect: 100-continue", withBody(body))
	w.expect(res, err, "")
	if body.wasAsked() {
		t.Error("the body was read for an answer that did not want it")
	}
}

func TestH2Retire(t *testing.T) {
	ca := newAuthority(t)
	release := make(chan struct{})
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				w.WriteHeader(200)
				_ = http.NewResponseController(w).Flush()
				<-release
			}
			_, _ = io.WriteString(w, "ok")
		}))
	w := newWorld(t, ca, nil)
	slow, err := w.send(o, "GET /wait HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	none := func(string, string, uint16, string) bool { return false }
	w.c.Retire(none)
	w.get(o, "ok")
	if o.conns.Load() != 2 {
		t.Error("a retired connection took a new request")
	}
	close(release)
	w.expect(slow, nil, "ok")
	left := func(n int) func() bool {
		return func() bool {
			w.c.pool.mu.Lock()
			defer w.c.pool.mu.Unlock()
			return len(w.c.pool.live2) == n
		}
	}
	until(t, "the retired connection closes after its last stream", left(1))
	w.c.Retire(none)
	until(t, "the idle one closes at once", left(0))
}

func TestH2MoreStreamsThanOneConnectionTakes(t *testing.T) {
	ca := newAuthority(t)
	release := make(chan struct{})
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	o := serveHTTP(t, conf, true, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	w := newWorld(t, ca, nil)
	var open []*Response
	for range 300 { // net/http's server takes 250
		res, err := w.send(o, "GET / HTTP/1.1", nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, res)
	}
	close(release)
	for _, res := range open {
		_, _ = readAll(res)
		res.Close()
	}
	if n := o.conns.Load(); n < 2 || n > 4 {
		t.Errorf("%d connections", n)
	}
}

func TestH2TransportDoesNotDial(t *testing.T) {
	w := newWorld(t, nil, nil)
	if _, err := w.c.transport.NewClientConn(context.Background(), "https", "127.0.0.1:1"); err == nil {
		t.Error("it dialled")
	}
}
