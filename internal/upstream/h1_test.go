package upstream

import (
	"bufio"
	"context"
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

func TestSendWritesTheRequestAsItWasJudged(t *testing.T) {
	heads := make(chan string, 8)
	o := listen(t, nil, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		for {
			head, err := readHead(br)
			if err != nil {
				return
			}
			heads <- head
			_, _ = io.WriteString(conn, reply("ok"))
		}
	})
	w := newWorld(t, nil, nil)
	host := fmt.Sprintf("%s:%d", originName, o.addr.Port())
	for _, row := range []struct{ send, want string }{
		{"GET /a?b=c HTTP/1.1\nX-One: 1\nAccept: */*", "GET /a?b=c HTTP/1.1\r\nHost: " + host + "\r\nX-One: 1\r\nAccept: */*\r\n\r\n"},
		{"GET / HTTP/1.1\nConnection: x-hop\nX-Hop: 1\nTE: trailers", "GET / HTTP/1.1\r\nHost: " + host + "\r\n"},
		{"POST / HTTP/1.1\nContent-Length: 0", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\n\r\n"},
	} {
		res, err := w.sendPlain(o, row.send, nil)
		w.expect(res, err, "ok")
		if got := <-heads; !strings.HasPrefix(got, row.want) || strings.Contains(got, "X-Hop") {
			t.Errorf("sent %q, want %q", got, row.want)
		}
	}
}

func TestKeepAliveReusesOneConnection(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	o := listen(t, conf, script(reply("1"), reply("2"), "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", reply("last")))
	w := newWorld(t, ca, nil)
	if res := w.get(o, "1"); res.Reused || res.TLSVersion != tls.VersionTLS13 || res.Addr != o.addr {
		t.Errorf("first: %+v", res)
	}
	if res := w.get(o, "2"); !res.Reused {
		t.Error("the second request opened a connection")
	}
	w.get(o, "") // 204
	w.get(o, "") // 304
	res, err := w.send(o, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(res); got != "ab" || err != nil || field(res.Trailers(), "x-t") != "1" || res.Length != -1 {
		t.Errorf("chunked: %q %v %v", got, err, res.Trailers())
	}
	res.Close()
	res, err = w.send(o, "HEAD / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Length != 9 || res.Framing != http1.NoBody || !res.Buffered() {
		t.Errorf("HEAD: %+v", res)
	}
	w.expect(res, nil, "")
	w.get(o, "last")
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestResponseFieldsAreEndToEnd(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nAlt-Svc: h3\r\n"+
		"Content-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nok"))
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Fields) != 2 || field(res.Fields, "set-cookie") != "a|b" || res.Length != 2 {
		t.Errorf("%q", res.Fields)
	}
	w.expect(res, nil, "ok")
}

func TestS19ResponsesThatAreRefused(t *testing.T) {
	for name, raw := range map[string]string{
		"length and coding":          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"endless interim answers":    strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9) + reply("ok"),
		"a 101 nobody asked for":     "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"a body on 204":              "HTTP/1.1 204 No Content\r\n\r\nbody",
		"a body on 304":              "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody",
		"bytes after the body":       reply("ok") + "HTTP/1.1 200 OK\r\n\r\n",
		"coding on 204":              "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"not HTTP":                   "SSH-2.0-OpenSSH_9\r\n\r\n",
		"a bare LF":                  "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
		"a status beyond all bounds": "HTTP/1.1 2000 OK\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := listen(t, nil, script(raw))
			w := newWorld(t, nil, nil)
			res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
			if err == nil {
				defer res.Close()
				t.Fatalf("accepted: %+v", res)
			}
			var e *Error
			if !errors.As(err, &e) || e.Status != http.StatusBadGateway || e.Retry {
				t.Errorf("%#v", err)
			}
			if n := w.idle(); n != 0 {
				t.Errorf("%d connections were kept", n)
			}
		})
	}
	t.Run("a body on HEAD", func(t *testing.T) {
		o := listen(t, nil, script(reply("body")))
		w := newWorld(t, nil, nil)
		_, err := w.sendPlain(o, "HEAD / HTTP/1.1", nil)
		wantReason(t, err, "bad_response 502")
	})
	t.Run("a body on 204, in a TLS record of its own", func(t *testing.T) {
		ca := newAuthority(t)
		o := listen(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, func(conn net.Conn) {
			br := bufio.NewReader(conn)
			if _, err := readHead(br); err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			_, _ = io.WriteString(conn, "body")
			_, _ = io.Copy(io.Discard, br)
		})
		w := newWorld(t, ca, nil)
		if res, err := w.send(o, "GET / HTTP/1.1", nil); err == nil {
			res.Close() // the body came later than the head: then it must not be reused
		}
		res, err := w.send(o, "GET / HTTP/1.1", nil)
		if err == nil {
			if res.Reused {
				t.Error("a connection with unread bytes was used again")
			}
			res.Close()
		}
	})
}

