package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// dialH2As is dialH2 for the agent of that name.
func dialH2As(t *testing.T, e *enginetest.Engine, name, host string, settings ...http2.Setting) *h2wire {
	t.Helper()
	conn := e.RawConnectAs(t, name, host)
	if err := conn.StartTLS(host, &enginetest.TunnelOptions{ALPN: []string{"h2"}}); err != nil {
		t.Fatal(err)
	}
	return newH2wire(t, conn, settings...)
}

// floodLimits let a flood be over in seconds, and be one on a machine that reads a
// hundred frames a second.
func floodLimits() proxy.Limits { return proxy.Limits{ControlFrames: 10} }

// TestR02ControlFramesWithoutEnd floods with frames that are no request and no
// body, each kind by an agent of its own: the connection ends, one record says why,
// and another agent is served.
func TestR02ControlFramesWithoutEnd(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Limits: floodLimits(), Log: func(c *audit.Config) {
		c.Refusals = audit.RefusalLimits{First: 100_000, Rate: 100_000, Burst: 100_000} // each refusal a record of its own
	}})
	floods := map[string]func(c *h2wire) error{
		"resets": func(c *h2wire) error {
			if c.next == 1 {
				c.get(e.Authority("allowed.test"), "/flood")
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
				c.open(false, ":method: POST", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: /upload")
			}
			return c.framer.WriteData(1, false, nil)
		},
	}
	const far = 1000 // frames; 20 may come at once, 40 may wait
	var all sync.WaitGroup
	for name, send := range floods {
		c := dialH2As(t, e, name, "allowed.test")
		all.Go(func() {
			for range far {
				if send(c) != nil {
					break
				}
			}
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %d frames were taken", name, far)
			}
		})
	}
	all.Wait()
	for name := range floods {
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "h2_flood", "agent_identity": name, "host": "allowed.test", "alpn": "h2"})
	}
	if r := e.Do(t, e.ClientH2As(t, "quiet"), "GET", "allowed.test", "/other", ""); r.Status != 200 {
		t.Errorf("another agent: %d %s", r.Status, r.Reason())
	}
	if all := e.Find(t, enginetest.Fields{"reason": "h2_flood"}); len(all) != len(floods) {
		t.Errorf("%d records of %d floods", len(all), len(floods))
	}
}

// TestR02WhatCameInTimeAndIsReadLatePasses sends at once what an engine that stood
// still for a while finds, more than may come at once: the client waits, and is
// served.
func TestR02WhatCameInTimeAndIsReadLatePasses(t *testing.T) {
	limits := floodLimits()
	e := enginetest.Start(t, &enginetest.Options{Limits: limits})
	c := dialH2(t, e, "allowed.test")
	for range 3 * limits.ControlFrames { // 2 may come at once, 4 may wait
		_ = c.framer.WritePing(false, [8]byte{1})
	}
	if a := c.answer(c.get(e.Authority("allowed.test"), "/late")); a.Status != 200 {
		t.Errorf("behind %d pings: %s", 3*limits.ControlFrames, a)
	}
	e.NoRecord(t, enginetest.Fields{"reason": "h2_flood"})
}

// TestR02WhatHonestClientsSendPasses cancels, pings, and reads a body in little
// pieces, more of it than a second's frames.
func TestR02WhatHonestClientsSendPasses(t *testing.T) {
	const size = 12 << 20
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
	for range 3 {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil { // each round has its own
			t.Fatal(err)
		}
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
	// With a window for each 4 KiB that it reads, Go's client sends six thousand.
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
