package proxy_test

import (
	"bytes"
	"crypto/tls"
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

// A TLS record that comes byte by byte is not a request, and buys no time.
func TestAConnectionThatHasSettledIsNotKeptByPiecesOfARecord(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{Settle: time.Millisecond, Idle: 200 * time.Millisecond}})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.WantOpen("allowed.test", "/once")
	done := make(chan struct{})
	defer close(done)
	raw := c.Conn.(*tls.Conn).NetConn()
	go func() {
		pieces := append([]byte{23, 3, 3, 0x40, 0}, make([]byte, 1<<14)...)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range pieces {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			if _, err := raw.Write(pieces[i : i+1]); err != nil {
				return
			}
		}
	}()
	c.WantClosed()
}
