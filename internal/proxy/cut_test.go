package proxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

const anything = "- name: all\n  {{to \"allowed.test\"}}\n"

// heldResolver answers when it is let.
type heldResolver struct {
	upstream.Resolver
	asked chan struct{}
	let   chan struct{}
}

func (h heldResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	h.asked <- struct{}{}
	<-h.let
	return h.Resolver.LookupNetIP(ctx, network, host)
}

func TestARequestThatIsOnItsWayDoesNotArriveOnceItsRuleIsGone(t *testing.T) {
	for name, head := range map[string]string{
		"without a body":      "GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n",
		"with a body in hand": "POST /x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\n\r\nsecret",
	} {
		t.Run(name, func(t *testing.T) {
			held := heldResolver{asked: make(chan struct{}, 1), let: make(chan struct{})}
			e := enginetest.Start(t, &enginetest.Options{Policy: anything, Upstream: func(c *upstream.Config) {
				held.Resolver = c.Resolver
				c.Resolver = held
			}})
			c := e.RawTunnel(t, "allowed.test", nil)
			c.Send(strings.ReplaceAll(head, "{host}", e.Authority("allowed.test")))
			<-held.asked
			e.SetPolicy(t, "- name: other\n  {{to \"allowed.test\"}}\n  paths: [/other]\n")
			close(held.let)
			if r := c.Reply("GET"); r.Status != 403 || r.Reason() != "policy_changed" {
				t.Errorf("got %d %s", r.Status, r.Reason())
			}
			if n := len(e.Origin("allowed.test").AllBytes()); n != 0 {
				t.Errorf("the origin saw %d bytes of it", n)
			}
			e.WantRecord(t, enginetest.Fields{"phase": "complete", "reason": "policy_changed"})
		})
	}
}

func TestAReloadKeepsAStreamWhoseRuleEditsWhatItTests(t *testing.T) {
	const edits = "- name: edit\n  {{to \"allowed.test\"}}\n  when: '\"x-team\" in request.headers'\n  headers:\n    remove: [X-Team]\n"
	more := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{Policy: edits, Hosts: map[string]enginetest.Host{
		"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			<-more
			_, _ = io.WriteString(w, "data: 2\n\n")
		})},
	}})
	req, err := http.NewRequestWithContext(t.Context(), "GET", e.URL("allowed.test", "/events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Team", "a")
	resp, err := e.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, len("data: 1\n\n"))); err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(t, edits+"- name: more\n  {{to \"allowed.test\"}}\n  methods: [DELETE]\n")
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "data: 2\n\n" {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
}

