package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestRetireClosesWhatIsNotKept(t *testing.T) {
	o := listen(t, nil, script(reply("ok"), reply("ok"), reply("ok")))
	w := newWorld(t, nil, nil)
	get := func(principal string) *Response {
		res, err := w.sendPlain(o, "GET / HTTP/1.1", &SendOptions{Principal: principal})
		return w.expect(res, err, "ok")
	}
	get("a")
	get("b")
	inUse, err := w.sendPlain(o, "GET / HTTP/1.1", &SendOptions{Principal: "a"})
	if err != nil {
		t.Fatal(err)
	}
	w.c.Retire(func(principal, host string, port uint16, key string) bool {
		if host != originName || port != o.addr.Port() || key == "" {
			t.Errorf("%s %s %d %s", principal, host, port, key)
		}
		return principal != "a"
	})
	w.expect(inUse, nil, "ok") // goes on to its end
	if w.idle() != 1 {
		t.Errorf("%d idle", w.idle())
	}
	if get("a").Reused || !get("b").Reused {
		t.Error("the wrong ones were retired")
	}
	w.c.Retire(func(string, string, uint16, string) bool { return false })
	if w.idle() != 0 {
		t.Error("idle connections outlived Retire")
	}
}

func TestIdleConnectionsAreSwept(t *testing.T) {
	o := listen(t, nil, script(reply("ok"), reply("ok")))
	w := newWorld(t, nil, func(c *Config) { c.IdleTimeout = 20 * time.Millisecond })
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "ok")
	until(t, "swept", func() bool {
		w.c.pool.mu.Lock()
		defer w.c.pool.mu.Unlock()
		return w.c.pool.idle == 0 && len(w.c.pool.live) == 0 && len(w.c.pool.hosts) == 0 && w.c.pool.timer == nil
	})
}

func TestASweptHostTakesItsConnectionBack(t *testing.T) {
	o := listen(t, nil, script(reply("ok"), reply("ok")))
	w := newWorld(t, nil, nil)
	first, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.c.pool.mu.Lock()
	clear(w.c.pool.hosts)
	w.c.pool.mu.Unlock()
	second, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(first, nil, "ok")
	w.expect(second, err, "ok")
	if w.idle() != 2 {
		t.Errorf("%d idle", w.idle())
	}
	w.c.pool.mu.Lock()
	clear(w.c.pool.hosts)
	w.c.pool.idle = 0
	w.c.pool.mu.Unlock()
}

func TestPoolIsBounded(t *testing.T) {
	for _, edit := range []func(*Config){func(c *Config) { c.MaxIdlePerHost = 2 }, func(c *Config) { c.MaxIdle = 2 }} {
		o := listen(t, nil, script(reply("ok")))
		w := newWorld(t, nil, edit)
		var open []*Response
		for range 5 {
			res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, res)
		}
		for _, res := range open {
			w.expect(res, nil, "ok")
		}
		if w.idle() != 2 {
			t.Errorf("%d idle", w.idle())
		}
	}
}

func TestWhoFillsThePoolTakesNobodyElsesPlace(t *testing.T) {
	const all = 6
	o := listen(t, nil, script(slices.Repeat([]string{reply("ok")}, 4)...))
	w := newWorld(t, nil, func(c *Config) { c.MaxIdle = all })
	get := func(principal string, n int) (reused int) {
		var open []*Response
		for range n {
			res, err := w.sendPlain(o, "GET / HTTP/1.1", &SendOptions{Principal: principal})
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, res)
		}
		for _, res := range open {
			if w.expect(res, nil, "ok").Reused {
				reused++
			}
		}
		return reused
	}
	get("loud", 2*all)
	get("quiet", 2)
	get("loud", 2*all)
	if n := get("quiet", 2); n != 2 {
		t.Errorf("%d of 2 connections were kept in a pool that another principal fills", n)
	}
	get("other", 2*all)
	w.c.pool.mu.Lock()
	defer w.c.pool.mu.Unlock()
	if p := w.c.pool; p.idle != all || p.holds["loud"] != 2 || p.holds["quiet"] != 2 || p.holds["other"] != 2 {
		t.Errorf("%d idle, of %v", p.idle, p.holds)
	}
}

// An agent that may reach many hosts has no more HTTP/2 connections for it, and takes
// none from another.
func TestHTTP2ConnectionsThatCarryNothingAreBounded(t *testing.T) {
	const all = 4
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	w := newWorld(t, ca, func(c *Config) { c.MaxHTTP2 = all })
	get := func(o *origin, principal string) *Response {
		res, err := w.send(o, "GET / HTTP/1.1", &SendOptions{Principal: principal})
		return w.expect(res, err, "ok")
	}
	quiet := serveHTTP(t, conf, true, answer)
	get(quiet, "quiet")
	for range 3 * all {
		get(serveHTTP(t, conf, true, answer), "loud") // another host
	}
	until(t, "no more than there may be", func() bool {
		w.c.pool.mu.Lock()
		defer w.c.pool.mu.Unlock()
		p := w.c.pool
		return len(p.live2) == all && p.holds2["loud"] == all-1 && p.holds2["quiet"] == 1
	})
	if !get(quiet, "quiet").Reused {
		t.Error("another agent's connection made room")
	}
}

