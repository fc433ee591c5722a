package proxy_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// awaitRest waits until a connection has settled.
func awaitRest(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 4<<20)
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); runtime.Gosched() {
		if bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("proxy.(*conn).awaitReadable(")) {
			return
		}
	}
	t.Fatal("no connection has settled")
}

func TestAConnectionThatHasSettledCarriesOn(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{Settle: time.Millisecond}})
	c := e.RawTunnel(t, "allowed.test", nil)
	for range 3 {
		c.WantOpen("allowed.test", "/again")
		awaitRest(t)
	}
	e.WantRecords(t, 3, enginetest.Fields{"phase": "complete", "path": "/again"})
	e.Stop(t)
	c.WantClosed()
}

func TestAConnectionThatHasSettledIsClosedWhenItsTimeIsUp(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{Settle: time.Millisecond, Idle: 200 * time.Millisecond}})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.WantOpen("allowed.test", "/once")
	c.WantClosed()
}
