package upstream

import (
	"context"
	"net/netip"
	"net/url"
	"testing"
)

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{
		{Proxy: &url.URL{Scheme: "socks5", Host: "p:1"}},
		{Proxy: &url.URL{Scheme: "http"}},
		{DenyCIDRs: []netip.Prefix{{}}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	w := newWorld(t, nil, nil)
	w.c.Close()
	_, err = w.sendTo(context.Background(), "https://"+originName, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_client_closed 503")
}