func TestS19SurplusIsNeverReused(t *testing.T) {
	release := make(chan struct{}, 1)
	o := listen(t, nil, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		if _, err := readHead(br); err != nil {
			return
		}
		_, _ = io.WriteString(conn, reply("ok"))
		if _, first := <-release; first {
			_, _ = io.WriteString(conn, reply("poison"))
		}
		_, _ = io.Copy(io.Discard, br)
	})
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "ok")
	release <- struct{}{}
	w.c.pool.mu.Lock()
	var c *conn
	for c = range w.c.pool.live {
	}
	w.c.pool.mu.Unlock()
	until(t, "the surplus arrives", func() bool { return !c.w.quiet() })
	close(release)
	res, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	if res = w.expect(res, err, "ok"); res.Reused || o.conns.Load() != 2 {
		t.Error("the poisoned connection was used")
	}
}

func TestS10BadChunksOfAResponse(t *testing.T) {
	for _, chunk := range []string{"0x3\r\nabc\r\n", "+3\r\nabc\r\n", "3 \r\nabc\r\n", "0_2e\r\n", "\r\n", "00000000000000003\r\nabc\r\n", "3;a\nb\r\nabc\r\n", "3\r\nabcd\r\n"} {
		o := listen(t, nil, script("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk))
		w := newWorld(t, nil, nil)
		res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(res); err == nil {
			t.Errorf("%q: read %q", chunk, got)
		} else if r := reason(t, err); r != "bad_chunk 502" {
			t.Errorf("%q: %s", chunk, r)
		}
		if _, err := res.Next(); err == nil {
			t.Errorf("%q: the error does not stick", chunk)
		}
		res.Close()
		if w.idle() != 0 {
			t.Errorf("%q: the connection was kept", chunk)
		}
	}
}

func TestS11ResponsesThatAreCut(t *testing.T) {
	for name, row := range map[string]struct{ raw, want string }{
		"no answer":        {"", "upstream_closed 502"},
		"inside the head":  {"HTTP/1.1 200 OK\r\nContent-Le", "upstream_truncated 502"},
		"inside a length":  {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "upstream_truncated 502"},
		"inside of chunks": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "upstream_truncated 502"},
	} {
		t.Run(name, func(t *testing.T) {
			o := listen(t, nil, func(conn net.Conn) {
				_, _ = readHead(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, row.raw)
			})
			w := newWorld(t, nil, nil)
			res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
			if err == nil {
				_, err = readAll(res)
				res.Close()
			}
			wantReason(t, err, row.want)
		})
	}
}

func TestInterimAnswersAreRelayed(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: 1\r\n\r\n"+reply("ok"), "HTTP/1.1 103 \r\n\r\n"))
	w := newWorld(t, nil, nil)
	var seen []string
	opts := &SendOptions{Principal: "agent", OnInterim: func(status int, fields []http1.Field) error {
		seen = append(seen, fmt.Sprintf("%d %s %d", status, field(fields, "link"), len(fields)))
		return nil
	}}
	res, err := w.sendPlain(o, "GET / HTTP/1.1", opts)
	w.expect(res, err, "ok")
	if len(seen) != 1 || seen[0] != "103 </a> 1" {
		t.Errorf("%q", seen)
	}
	opts.OnInterim = func(int, []http1.Field) error { return errAborted }
	if _, err = w.sendPlain(o, "GET / HTTP/1.1", opts); !errors.Is(err, errAborted) {
		t.Error(err)
	}
}

func TestDeadConnectionIsReplacedOnlyIfNothingWasSent(t *testing.T) {
	o := listen(t, nil, script(reply("1")))
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "1")
	w.c.pool.mu.Lock()
	for c := range w.c.pool.live {
		// What the probe cannot see: the socket fails when it is written to.
		c.w.Conn = failing{c.w.Conn}
	}
	w.c.pool.mu.Unlock()
	body := whole("abc")
	res, err = w.sendPlain(o, "POST / HTTP/1.1\nContent-Length: 3", withBody(body))
	res = w.expect(res, err, "1")
	if o.conns.Load() != 2 || res.Reused {
		t.Error("not replaced")
	}
	// A peer that closes when it gets the request may have processed it.
	o2 := listen(t, nil, script(reply("1"), ""))
	res, err = w.sendPlain(o2, "GET / HTTP/1.1", nil)
	w.expect(res, err, "1")
	_, err = w.sendPlain(o2, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_closed 502")
	if o2.conns.Load() != 1 {
		t.Error("sent twice")
	}
}

// failing is a socket that takes nothing more.
type failing struct{ net.Conn }

func (failing) Write([]byte) (int, error) { return 0, net.ErrClosed }

func TestClosedIdleConnectionIsNotUsed(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, reply("ok"))
	})
	w := newWorld(t, nil, nil)
	for i := range 3 {
		res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
		w.expect(res, err, "ok")
		w.c.pool.mu.Lock()
		var c *conn
		for c = range w.c.pool.live {
		}
		w.c.pool.mu.Unlock()
		if c != nil {
			until(t, "the FIN arrives", func() bool { return !c.w.quiet() })
		}
		if n := o.conns.Load(); n != int32(i+1) {
			t.Fatalf("%d connections after %d requests", n, i+1)
		}
	}
}

