package proxy_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

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
