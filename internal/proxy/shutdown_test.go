package proxy_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// A client that has a connection to a stopping engine is told with an answer that it
// was the last, and never finds its request lost: it may not send a POST again.
func TestAClientBetweenTwoRequestsIsToldThatTheEngineStops(t *testing.T) {
	for name, settle := range map[string]time.Duration{"which has just had an answer": time.Hour, "which has settled": time.Millisecond} {
		for what, path := range map[string]string{"allowed": "/", "refused": "/no"} {
			t.Run(name+", "+what, func(t *testing.T) {
				e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Limits: proxy.Limits{Settle: settle, Lull: time.Minute}})
				c := e.RawTunnel(t, "allowed.test", nil)
				method, status := "GET", http.StatusOK
				if path == "/no" {
					method, status = "DELETE", http.StatusForbidden
				}
				last := func() bool {
					t.Helper()
					c.Send(line(e, method, path) + "\r\n")
					r := c.Reply(method)
					if r.Status != status {
						t.Fatalf("%d %s", r.Status, r.Reason())
					}
					return r.Close
				}
				if last() {
					t.Fatal("the first answer is the last")
				}
				if settle < time.Second {
					awaitRest(t)
				}
				stopped := make(chan struct{})
				go func() { e.Stop(t); close(stopped) }()
				for !last() {
				}
				c.WantClosed()
				<-stopped
			})
		}
	}
}

// Who sends nothing has no more than the lull, and nothing waits for longer.
func TestAnIdleConnectionDoesNotHoldAStopUp(t *testing.T) {
	for name, settle := range map[string]time.Duration{"which has just had an answer": time.Hour, "which has settled": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{Settle: settle, Lull: 50 * time.Millisecond}})
			c := e.RawTunnel(t, "allowed.test", nil)
			c.WantOpen("allowed.test", "/once")
			if settle < time.Second {
				awaitRest(t)
			}
			e.Stop(t)
			c.WantClosed()
		})
	}
}

// Where a tunnel begins while the engine stops there is time for one request, which
// HTTP/2 takes no more of by then.
func TestATunnelThatBeginsWhileTheEngineStopsIsServed(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Limits: proxy.Limits{Lull: time.Minute}})
	seen, late := e.RawTunnel(t, "allowed.test", nil), e.RawConnect(t, "allowed.test")
	stopped := make(chan struct{})
	go func() { e.Stop(t); close(stopped) }()
	for stopping := false; !stopping; {
		seen.Send(line(e, "GET", "/") + "\r\n")
		stopping = seen.Reply("GET").Close
	}
	if err := late.StartTLS("allowed.test", &enginetest.TunnelOptions{ALPN: []string{"h2", "http/1.1"}}); err != nil {
		t.Fatal(err)
	}
	if p := late.State().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("%q was chosen", p)
	}
	late.Send(line(e, "GET", "/") + "\r\n")
	if r := late.Reply("GET"); r.Status != http.StatusOK || !r.Close {
		t.Errorf("%d, the last: %t", r.Status, r.Close)
	}
	late.WantClosed()
	<-stopped
}
