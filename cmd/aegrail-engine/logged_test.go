package main

import (
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

func TestARecordIsNamedByWhatItHas(t *testing.T) {
	for want, e := range map[string]audit.Entry{
		"GET https://a.test/x?q=":         {Method: "GET", Scheme: "https", Host: "a.test", Port: 443, Path: "/x", QueryKeys: []string{"q"}},
		"GET https://a.test:8443/v1/*":    {Method: "GET", Scheme: "https", Host: "a.test", Port: 8443, PathPattern: "/v1/*"},
		"CONNECT a.test":                  {Method: "CONNECT", Host: "a.test", Port: 443},
		"a.test:853":                      {Host: "a.test", Port: 853},
		"[2001:db8::1]":                   {Host: "2001:db8::1"},
		"a connection that named no host": {},
	} {
		if got := (logged{&e}).request(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
