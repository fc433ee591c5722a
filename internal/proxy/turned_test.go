package proxy_test

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

func TestR07AConnectionTooManyDoesNotMakeOthersWaitUntilItIsKnownWhoseItIs(t *testing.T) {
	const all = 70 // more than are asked about at once
	var asked atomic.Int64
	answer := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{ConnectionsPerClient: 1},
		Proxy: func(c *proxy.Config) {
			c.Identify = func(f intake.Flow) (identity.Principal, error) {
				if f.Client.Addr().String() != "127.0.0.2" {
					return identity.Principal{AgentIdentity: "quiet"}, nil
				}
				asked.Add(1)
				<-answer
				return identity.Principal{AgentIdentity: "loud"}, nil
			}
		},
	})
	loud := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 1 + all {
		conn, err := loud.DialContext(t.Context(), "tcp", e.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if !enginetest.Eventually(func() bool { return asked.Load() == 64 }) {
		t.Errorf("it was asked about %d connections", asked.Load())
	}
	e.RawTunnel(t, "allowed.test", nil).WantOpen("allowed.test", "/x")
	close(answer)
	if !enginetest.Eventually(func() bool { return strings.Count(e.Dump(t), `"reason":"too_many_connections"`) == all }) {
		t.Errorf("not every connection is in the log:\n%s", e.Dump(t))
	}
	e.WantRecords(t, 64, enginetest.Fields{"reason": "too_many_connections", "agent_identity": "loud"})
}
