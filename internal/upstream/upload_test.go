package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

func TestS11BodyNotAsLongAsDeclared(t *testing.T) {
	for name, row := range map[string]struct {
		length string
		body   *feed
	}{
		"small and short": {"5", whole("abc")},
		"small and long":  {"2", whole("abc")},
		"large and short": {"100000", whole("abc")},
		"large and long":  {"20000", whole(strings.Repeat("x", 20001))},
	} {
		t.Run(name, func(t *testing.T) {
			o := listen(t, nil, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			w := newWorld(t, nil, nil)
			_, err := w.sendPlain(o, "POST / HTTP/1.1\nContent-Length: "+row.length, withBody(row.body))
			wantReason(t, err, "request_aborted 400")
			if w.idle() != 0 {
				t.Error("the connection was kept")
			}
		})
	}
}

func TestS11ClientGoneMidBody(t *testing.T) {
	gone := make(chan string, 1)
	o := listen(t, nil, func(conn net.Conn) {
		b, _ := io.ReadAll(conn)
		gone <- string(b)
	})
	w := newWorld(t, nil, nil)
	body := newFeed("abc")
	body.fail <- io.ErrUnexpectedEOF
	_, err := w.sendPlain(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	var e *Error
	if !errors.As(err, &e) || e.Reason != ReasonRequestAborted || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%#v", err)
	}
	if got := <-gone; strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("a broken body was ended well: %q", got)
	}
	bad := newFeed()
	bad.fail <- &http1.Error{Reason: "bad_chunk", Status: 400}
	_, err = w.sendPlain(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(bad))
	wantReason(t, err, "bad_chunk 400")
}

// echo answers each request with what it received, as net/http read it.
func echo() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("X-Uri", r.RequestURI)
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-Agent", fmt.Sprint(r.Header["User-Agent"]))
		w.Header().Set("X-Accept", fmt.Sprint(r.Header["Accept-Encoding"]))
		_, _ = w.Write(b)
	})
}

func TestBodiesOfAllSizes(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	for _, h2 := range []bool{false, true} {
		o := serveHTTP(t, conf, h2, echo())
		w := newWorld(t, ca, nil)
		for _, size := range []int{0, 1, 1000, 16 << 10, 16<<10 + 1, 300000} {
			text := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			var pieces []string
			for rest := text; rest != ""; {
				n := min(len(rest), 90000)
				pieces, rest = append(pieces, rest[:n]), rest[n:]
			}
			res, err := w.send(o, fmt.Sprintf("POST /p?q HTTP/1.1\nContent-Length: %d", size), withBody(whole(pieces...)))
			if err == nil && (field(res.Fields, "x-length") != fmt.Sprint(size) || field(res.Fields, "x-uri") != "/p?q" ||
				field(res.Fields, "x-agent") != "[]" || field(res.Fields, "x-accept") != "[]") {
				t.Errorf("%q", res.Fields)
			}
			w.expect(res, err, text)
			res, err = w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(whole(pieces...)))
			w.expect(res, err, text)
		}
		if n := o.conns.Load(); n != 1 {
			t.Errorf("h2 %v: %d connections", h2, n)
		}
	}
}

func TestTrailersOfAChunkedRequest(t *testing.T) {
	got := make(chan string, 1)
	o := listen(t, nil, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		_, _ = readHead(br)
		rest := make([]byte, len("3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"))
		_, _ = io.ReadFull(br, rest)
		got <- string(rest)
		_, _ = io.WriteString(conn, reply("ok"))
	})
	w := newWorld(t, nil, nil)
	body := whole("abc")
	body.trailers = []http1.Field{{Name: []byte("X-Sum"), Value: []byte("1")}}
	res, err := w.sendPlain(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	w.expect(res, err, "ok")
	if g := <-got; g != "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n" {
		t.Errorf("%q", g)
	}
}

