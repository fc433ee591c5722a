package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// dialH2As is dialH2 for the agent of that name.
func dialH2As(t *testing.T, e *enginetest.Engine, name, host string) *h2wire {
	t.Helper()
	conn := e.RawConnectAs(t, name, host)
	if err := conn.StartTLS(host, &enginetest.TunnelOptions{ALPN: []string{"h2"}}); err != nil {
		t.Fatal(err)
	}
	return newH2wire(t, conn)
}

// TestR02ControlFramesWithoutEnd floods with frames that are no request and no
// body, each by an agent of its own: the connection ends, one record says why, and
// another agent is served.
func TestR02ControlFramesWithoutEnd(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Log: func(c *audit.Config) {
		c.Refusals = audit.RefusalLimits{First: 100_000, Rate: 100_000, Burst: 100_000} // each refusal a record of its own
	}})
	host := e.Authority("allowed.test")
	quiet := e.ClientH2As(t, "quiet")
	const far = 1 << 20 // frames, far beyond what any burst lets through
	for name, send := range map[string]func(c *h2wire) error{
		"resets": func(c *h2wire) error {
			if c.next == 1 {
				c.get(host, "/flood")
			}
			return c.framer.WriteRSTStream(1, http2.ErrCodeCancel)
		},
		"settings": func(c *h2wire) error {
			return c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
		},
		"pings":          func(c *h2wire) error { return c.framer.WritePing(false, [8]byte{1}) },
		"priorities":     func(c *h2wire) error { return c.framer.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"unknown-frames": func(c *h2wire) error { return c.framer.WriteRawFrame(0x99, 0, 0, nil) },
		"windows":        func(c *h2wire) error { return c.framer.WriteWindowUpdate(0, 1) },
		"data-of-no-byte": func(c *h2wire) error {
			if c.next == 1 {
				c.open(false, ":method: POST", ":scheme: https", ":authority: "+host, ":path: /upload")
			}
			return c.framer.WriteData(1, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialH2As(t, e, name, "allowed.test")
			n := 0
			for n < far && send(c) == nil {
				n++
			}
			if n == far {
				t.Errorf("%d frames were taken", n)
			}
			e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "h2_flood", "agent_identity": name, "host": "allowed.test", "alpn": "h2"})
			if r := e.Do(t, quiet, "GET", "allowed.test", "/other", ""); r.Status != 200 {
				t.Errorf("another agent: %d %s", r.Status, r.Reason())
			}
		})
	}
	e.NoRecord(t, enginetest.Fields{"reason": "h2_flood", "agent_identity": "quiet"})
	e.WantRecords(t, 7, enginetest.Fields{"reason": "h2_flood"})
}

// TestR02WhatHonestClientsSendPasses cancels, pings, and reads a body in little
// pieces, more of it than a second's frames.
func TestR02WhatHonestClientsSendPasses(t *testing.T) {
	const size = 24 << 20
	e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{
		"allowed.test": {Answer: func(c *enginetest.OriginConn, seen enginetest.Seen) {
			if seen.Target != "/large" {
				c.Reply(200, "ok")
				return
			}
			c.Printf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
			piece := strings.Repeat("x", 64<<10)
			for range size / len(piece) {
				c.Printf("%s", piece)
			}
		}},
	}})
	host := e.Authority("allowed.test")
	c := dialH2(t, e, "allowed.test")
	for range 10 {
		for i := range 100 { // as many as may be open at once
			_ = c.framer.WriteRSTStream(c.get(host, fmt.Sprintf("/cancelled/%d", i)), http2.ErrCodeCancel)
		}
		for range 20 {
			_ = c.framer.WritePing(false, [8]byte{1})
		}
		if a := c.answer(c.get(host, "/kept")); a.Status != 200 {
			t.Fatalf("beside 100 cancelled requests: %s", a)
		}
	}
	// With a window for each 4 KiB that it reads, Go's client sends twelve thousand.
	resp, err := e.ClientH2(t).Get(e.URL("allowed.test", "/large"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(resp.Body, size), make([]byte, 4<<10))
	if err != nil || n != size || resp.StatusCode != http.StatusOK {
		t.Errorf("%d, %d bytes, %v", resp.StatusCode, n, err)
	}
	e.NoRecord(t, enginetest.Fields{"reason": "h2_flood"})
}
