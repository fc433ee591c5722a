package proxy_test

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// The head of a frame is nine bytes, and the engine makes room for all of the frame.
// What a connection may announce, and send before it is read, has a budget: of three
// that there is room for one agent gets two, and then the least that HTTP/2 allows.
func TestR08WhatHTTP2ClientsMaySendAheadHasABudget(t *testing.T) {
	const wide, narrow = 256 << 10, 16 << 10
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Limits: proxy.Limits{WindowBytes: 4 << 20}})
	offered := func(c *h2wire) map[http2.SettingID]uint32 {
		frame, err := c.framer.ReadFrame()
		settings, ok := frame.(*http2.SettingsFrame)
		if err != nil || !ok {
			t.Fatalf("%v, %v where the settings should be", frame, err)
		}
		got := map[http2.SettingID]uint32{}
		_ = settings.ForeachSetting(func(s http2.Setting) error { got[s.ID] = s.Val; return nil })
		return got
	}
	open := func(agent string) (*h2wire, uint32) {
		c := dialH2As(t, e, agent, "allowed.test")
		got := offered(c)
		if got[http2.SettingInitialWindowSize] != got[http2.SettingMaxFrameSize] {
			t.Errorf("%s: a frame of %d and a window of %d", agent, got[http2.SettingMaxFrameSize], got[http2.SettingInitialWindowSize])
		}
		return c, got[http2.SettingMaxFrameSize]
	}
	var loud []*h2wire
	for i, want := range []uint32{wide, wide, narrow} {
		c, got := open("loud")
		if loud = append(loud, c); got != want {
			t.Errorf("connection %d: frames of %d bytes, want %d", i+1, got, want)
		}
	}
	if _, got := open("quiet"); got != wide {
		t.Errorf("another agent: frames of %d bytes", got)
	}
	stream := loud[2].get(e.Authority("allowed.test"), "/narrow")
	if a := loud[2].answer(stream); a.Status != 200 {
		t.Errorf("through narrow windows: %v", a)
	}
	for _, c := range loud {
		_ = c.Close()
	}
	if !enginetest.Eventually(func() bool { c, got := open("loud"); defer c.Close(); return got == wide }) {
		t.Error("what became free is not given again")
	}
}