func TestEarlyResponse(t *testing.T) {
	for name, row := range map[string]struct {
		status  string
		aborted bool // before Close
	}{"413": {"413 Content Too Large", true}, "200": {"200 OK", false}} {
		t.Run(name, func(t *testing.T) {
			o := listen(t, nil, func(conn net.Conn) {
				br := bufio.NewReader(conn)
				_, _ = readHead(br)
				_, _ = io.WriteString(conn, "HTTP/1.1 "+row.status+"\r\nContent-Length: 3\r\n\r\nbig")
				_, _ = io.Copy(io.Discard, br)
			})
			w := newWorld(t, nil, nil)
			body := newFeed("first")
			res, err := w.sendPlain(o, "POST / HTTP/1.1\nContent-Length: 1000000", withBody(body))
			if err != nil {
				t.Fatal(err)
			}
			if body.aborted() != row.aborted {
				t.Errorf("aborted: %v", body.aborted())
			}
			w.expect(res, nil, "big")
			if !body.aborted() || body.inNext.Load() != 0 {
				t.Error("the body is still in use after Close")
			}
			if w.idle() != 0 {
				t.Error("a connection with half a request on it was kept")
			}
		})
	}
}

func TestEndUploadWaits(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		_, _ = readHead(br)
		_, _ = io.WriteString(conn, reply("ok"))
		_, _ = io.Copy(io.Discard, br)
	})
	w := newWorld(t, nil, nil)
	body := newFeed("first")
	res, err := w.sendPlain(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = readAll(res)
	res.EndUpload()
	if !body.aborted() || body.inNext.Load() != 0 {
		t.Error("the body is still in use")
	}
	res.Close()
}

func TestExpectContinue(t *testing.T) {
	for name, row := range map[string]struct {
		first string // answer to the head
		asked bool
		want  string
	}{
		"100":                     {"HTTP/1.1 100 Continue\r\n\r\n", true, "abc"},
		"103 then 100":            {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", true, "abc"},
		"silence":                 {"", true, "abc"},
		"final":                   {"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno", false, "no"},
		"final that says it well": {reply("early"), false, "early"},
	} {
		t.Run(name, func(t *testing.T) {
			heads := make(chan string, 1)
			o := listen(t, nil, func(conn net.Conn) {
				br := bufio.NewReader(conn)
				head, _ := readHead(br)
				heads <- head
				_, _ = io.WriteString(conn, row.first)
				b := make([]byte, 3)
				if _, err := io.ReadFull(br, b); err == nil {
					_, _ = io.WriteString(conn, reply(string(b)))
				}
				_, _ = io.Copy(io.Discard, br)
			})
			w := newWorld(t, nil, func(c *Config) { c.ContinueTimeout = 20 * time.Millisecond })
			if row.first != "" {
				w.c.conf.ContinueTimeout = deadline
			}
			body := whole("abc")
			res, err := w.sendPlain(o, "POST / HTTP/1.1\nContent-Length: 3\nExpect: 100-continue", withBody(body))
			w.expect(res, err, row.want)
			if body.wasAsked() != row.asked {
				t.Errorf("body asked for: %v", body.wasAsked())
			}
			if head := <-heads; strings.Count(head, "Expect: 100-continue") != 1 {
				t.Errorf("%q", head)
			}
			if keep := w.idle() == 1; keep != row.asked {
				t.Errorf("kept: %v", keep)
			}
		})
	}
}

func TestWriteStall(t *testing.T) {
	stop := make(chan struct{})
	o := listen(t, nil, func(net.Conn) { <-stop }) // never reads
	defer close(stop)
	w := newWorld(t, nil, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	body := newFeed()
	piece := strings.Repeat("x", 1<<20)
	go func() {
		for range 64 {
			select {
			case body.pieces <- []byte(piece):
			case <-body.abort:
				return
			}
		}
	}()
	_, err := w.sendPlain(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	wantReason(t, err, "upstream_timeout 504")
	body.Abort()
}