// Where whoever has the most uses all of them, the next one has to do with fewer.
func TestHTTP2ConnectionsInUseLeaveTheOthersBounded(t *testing.T) {
	const all = 4
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	hang := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	w := newWorld(t, ca, func(c *Config) { c.MaxHTTP2 = all })
	for range all {
		res, err := w.send(serveHTTP(t, conf, true, hang), "GET / HTTP/1.1", &SendOptions{Principal: "busy"})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Close()
	}
	for range all - 1 { // of which none makes it the one with the most
		res, err := w.send(serveHTTP(t, conf, true, answer), "GET / HTTP/1.1", &SendOptions{Principal: "idle"})
		w.expect(res, err, "ok")
	}
	until(t, "one more than what is in use", func() bool {
		w.c.pool.mu.Lock()
		defer w.c.pool.mu.Unlock()
		return w.c.pool.holds2["busy"] == all && w.c.pool.holds2["idle"] == 1
	})
}

func TestCloseEndsWhatIsInUse(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"))
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	go w.c.Close()
	if _, err := res.Next(); err == nil {
		t.Error("read on")
	}
	res.Close()
}

func TestFirstRequestsShareOneDial(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	o := serveHTTP(t, conf, true, echo())
	w := newWorld(t, ca, nil)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			res, err := w.send(o, "GET / HTTP/1.1", nil)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = readAll(res)
			res.Close()
		})
	}
	wg.Wait()
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections for 64 requests", n)
	}
}

func TestAFailedDialFailsWhoWaitedForIt(t *testing.T) {
	release := make(chan struct{})
	o := listen(t, nil, func(net.Conn) { <-release })
	w := newWorld(t, nil, nil)
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			_, err := w.send(o, "GET / HTTP/1.1", nil)
			errs <- err
		}()
	}
	until(t, "a dial", func() bool { return o.conns.Load() == 1 })
	// One that gives up leaves the others alone.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := w.sendTo(ctx, o.url("https"), "GET / HTTP/1.1", nil)
	wantReason(t, err, "canceled 502")
	close(release)
	for range 8 {
		wantReason(t, <-errs, "upstream_truncated 502")
	}
}

func TestWaitersGoOnWhenTheDiallerGaveUp(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	first := make(chan struct{})
	var once sync.Once
	o := listen(t, nil, func(conn net.Conn) {
		gaveUp := false
		once.Do(func() {
			close(first)
			gaveUp = true
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Read(make([]byte, 1))
		})
		if !gaveUp {
			script(reply("ok"))(tls.Server(conn, conf))
		}
	})
	w := newWorld(t, ca, nil)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { _, err := w.sendTo(ctx, o.url("https"), "GET / HTTP/1.1", nil); gone <- err }()
	<-first
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err := w.send(o, "GET / HTTP/1.1", nil)
		if err != nil {
			t.Error(err)
			return
		}
		res.Close()
	}()
	cancel()
	wantReason(t, <-gone, "canceled 502")
	<-done
}

func TestAnHTTP2ConnectionThatDiedBeforeItWasPooled(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true, echo())
	w := newWorld(t, ca, nil)
	req := w.request(o.url("https"), "GET / HTTP/1.1")
	eg := permit(t, req, w.rule).Egress()
	key := poolKey{principal: "agent", scheme: req.Scheme, host: req.Host, port: req.Port, egress: eg.Key}
	got, err := w.c.pool.take(key, false)
	if err != nil {
		t.Fatal(err)
	}
	_, h2, err := w.c.open(context.Background(), key, targetOf(req, eg), false)
	if err != nil {
		t.Fatal(err)
	}
	_ = h2.cc.Close()
	w.c.pool.opened(got.host, got.flight, nil, h2, nil, false)
	if n := len(got.host.h2) + len(w.c.pool.live2); n != 0 {
		t.Errorf("the pool holds %d dead connections", n)
	}
	res, err := w.send(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "")
}

func TestUpgradesAskForHTTP1(t *testing.T) {
	ca := newAuthority(t)
	asked := make(chan []string, 1)
	conf := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		asked <- h.SupportedProtos
		return nil, nil
	}, Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	o := listen(t, conf, script(reply("no")))
	w := newWorld(t, ca, nil)
	res, err := w.send(o, "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket", nil)
	w.expect(res, err, "no")
	if got := <-asked; len(got) != 1 || got[0] != "http/1.1" {
		t.Errorf("%q", got)
	}
}