func TestConnectionCloseAndHTTP10AreNotKept(t *testing.T) {
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
	} {
		o := listen(t, nil, script(raw))
		w := newWorld(t, nil, nil)
		res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
		w.expect(res, err, "ok")
		if w.idle() != 0 {
			t.Errorf("%q: kept", raw)
		}
	}
}

func TestUntilClose(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nuntil the end")
	})
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if err == nil && (res.Framing != http1.UntilClose || res.Length != -1) {
		t.Errorf("%+v", res)
	}
	w.expect(res, err, "until the end")
}

func TestHalfClosedOriginStillAnswers(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, reply("ok"))
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "ok")
}

func TestUnreadResponseClosesTheConnection(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"))
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.Next(); err != nil {
		t.Fatal(err)
	}
	res.Close()
	res.Close()
	if _, err := res.Next(); !errors.Is(err, errClosed) || res.Trailers() != nil || !res.Buffered() {
		t.Error(err)
	}
	res.EndUpload()
	if w.idle() != 0 {
		t.Error("kept")
	}
}

func TestCanceledContextEndsTheExchange(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"))
	w := newWorld(t, nil, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	res, err := w.sendTo(ctx, o.url("http"), "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = res.Next()
	cancel()
	_, err = res.Next()
	wantReason(t, err, "canceled 502")
	res.Close()

	silent := listen(t, nil, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	ctx, cancel = context.WithCancel(context.Background())
	body := newFeed()
	go func() { <-body.asked; cancel() }()
	_, err = w.sendTo(ctx, silent.url("http"), "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	wantReason(t, err, "canceled 502")
	if body.inNext.Load() != 0 {
		t.Error("the body is still in use")
	}
}

func TestDeadlines(t *testing.T) {
	short := func(c *Config) { c.HeaderTimeout, c.BodyIdleTimeout = 20*time.Millisecond, 20*time.Millisecond }
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"))
	w := newWorld(t, nil, short)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = readAll(res)
	wantReason(t, err, "upstream_timeout 504")
	res.Close()

	silent := listen(t, nil, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	_, err = w.sendPlain(silent, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_timeout 504")

	// The answer's time begins when the request has ended.
	slow := serveHTTP(t, nil, false, echo())
	w = newWorld(t, nil, func(c *Config) { c.HeaderTimeout = 250 * time.Millisecond })
	body := newFeed("a")
	go func() {
		time.Sleep(350 * time.Millisecond) // longer than HeaderTimeout: there is no state to wait for
		body.pieces <- []byte("b")
		close(body.pieces)
	}()
	res, err = w.sendPlain(slow, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	w.expect(res, err, "ab")
}

func TestWebSocketHijack(t *testing.T) {
	heads := make(chan string, 1)
	o := listen(t, nil, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		head, _ := readHead(br)
		heads <- head
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nearly")
		_, _ = io.Copy(conn, br)
	})
	w := newWorld(t, nil, nil)
	const upgrade = "GET /chat HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
	res, err := w.sendPlain(o, upgrade, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept := field(res.Fields, "sec-websocket-accept"); accept != "x" {
		t.Errorf("Sec-WebSocket-Accept is %q", accept)
	}
	conn, early, err := res.Hijack()
	if err != nil || string(early) != "early" {
		t.Fatal(err, early)
	}
	if res.Fields != nil { // they would be read out of what another connection has by now
		t.Error("the fields outlive the hand-over")
	}
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
		t.Error(err, got)
	}
	res.Close()
	_ = conn.Close()
	if head := <-heads; !strings.Contains(head, "Connection: Upgrade\r\nUpgrade: websocket\r\n") {
		t.Errorf("%q", head)
	}
	if _, _, err := res.Hijack(); err == nil {
		t.Error("taken over twice")
	}
	for _, raw := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		bad := listen(t, nil, script(raw))
		_, err := w.sendPlain(bad, upgrade, nil)
		wantReason(t, err, "bad_response 502") // U2
	}
	plain := listen(t, nil, script(reply("no")))
	res, err = w.sendPlain(plain, upgrade, nil) // U1: an answer like any other
	if _, _, herr := res.Hijack(); herr == nil {
		t.Error("took over a connection without a 101")
	}
	w.expect(res, err, "no")
}
