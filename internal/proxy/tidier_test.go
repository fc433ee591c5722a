package proxy

import "testing"

func TestItIsQuietWhenConnectionsSettleAndFewRequestsCome(t *testing.T) {
	for _, c := range []struct {
		rested, requests uint64
		want             bool
	}{{0, 0, true}, {1, 0, true}, {1, 1, false}, {800, 100, true}, {800, 101, false}} {
		if got := quiet(c.rested, c.requests); got != c.want {
			t.Errorf("%d settled, %d requests: %v", c.rested, c.requests, got)
		}
	}
}

func TestSettledConnectionsAreCountedUntilItIsQuiet(t *testing.T) {
	var d tidier
	d.rested.Add(64)
	if n, ok := d.take(100); ok || n != 64 {
		t.Errorf("a hundred requests came since: %d, %v", n, ok)
	}
	d.rested.Add(1)
	if n, ok := d.take(100); !ok || n != 65 {
		t.Errorf("none came since: %d, %v", n, ok)
	}
	if n, ok := d.take(100); !ok || n != 0 {
		t.Errorf("after that: %d, %v", n, ok)
	}
}