func TestKeepAliveAllocations(t *testing.T) {
	o := serveHTTP(t, nil, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
	w := newWorld(t, nil, nil)
	req := w.request(o.url("http"), "GET / HTTP/1.1")
	p, rc, opts := permit(t, req, w.rule), w.receipt(req), &SendOptions{Principal: "a"}
	res, err := w.c.Send(context.Background(), p, rc, req, opts)
	if err != nil {
		t.Fatal(err)
	}
	c := res.c
	w.expect(res, nil, "ok")
	if n := testing.AllocsPerRun(200, func() { _ = c.fresh(); c.allowRead(time.Hour); c.writeHead(req, true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestContextAllocations holds what a context that can end costs an exchange to
// what the context package itself takes.
func TestContextAllocations(t *testing.T) {
	o := serveHTTP(t, nil, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
	w := newWorld(t, nil, nil)
	req := w.request(o.url("http"), "GET / HTTP/1.1")
	p, rc, opts := permit(t, req, w.rule), w.receipt(req), &SendOptions{Principal: "a"}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	exchange := func(ctx context.Context) func() {
		return func() {
			res, err := w.c.Send(ctx, p, rc, req, opts)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = res.Next()
			}
			res.Close()
		}
	}
	exchange(ctx)()
	own := testing.AllocsPerRun(200, func() { context.AfterFunc(ctx, func() {})() })
	without, with := testing.AllocsPerRun(200, exchange(context.Background())), testing.AllocsPerRun(200, exchange(ctx))
	if with > without+own {
		t.Errorf("%v allocations, %v with a context that can end, of which %v are context's", without, with, own)
	}
}

func BenchmarkKeepAlive(b *testing.B) {
	ca := newAuthority(b)
	o := listen(b, &tls.Config{Certificates: []tls.Certificate{ca.leaf(b, nil)}}, func(conn net.Conn) {
		buf, answer := make([]byte, 4096), []byte(reply(string(make([]byte, 1024))))
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	})
	w := newWorld(b, ca, nil)
	req := w.request(o.url("https"), "GET / HTTP/1.1\nAccept: */*")
	p, rc, opts := permit(b, req, w.rule), w.receipt(req), &SendOptions{Principal: "a"}
	b.ReportAllocs()
	for b.Loop() {
		res, err := w.c.Send(context.Background(), p, rc, req, opts)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = res.Next()
		}
		res.Close()
	}
}

func TestWireGathersRecords(t *testing.T) {
	here, there := net.Pipe()
	w := &wire{Conn: here}
	writes := make(chan int, 8)
	go func() {
		defer close(writes)
		b := make([]byte, 1<<20)
		for {
			n, err := there.Read(b)
			if err != nil {
				return
			}
			writes <- n
		}
	}()
	w.cork(make([]byte, 0, 8))
	for _, s := range []string{"abc", "def", "ghi", "longer than the buffer"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.uncork(); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("x")); n != 1 || err != nil || w.sent() != 32 {
		t.Error(n, err, w.sent())
	}
	_ = here.Close()
	var sizes []int
	for n := range writes {
		if n > 0 {
			sizes = append(sizes, n)
		}
	}
	if len(sizes) != 4 || sizes[0] != 6 {
		t.Errorf("written as %v", sizes)
	}
	w.cork(make([]byte, 0, 2))
	if _, err := w.Write([]byte("abc")); err == nil {
		t.Error("written to a closed pipe")
	}
}

func TestErrorsAreFitForALog(t *testing.T) {
	for _, row := range []struct{ err, want string }{
		{fail("r", 502, "", nil).Error(), "upstream: r"},
		{fail("r", 502, "a\nb\x1b\u2028", nil).Error(), `upstream: r: a\nb\x1b\u2028`},
		{streamError{StreamID: 1, Code: 7}.Error(), "stream 1: code 7"},
		{asError(net.ErrClosed).Error(), "upstream: dial_failed: use of closed network connection"},
		{bodyError(fail("r", 413, "", nil)).Error(), "upstream: r"},
	} {
		if row.err != row.want {
			t.Errorf("%q, want %q", row.err, row.want)
		}
	}
	if n := len(fail("r", 502, string(make([]byte, 1000)), nil).Detail); n > 4*maxDetail {
		t.Errorf("%d bytes of detail", n)
	}
}

func TestD08AConnectionIsNotUsedForAnotherRule(t *testing.T) {
	o := listen(t, nil, script(reply("ok"), reply("ok")))
	w := newWorld(t, nil, nil)
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "ok")
	was := w.rule
	w.rule.addresses = nil
	_, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "address_denied 403")
	w.rule.addresses = []string{"127.0.0.1/32"}
	res, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	if res = w.expect(res, err, "ok"); res.Reused {
		t.Error("used for another rule")
	}
	w.rule = was
	res, err = w.sendPlain(o, "GET / HTTP/1.1", &SendOptions{Principal: "another"})
	if res = w.expect(res, err, "ok"); res.Reused {
		t.Error("used for another principal")
	}
}
