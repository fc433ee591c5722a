package ship

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
)

func TestEveryReceiverIsDialledAsItIsSaid(t *testing.T) {
	e, anchor, webhook, collector := newLog(t), newReceiver(t), newReceiver(t), newCollectorServer(t)
	var mu sync.Mutex
	dialled := map[string]bool{} // guarded by mu
	// Names are its business as well: these are nobody's.
	places := map[string]string{
		"anchor.test:80": anchor.Listener.Addr().String(), "webhook.test:80": webhook.Listener.Addr().String(), "collector.test:80": collector.Listener.Addr().String(),
	}
	s := start(t, e, Config{
		Anchors: []Target{anchorAt(t, "http://anchor.test/a")}, Sinks: []Target{sinkAt(t, "http://webhook.test/w"), sinkAt(t, "otlp://collector.test:80")},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			dialled[address] = true
			mu.Unlock()
			return new(net.Dialer).DialContext(ctx, network, places[address])
		},
	})
	e.records(t, 1)
	s.Publish(1, note(t, newSigner(t), 1))
	eventually(t, "all three were dialled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(dialled) == len(places)
	})
	for address := range dialled {
		if places[address] == "" || !strings.HasSuffix(address, ".test:80") {
			t.Errorf("%s was dialled", address)
		}
	}
}
