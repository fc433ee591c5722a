package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// untaken returns a connection of a client that takes the heads of answers and not
// a byte of their bodies.
func untaken(t *testing.T, e *enginetest.Engine, agent string) *h2wire {
	t.Helper()
	return dialH2As(t, e, agent, "allowed.test", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
}

// An answer that is made, recorded and not taken is net/http's to keep, with a
// goroutine. It counts among what its agent has under way until it is taken.
func TestR01AnswersThatAreNotTakenCountAsUnderWay(t *testing.T) {
	const most = 5
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Limits: proxy.Limits{ExchangesPerPrincipal: most}})
	c := untaken(t, e, "loud")
	answered := func(path string) string {
		t.Helper()
		stream := c.get(e.Authority("allowed.test"), path)
		a := h2answer{Fields: map[string]string{}}
		c.read(stream, &a, func() bool { return a.Status != 0 })
		return fmt.Sprint(a.Status, " ", a.Fields["x-aegrail-reason"])
	}
	for i := range most {
		if got := answered(fmt.Sprintf("/%d", i)); got != "200 " {
			t.Fatalf("answer %d: %s", i+1, got)
		}
	}
	if got := answered("/more"); got != "503 too_many_exchanges" {
		t.Errorf("one more: %s", got)
	}
	if r := e.Do(t, e.ClientAs(t, "loud"), "GET", "allowed.test", "/h1", ""); r.Status != 503 || r.Reason() != "too_many_exchanges" {
		t.Errorf("one more over HTTP/1: %d %s", r.Status, r.Reason())
	}
	if r := e.Do(t, e.ClientH2As(t, "quiet"), "GET", "allowed.test", "/quiet", ""); r.Status != 200 {
		t.Errorf("another agent: %d %s", r.Status, r.Reason())
	}
	_ = c.framer.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = c.framer.WriteRSTStream(3, http2.ErrCodeCancel)
	if !enginetest.Eventually(func() bool {
		return e.Do(t, e.ClientAs(t, "loud"), "GET", "allowed.test", "/again", "").Status == 200
	}) {
		t.Error("what became free is not given again")
	}
	flood := untaken(t, e, "loud")
	for i := range 2 * most {
		flood.get(e.Authority("allowed.test"), fmt.Sprintf("/flood/%d", i))
	}
	if _, err := io.Copy(io.Discard, flood); err != nil {
		t.Logf("the flood ended with %v", err)
	}
	e.WantRecord(t, enginetest.Fields{"reason": "h2_flood", "agent_identity": "loud"})
	_ = c.Close()
	if !enginetest.Eventually(func() bool {
		return e.Do(t, e.ClientAs(t, "loud"), "GET", "allowed.test", "/after", "").Status == 200
	}) {
		t.Error("the end of the connections gives nothing back")
	}
}

// A client that is there, and takes nothing of one answer, holds the origin and what
// came of it no longer than one over HTTP/1. Its other streams go on.
func TestR01AnHTTP2ClientThatTakesNothingIsEnded(t *testing.T) {
	const soon = 50 * time.Millisecond
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{WriteStall: soon, ClientLook: soon},
		Policy: "- name: all\n  {{to \"allowed.test\"}}\n",
		Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			size := 10
			if r.URL.Path == "/unread" {
				size = 8 << 20
			}
			_, _ = w.Write(make([]byte, size)) // an origin that is cut off says so
		})}},
	})
	c := dialH2(t, e, "allowed.test", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 10})
	stream := c.get(e.Authority("allowed.test"), "/unread")
	a := h2answer{Fields: map[string]string{}}
	c.read(stream, &a, func() bool { return false })
	if a.Status != 200 || a.Ended || a.Gone || len(a.Body) != 1<<10 {
		t.Errorf("an answer that is not taken: %v, %d bytes", a, len(a.Body))
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/unread", "reason": "client_stalled"})
	if a := c.answer(c.get(e.Authority("allowed.test"), "/other")); a.Status != 200 || !a.Ended {
		t.Errorf("another stream of it: %v", a)
	}
}
