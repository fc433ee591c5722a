package proxy_test

import (
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

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

// A client that has to wait with its control frames while the engine begins to stop has
// its request answered like any other.
func TestAClientThatIsSlowedDownWhileTheEngineStopsIsAnswered(t *testing.T) {
	came, release := make(chan struct{}), make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{ControlFrames: 10},
		Policy: "- name: all\n  {{to \"allowed.test\"}}\n",
		Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(came)
			<-release
		})}},
	})
	c := dialH2(t, e, "allowed.test")
	stream := c.get(e.Authority("allowed.test"), "/")
	<-came
	for range 30 { // twenty at once, and ten that wait
		_ = c.framer.WritePing(false, [8]byte{})
	}
	a := h2answer{Fields: map[string]string{}}
	frame, err := c.framer.ReadFrame() // until the pings are read
	for ; err == nil; frame, err = c.framer.ReadFrame() {
		if _, ok := frame.(*http2.PingFrame); ok {
			break
		}
	}
	stopped := make(chan struct{})
	go func() { e.Stop(t); close(stopped) }()
	for ; err == nil; frame, err = c.framer.ReadFrame() {
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			break
		}
	}
	close(release)
	if c.read(stream, &a, func() bool { return false }); a.Status != http.StatusOK {
		t.Errorf("%v, %v", a, err)
	}
	_ = c.Close()
	<-stopped
}
