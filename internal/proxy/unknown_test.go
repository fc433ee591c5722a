package proxy_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// Who is not known may be asked for credentials; who cannot be known now is told
// to come again. Neither reaches anything.
func TestWhoIsNotKnownIsToldWhatToDo(t *testing.T) {
	var fault error
	e := enginetest.Start(t, &enginetest.Options{Proxy: func(c *proxy.Config) {
		c.Identify = func(intake.Flow) (identity.Principal, error) { return identity.Principal{}, fault }
	}})
	for _, row := range []struct {
		fault     error
		status    int
		reason    string
		challenge string
	}{
		{errors.New("no pod of ours: lookup aegrail-control.secret"), 407, "unknown_principal", `Basic realm="aegrail-engine"`},
		{fmt.Errorf("dial tcp 10.0.0.7:8443, aegrail-control.secret: %w", identity.ErrLater), 503, "identity_unavailable", ""},
	} {
		fault = row.fault
		for _, head := range []string{"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n", "GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n"} {
			c := e.RawProxy(t)
			c.Send(head)
			r := c.Reply(head[:3])
			refused(t, head[:7], r, row.status, row.reason)
			if told := r.Body + fmt.Sprint(r.Header); strings.Contains(told, "secret") || strings.Contains(told, "10.0.0.7") {
				t.Errorf("%s: the caller is told %s", head[:7], told)
			}
			if got := r.Header.Get("Proxy-Authenticate"); got != row.challenge {
				t.Errorf("%s: asked for %q, want %q", head[:7], got, row.challenge)
			}
		}
		if r := e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": row.reason}); !strings.Contains(fmt.Sprint(r.Get("detail")), "secret") {
			t.Errorf("the log does not say why: %v", r)
		}
	}
	untouched(t, e, "allowed.test")
	notAsked(t, e, "allowed.test")
}

// Many clients bring no credentials until they are asked for them: they are asked,
// whoever else floods without any.
func TestL03WhoIsNobodyHasABudgetByAddress(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Log: func(c *audit.Config) {
		c.Refusals = audit.RefusalLimits{First: 3, Window: time.Hour, Rate: 1, Burst: 10}
		start := time.Now()
		c.Now = func() time.Time { return start } // a budget that does not fill again, however slow the machine
	}})
	ask := func(last byte) string {
		c := dialFrom(t, e.Addr, last)
		_, _ = c.Write([]byte("CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n"))
		line := make([]byte, len("HTTP/1.1 407"))
		if _, err := io.ReadFull(c, line); err != nil {
			return err.Error()
		}
		return string(line)
	}
	for i := range 12 {
		want := "HTTP/1.1 407"
		if i >= 10 {
			want = "HTTP/1.1 429"
		}
		if got := ask(2); got != want {
			t.Errorf("%d of the flood: %s, want %s", i+1, got, want)
		}
	}
	if got := ask(3); got != "HTTP/1.1 407" {
		t.Errorf("another address: %s", got)
	}
}

func TestARefusedCallerIsNotTakenForWhoCameBeforeOnTheConnection(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Agents: true,
		Policy: "- name: all\n  {{to \"plain.test\"}}\n",
		Hosts:  map[string]enginetest.Host{"plain.test": {Plain: true}},
	})
	c := e.RawProxy(t)
	host := e.Authority("plain.test")
	ask := func(name string) *enginetest.Reply {
		credentials := base64.StdEncoding.EncodeToString([]byte(name + ":"))
		c.Send("GET http://" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nProxy-Authorization: Basic " + credentials + "\r\n\r\n")
		return c.Reply("GET")
	}
	if r := ask("a/bot"); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Reason())
	}
	refused(t, "somebody without a name", ask(""), 407, "unknown_principal")
	if r := e.WantRecord(t, enginetest.Fields{"reason": "unknown_principal"}); r.Get("agent.namespace") != "" || r.Get("agent_identity") == "a/bot" {
		t.Errorf("the refusal is in the record of the agent before: %v", r)
	}
}

// A tunnel may last for longer than the token that opened it, over either protocol.
func TestATunnelServesWhoOpenedItNoLongerThanThereIsSuch(t *testing.T) {
	alice := identity.Principal{Namespace: "a", ServiceAccount: "alice"}
	for name, row := range map[string]struct {
		who    identity.Principal
		err    error
		status int
		reason string
	}{
		"its token has ended":   {err: errors.New("no pod of ours"), status: 403, reason: "unknown_principal"},
		"control is away":       {err: fmt.Errorf("control is away: %w", identity.ErrLater), status: 503, reason: "identity_unavailable"},
		"it is somebody else's": {who: identity.Principal{Namespace: "a", ServiceAccount: "bob"}, status: 403, reason: "principal_changed"},
		"it is the same pod's":  {who: alice, status: 200},
		"it is another pod's":   {who: identity.Principal{Namespace: "a", ServiceAccount: "alice", Pod: "2"}, status: 403, reason: "principal_changed"},
	} {
		t.Run(name, func(t *testing.T) {
			var late atomic.Bool
			e := enginetest.Start(t, &enginetest.Options{Proxy: func(c *proxy.Config) {
				c.Identify = func(intake.Flow) (identity.Principal, error) {
					if late.Load() {
						return row.who, row.err
					}
					return alice, nil
				}
				c.Now = func() time.Time {
					if late.Load() {
						return time.Now().Add(time.Minute)
					}
					return time.Now()
				}
			}})
			host := e.Authority("allowed.test")
			h1, h2 := e.RawTunnel(t, "allowed.test", nil), dialH2(t, e, "allowed.test")
			h1.WantOpen("allowed.test", "/before")
			if a := h2.answer(h2.get(host, "/before")); a.Status != 200 {
				t.Errorf("before: %v", a)
			}
			late.Store(true)
			h1.Send("GET /after HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			r := h1.Reply("GET")
			if r.Status != row.status || r.Reason() != row.reason || r.Close != (row.status != 200) {
				t.Errorf("HTTP/1: %d %s, closed %t", r.Status, r.Reason(), r.Close)
			}
			a := h2.answer(h2.get(host, "/after"))
			if a.Status != row.status || a.Fields["x-aegrail-reason"] != row.reason {
				t.Errorf("HTTP/2: %v", a)
			}
			if row.status == 200 {
				return
			}
			if end := h2.answer(0); !end.Gone {
				t.Errorf("the HTTP/2 connection goes on: %v", end)
			}
			e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied", "reason": row.reason, "path": "/after"})
		})
	}
}
