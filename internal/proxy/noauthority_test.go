package proxy_test

import (
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// A pod whose policy allows no host has no certificate authority, and one that
// could not be renewed has one that is over. Where a client still reads words it
// is told so: inside TLS there would be an alert.
func TestWithoutAnAuthorityAConnectIsRefusedInWords(t *testing.T) {
	var leaves *certs.Store
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: read\n  {{to \"allowed.test\"}}\n- name: plain\n  {{to \"plain.test\"}}\n",
		Hosts:  map[string]enginetest.Host{"allowed.test": {}, "plain.test": {Plain: true}},
		Proxy: func(c *proxy.Config) {
			var err error
			if leaves, err = certs.NewStore(nil, certs.StoreOptions{}); err != nil {
				t.Error(err)
			}
			c.Leaves = leaves
		},
	})
	refused := func() {
		t.Helper()
		if r, err := e.Try(t, e.Client(t), "GET", "allowed.test", "/", ""); err == nil || !strings.Contains(err.Error(), "leaf_not_minted") {
			t.Fatalf("%v, %v; want a CONNECT refused with leaf_not_minted", r, err)
		}
	}
	refused()
	e.WantRecords(t, 1, enginetest.Fields{"event": "egress_error", "reason": "leaf_not_minted", "host": "allowed.test"})
	if r := e.Do(t, e.Client(t), "GET", "plain.test", "/", ""); r.Status != 200 {
		t.Errorf("plain http, which needs no certificate: %d %q", r.Status, r.Reason())
	}
	leaves.Swap(e.CA)
	if r := e.Do(t, e.Client(t), "GET", "allowed.test", "/", ""); r.Status != 200 {
		t.Errorf("with an authority: %d %q", r.Status, r.Reason())
	}
	tunnel := e.RawConnect(t, "allowed.test")
	leaves.Withdraw()
	refused()
	if err := tunnel.StartTLS("allowed.test", nil); err == nil {
		t.Error("a handshake without an authority")
	}
	e.WantRecords(t, 3, enginetest.Fields{"event": "egress_error", "reason": "leaf_not_minted", "host": "allowed.test"})
}