func TestAReloadCutsWhatWasDialledByWhatNoRuleNamesAnyMore(t *testing.T) {
	const condition = "  when: 'request.method == \"GET\"'\n"
	named, wider := "- name: all\n  {{to \"allowed.test\"}}\n", "- name: all\n  hosts: [allowed.test]\n  ports: [{{ports}}]\n  addresses: [126.0.0.0/7]\n"
	elsewhere := "- name: all\n  hosts: [allowed.test]\n  ports: [{{ports}}]\n  addresses: [127.0.0.0/30]\n"
	for name, row := range map[string]struct {
		before, after string
		cut           bool
	}{
		"another rule":                   {named, named + "- name: more\n  {{to \"allowed.test\"}}\n", false},
		"more addresses":                 {named, wider, false},
		"fewer addresses":                {named, elsewhere, true},
		"fewer addresses, a condition":   {named + condition, elsewhere + condition, true},
		"another condition, all as ever": {named + condition, named + condition + "- name: more\n  {{to \"allowed.test\"}}\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			more := make(chan struct{})
			e := enginetest.Start(t, &enginetest.Options{Policy: row.before, Hosts: map[string]enginetest.Host{
				"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, "data: 1\n\n")
					_ = http.NewResponseController(w).Flush()
					select {
					case <-more:
					case <-r.Context().Done():
					}
				})},
			}})
			resp, err := e.Client(t).Get(e.URL("allowed.test", "/events"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			e.SetPolicy(t, row.after)
			if !row.cut {
				close(more)
			}
			if _, err := io.ReadAll(resp.Body); (err != nil) != row.cut {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}

func TestAReloadJudgesBodiesAgain(t *testing.T) {
	rule := func(model string) string {
		return "- name: gate\n  {{to \"allowed.test\"}}\n  methods: [POST]\n  when: 'request.body.json.model == \"" + model + "\"'\n"
	}
	e := enginetest.Start(t, &enginetest.Options{Policy: rule("small"), Hosts: map[string]enginetest.Host{
		"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})},
	}})
	resp, err := e.Client(t).Post(e.URL("allowed.test", "/chat"), "application/json", strings.NewReader(`{"model":"small"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, len("data: 1\n\n"))); err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(t, rule("large"))
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream of a body that no rule allows any more ended as if whole")
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "reason": "policy_changed"})
}

func TestAReloadIsNotHeldUpByConditionsOfAnotherAgent(t *testing.T) {
	policies := func(extra string) string {
		text := ""
		for _, agent := range []string{"loud", "quiet"} {
			text += "---\napiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: " + agent + "}\nspec:\n  agents: {namespaces: [" + agent + "]}\n  rules:\n" +
				"    - name: dear\n      {{to \"allowed.test\"}}\n" +
				"      when: 'request.headers[\"x-text\"][0].matches(\"(x?){30}y(z?){30}(x+x+)+y\") || request.method in [\"GET\"" + extra + "]'\n"
		}
		return text[len("---\n"):]
	}
	more := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Policy: policies(""), Hosts: map[string]enginetest.Host{
		"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-more:
			case <-r.Context().Done():
			}
		})},
	}})
	loud := dialH2As(t, e, "loud/bot", "allowed.test")
	for range 20 { // each takes some milliseconds to judge
		loud.open(true, ":method: GET", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: /loud", "x-text: "+strings.Repeat("x", 4<<10))
	}
	resp, err := e.ClientAs(t, "quiet/bot").Get(e.URL("allowed.test", "/quiet"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if !enginetest.Eventually(func() bool { return len(e.Origin("allowed.test").Requests()) == 21 }) {
		t.Fatal("not all requests arrived")
	}
	e.SetPolicy(t, policies(", \"PUT\""))
	close(more)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the stream that is still allowed ended with %v", err)
	}
	for _, end := range e.Find(t, enginetest.Fields{"phase": "complete", "agent.namespace": "quiet"}) {
		if end.Get("event") != "egress_allowed" {
			t.Errorf("… and its record is %v", end)
		}
	}
}

func TestAnAnswerThatBreaksOffDoesNotLookWholeToAnHTTP10Client(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: anything, Hosts: map[string]enginetest.Host{
		"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
			c.Printf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n100\r\npart")
			_ = c.Close()
		}},
	}})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send("GET /x HTTP/1.0\r\nHost: " + e.Authority("allowed.test") + "\r\n\r\n")
	got, err := io.ReadAll(c)
	if err == nil && strings.Contains(string(got), " 200 ") {
		t.Errorf("an answer that was cut ended like a whole one: %q", got)
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "event": "egress_error", "path": "/x"})
}

func TestASlowTunnelIsNotIdle(t *testing.T) {
	const idle = time.Second
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: pinned\n  {{to \"pinned.test\"}}\n  tls: passthrough\n",
		Limits: proxy.Limits{TunnelIdle: idle},
		Hosts: map[string]enginetest.Host{"pinned.test": {Script: func(c *enginetest.OriginConn) {
			tick := time.NewTicker(idle / 8)
			defer tick.Stop()
			for range 16 { // twice as long as a silent tunnel would last
				<-tick.C
				if _, err := io.WriteString(c, "tick"); err != nil {
					return
				}
			}
			_ = c.Close()
		}}},
	})
	c := e.RawConnect(t, "pinned.test")
	if err := c.StartTLS("pinned.test", &enginetest.TunnelOptions{Config: &tls.Config{RootCAs: e.Root.Pool, ServerName: "pinned.test"}}); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || len(got) != 16*len("tick") {
		t.Errorf("%d bytes came through, %v", len(got), err)
	}
}

// TestAWebSocketIsIdleWhenNeitherSideSends has an origin that speaks for four
// times as long as a silent WebSocket lasts, and a client that says nothing; then
// both are silent.
func TestAWebSocketIsIdleWhenNeitherSideSends(t *testing.T) {
	const idle = 200 * time.Millisecond
	e := enginetest.Start(t, &enginetest.Options{
		Policy: socketPolicy,
		Limits: proxy.Limits{TunnelIdle: idle},
		Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			c.Printf("%s", accepted)
			tick := time.NewTicker(idle / 8)
			defer tick.Stop()
			for range 32 {
				<-tick.C
				c.Printf("%s", frame(0x82, false, "tick"))
			}
			_, _ = io.Copy(io.Discard, c)
		}}},
	})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send(opening(e, "/socket"))
	if r := c.Reply("GET"); r.Status != 101 {
		t.Fatalf("%d %s", r.Status, r.Reason())
	}
	got, _ := io.ReadAll(c)
	if n := strings.Count(string(got), "tick"); n != 32 {
		t.Errorf("%d messages came through, want 32", n)
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/socket", "reason": "websocket_idle"})
}

func TestR07JudgedBodiesHaveABudget(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: gate\n  {{to \"allowed.test\"}}\n  methods: [POST]\n  when: 'request.body.json.model == \"small\"'\n",
		Limits: proxy.Limits{JudgedBytes: 100},
	})
	first := e.RawTunnel(t, "allowed.test", nil)
	first.Send("POST /a HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\nContent-Type: application/json\r\nContent-Length: 90\r\nExpect: 100-continue\r\n\r\n")
	if r := first.Reply("POST"); r.Status != 100 { // its 90 bytes are held from here on
		t.Fatalf("got %d", r.Status)
	}
	second := e.RawTunnel(t, "allowed.test", nil)
	second.Send("POST /b HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"model\":\"small\"}")
	if r := second.Reply("POST"); r.Status != 503 || r.Reason() != "too_many_bodies" {
		t.Errorf("over the budget: %d %s", r.Status, r.Reason())
	}
	first.Send(`{"model":"small"` + strings.Repeat(" ", 73) + `}`)
	if r := first.Reply("POST"); r.Status != 200 {
		t.Errorf("within the budget: %d %s", r.Status, r.Reason())
	}
	// On the same connection, whose first exchange has then ended.
	first.Send("POST /c HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"model\":\"small\"}")
	if r := first.Reply("POST"); r.Status != 200 {
		t.Errorf("when there is room again: %d %s", r.Status, r.Reason())
	}
}
