package proxy_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// Heads without an end, of 60 KiB each: an address gets half of what there is, and
// what fits one page meets no bound.
func TestR07UnfinishedHeadsHaveABudget(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{HeadBytes: 256 << 10},
		Policy: "- name: all\n  {{to \"plain.test\"}}\n",
		Hosts:  map[string]enginetest.Host{"plain.test": {Plain: true}},
	})
	host := e.Authority("plain.test")
	begin := func(last byte, size int) net.Conn {
		c := dialFrom(t, e.Addr, last)
		_, _ = c.Write([]byte("GET http://" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nX: " + strings.Repeat("x", size)))
		return c
	}
	status := func(c net.Conn) string {
		line := make([]byte, len("HTTP/1.1 200"))
		if _, err := c.Read(line); err != nil {
			return err.Error()
		}
		return string(line)
	}
	var held []net.Conn
	refusals := 0
	for range 6 { // two get all of what they want, one a quarter of it
		held = append(held, begin(2, 60<<10))
	}
	if !enginetest.Eventually(func() bool {
		refusals = len(e.Find(t, enginetest.Fields{"event": "egress_denied", "reason": "too_many_heads"}))
		return refusals >= 4
	}) {
		t.Errorf("%d refusals of six heads: %s", refusals, e.Dump(t))
	}
	c := begin(3, 20<<10)
	_, _ = fmt.Fprint(c, "\r\n\r\n")
	if got := status(c); got != "HTTP/1.1 200" {
		t.Errorf("a large head of another address: %s", got)
	}
	c = begin(2, 1<<10)
	_, _ = fmt.Fprint(c, "\r\n\r\n")
	if got := status(c); got != "HTTP/1.1 200" {
		t.Errorf("a head of one page: %s", got)
	}
	for _, c := range held {
		_ = c.Close()
	}
	if !enginetest.Eventually(func() bool {
		c := begin(2, 60<<10)
		defer c.Close()
		_, _ = fmt.Fprint(c, "\r\n\r\n")
		return status(c) == "HTTP/1.1 200"
	}) {
		t.Error("what became free is not given again")
	}
}

// Large heads over HTTP/2 have the budget of those over HTTP/1.
func TestR07LargeHeadsOverHTTP2HaveABudget(t *testing.T) {
	hang := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{HeadBytes: 512 << 10},
		Policy: "- name: all\n  {{to \"allowed.test\"}}\n",
		Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/hang") {
				<-hang
			}
		})}},
	})
	c := dialH2(t, e, "allowed.test")
	begin := func(path string, size int) uint32 {
		fields := []string{":method: GET", ":scheme: https", ":authority: " + e.Authority("allowed.test"), ":path: " + path}
		for ; size > 0; size -= 1 << 10 {
			fields = append(fields, fmt.Sprintf("x-%d: %s", size, strings.Repeat("x", 1<<10)))
		}
		return c.open(true, fields...)
	}
	for i := range 12 { // of 10 KiB, held three times: an address gets half of what there is
		begin(fmt.Sprintf("/hang/%d", i), 10<<10)
	}
	refused := func() int {
		return len(e.Find(t, enginetest.Fields{"event": "egress_denied", "reason": "too_many_heads"}))
	}
	if !enginetest.Eventually(func() bool { return refused() >= 3 }) {
		t.Errorf("%d of 12 heads were refused", refused())
	}
	if a := c.answer(begin("/small", 1<<10)); a.Status != 200 {
		t.Errorf("a head of one page: %v", a)
	}
	close(hang)
	if !enginetest.Eventually(func() bool { return c.answer(begin("/large", 10<<10)).Status == 200 }) {
		t.Error("what became free is not given again")
	}
}

// crypto/tls keeps the buffer of a ClientHello for as long as there is the connection.
// What is far larger than an honest one takes its room from the heads' budget.
func TestR07LargeHellosHaveABudget(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{HeadBytes: 700 << 10}})
	many := append(slices.Repeat([]string{"x"}, 25_000), "http/1.1")
	greet := func(offer []string) (*enginetest.Conn, error) {
		c := e.RawConnect(t, "allowed.test")
		return c, c.StartTLS("allowed.test", &enginetest.TunnelOptions{ALPN: offer})
	}
	var held []*enginetest.Conn
	for range 6 {
		if c, err := greet(many); err == nil {
			c.WantOpen("allowed.test", "/large")
			held = append(held, c)
		}
	}
	if n := len(held); n != 3 {
		t.Errorf("%d of six hellos of 50 KiB found room", n)
	}
	e.WantRecords(t, 3, enginetest.Fields{"event": "egress_denied", "reason": "too_many_heads", "host": "allowed.test"})
	c, err := greet(nil)
	if err != nil {
		t.Fatalf("an ordinary hello: %v", err)
	}
	c.WantOpen("allowed.test", "/small")
	for _, c := range held {
		_ = c.Close()
	}
	if !enginetest.Eventually(func() bool { _, err := greet(many); return err == nil }) {
		t.Error("what became free is not given again")
	}
}

// Trailers are a second head, which is held until the origin has answered.
func TestR07LargeTrailersOverHTTP2EndTheConnection(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Unmatched: true, Policy: "- name: all\n  {{to \"allowed.test\"}}\n"})
	for what, frames := range map[string]int{"in one frame": 1, "in many": 12} {
		c := dialH2(t, e, "allowed.test")
		stream := c.open(false, ":method: POST", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: /up", "trailer: x")
		block := c.encode("x: " + strings.Repeat("~", 12<<10)) // no shorter by Huffman's code
		size := len(block) / frames
		_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block[:size], EndStream: true, EndHeaders: frames == 1})
		for i := 1; i < frames; i++ {
			from, to := i*size, (i+1)*size
			if i == frames-1 {
				to = len(block)
			}
			_ = c.framer.WriteContinuation(stream, i == frames-1, block[from:to])
		}
		if a := c.answer(stream); !a.Gone {
			t.Errorf("%s: %v", what, a)
		}
	}
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied", "reason": "bad_trailer", "alpn": "h2"})
}
