package proxy_test

import (
	"fmt"
	"io"
	"testing"

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
