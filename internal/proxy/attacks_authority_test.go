package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// connectDenied sends a CONNECT and fails the test unless it is refused: the
// status, the reason in the status line and as problem+json, the end of the
// connection, and one record.
func connectDenied(t *testing.T, e *enginetest.Engine, target string, status int, reason string) {
	t.Helper()
	f := enginetest.Fields{"event": "egress_denied", "reason": reason, "status_code": status}
	before := len(e.Find(t, f))
	c := e.RawProxy(t)
	defer c.Close()
	c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
	line := make([]byte, len("HTTP/1.1 400 aegrail: "+reason))
	if _, err := c.Read(line[:1]); err != nil {
		t.Fatalf("CONNECT %q: %v", target, err)
	}
	for n := 1; n < len(line); {
		m, err := c.Read(line[n:])
		if err != nil {
			t.Fatalf("CONNECT %q: %q, %v", target, line[:n], err)
		}
		n += m
	}
	if want := fmt.Sprintf("HTTP/1.1 %d aegrail: %s", status, reason); string(line) != want {
		t.Errorf("CONNECT %q: %q, want %q", target, line, want)
	}
	if n := len(e.Find(t, f)); n != before+1 {
		t.Errorf("CONNECT %q: %d records with %s, want one more than %d", target, n, f, before)
	}
}

func TestA02FrontingByHost(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	w := tunnelWay(e)
	port := e.Origin("allowed.test").Addr.Port()
	var rows []denied
	for _, host := range []string{
		"denied.test", fmt.Sprintf("denied.test:%d", port), "allowed.test", "allowed.test:443", "allowed.test:80", fmt.Sprintf("sub.allowed.test:%d", port),
		fmt.Sprintf("allowed.test.evil.test:%d", port), fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port), fmt.Sprintf("localhost:%d", port),
	} {
		rows = append(rows, denied{"a Host of " + host, "GET /fronted HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "name_mismatch", 421})
	}
	w.denies(t, rows...)
	w.denies(t,
		denied{"an empty Host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n", "bad_host", 0},
		denied{"a list of hosts", "GET /x HTTP/1.1\r\nHost: {host}, denied.test\r\n\r\n", "bad_port", 0},
		denied{"userinfo in the Host", "GET /x HTTP/1.1\r\nHost: user@{host}\r\n\r\n", "bad_host", 0},
		denied{"a path in the Host", "GET /x HTTP/1.1\r\nHost: {host}/../x\r\n\r\n", "bad_port", 0},
	)
	t.Run("over HTTP/2", func(t *testing.T) {
		for _, row := range rows {
			c := dialH2(t, e, "allowed.test")
			host := strings.TrimPrefix(row.what, "a Host of ")
			if a := c.answer(c.get(host, "/fronted")); a.Status != 421 || a.Fields["x-aegrail-reason"] != "name_mismatch" {
				t.Errorf(":authority %s: %s", host, a)
			}
			_ = c.Close()
		}
	})
	nothingArrived(t, e, "allowed.test", "denied.test")
	e.NoRecord(t, enginetest.Fields{"event": "egress_allowed"})
}

func TestA03AnotherAuthorityOnALaterStream(t *testing.T) {
	e := attacked(t, enginetest.Options{Policy: "- name: both\n  {{to \"allowed.test\" \"denied.test\"}}\n"})
	c := dialH2(t, e, "allowed.test")
	own, other := e.Authority("allowed.test"), e.Authority("denied.test")
	for i, row := range []struct {
		authority string
		status    int
	}{{own, 200}, {other, 421}, {own, 200}, {"denied.test", 421}, {own, 200}} {
		// The other host is allowed too, but not on this connection.
		if a := c.answer(c.get(row.authority, numbered(i))); a.Status != row.status {
			t.Errorf("stream %d to %s: %s, want %d", i+1, row.authority, a, row.status)
		}
	}
	wantTargets(t, e.Origin("allowed.test"), "GET /row-0", "GET /row-2", "GET /row-4")
	untouched(t, e, "denied.test")
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied", "reason": "name_mismatch", "host": "allowed.test", "alpn": "h2"})
}

func TestA04SpellingsOfAHost(t *testing.T) {
	const german = "xn--bcher-kva.test" // bücher
	e := attacked(t, enginetest.Options{
		Hosts:  map[string]enginetest.Host{"allowed.test": {}, german: {}, "denied.test": {}},
		Policy: "- name: spelled\n  {{to \"allowed.test\"}}\n- name: idn\n  {{to \"" + german + "\"}}\n",
	})
	port := e.Origin("allowed.test").Addr.Port()
	at := func(host string) string { return fmt.Sprintf("%s:%d", host, port) }
	for _, spelling := range []string{"ALLOWED.TEST", "Allowed.Test", "allowed.test.", "ALLOWED.test."} {
		c := e.RawConnect(t, at(spelling))
		if err := c.StartTLS("allowed.test", &enginetest.TunnelOptions{ServerName: strings.TrimSuffix(spelling, ".")}); err != nil {
			// The client compares what it asked for with the leaf, in any case.
			t.Errorf("%s: %v", spelling, err)
			continue
		}
		c.Send("GET /one HTTP/1.1\r\nHost: " + at(spelling) + "\r\n\r\n")
		if r := c.Reply("GET"); r.Status != 200 {
			t.Errorf("%s: %d %q", spelling, r.Status, r.Reason())
		}
	}
	for _, s := range e.Origin("allowed.test").Requests() {
		if s.Host != at("allowed.test") {
			t.Errorf("the origin got the Host %q", s.Host)
		}
	}
	c := e.RawConnect(t, strings.ToUpper(e.Authority(german)))
	if err := c.StartTLS(german, nil); err != nil {
		t.Errorf("an A-label in capitals: %v", err)
	} else {
		c.WantOpen(german, "/idn")
	}
	before := e.Origin("allowed.test").Connections()
	long := strings.Repeat("a", 63) + "."
	for _, spelling := range []string{
		"allowed.test..", "allowed..test", ".allowed.test", "[allowed.test]", "ａllowed.test", "bücher.test", "allow\u200ded.test", "allowed\u3002test",
		"xn--a\u00e9", "xn--", "xn--bcher-kva-.test", "xn--allowed-.test", "xn--aa---.test", long + long + long + long + "test", strings.Repeat("a", 64) + ".test", "-allowed.test", "allowed-.test",
	} {
		if strings.ContainsFunc(spelling, func(r rune) bool { return r > '~' }) {
			c := e.RawProxy(t)
			c.Send("CONNECT " + at(spelling) + " HTTP/1.1\r\nHost: " + at(spelling) + "\r\n\r\n")
			refused(t, spelling, c.Reply("GET"), 400, "bad_request_line") // no such byte in a request line
			c.WantClosed()
			continue
		}
		connectDenied(t, e, at(spelling), 400, "bad_host")
	}
	if now := e.Origin("allowed.test").Connections(); now != before {
		t.Errorf("%d connections arrived", now-before)
	}
	untouched(t, e, "denied.test")
}

func TestA06WildcardEdges(t *testing.T) {
	names := []string{"sub.allowed.test", "a.b.allowed.test", "one.mid.test"}
	others := []string{"allowed.test", "evilallowed.test", "x.allowed.test.evil", "mid.test", "one.two.mid.test", "allowed.test.allowed"}
	hosts := map[string]enginetest.Host{}
	for _, n := range slices.Concat(names, others) {
		hosts[n] = enginetest.Host{}
	}
	e := attacked(t, enginetest.Options{Hosts: hosts, Policy: "- name: below\n  {{to \"*.allowed.test\"}}\n- name: label\n  {{to \"one.*.test\"}}\n"})
	for _, n := range names {
		e.RawTunnel(t, n, nil).WantOpen(n, "/below")
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "host": n, "path": "/below"})
	}
	for _, n := range others {
		if n == "one.two.mid.test" {
			continue // a label in the middle is one: two make another name
		}
		connectDenied(t, e, e.Authority(n), 403, "not_in_allowlist")
	}
	connectDenied(t, e, e.Authority("one.two.mid.test"), 403, "not_in_allowlist")
	nothingArrived(t, e, others...)
}

func TestA07SpellingsOfAPort(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	port := e.Origin("allowed.test").Addr.Port()
	for _, p := range []string{"", ":", ":0443", ":+443", ":-1", ":99999", ":65536", ":0", ":443:80", ": 443", ":4_43", ":0x1bb", ":443/", ":https", ":443.0"} {
		target := "allowed.test" + p
		if strings.Contains(target, " ") {
			c := e.RawProxy(t)
			c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
			refused(t, target, c.Reply("GET"), 400, "bad_request_line")
			continue
		}
		connectDenied(t, e, target, 400, "bad_port")
	}
	for _, target := range []string{"host:443:80", "allowed.test:443:80", "[::1", "[::1]443"} {
		c := e.RawProxy(t)
		c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
		if r := c.Reply("GET"); r.Status != 400 {
			t.Errorf("CONNECT %s: %d %q", target, r.Status, r.Reason())
		}
	}
	connectDenied(t, e, "allowed.test:443", 403, "port_not_allowed")
	w := tunnelWay(e)
	for _, p := range []string{fmt.Sprintf("0%d", port), fmt.Sprintf("+%d", port), "99999", "", fmt.Sprintf("%d:80", port)} {
		w.denies(t, denied{"a Host with the port " + p, "GET / HTTP/1.1\r\nHost: allowed.test:" + p + "\r\n\r\n", "bad_port", 0})
	}
	nothingArrived(t, e, "allowed.test")
	// The harness's ports are all other than 443, and inspected.
	inspected(t, e, "allowed.test")
}

func TestA08SpellingsOfAnAddress(t *testing.T) {
	e := attacked(t, enginetest.Options{
		Hosts: map[string]enginetest.Host{"127.0.0.1": {}, "allowed.test": {}},
		Policy: `
- name: by-name
  {{to "allowed.test"}}
- name: by-address
  hosts: [127.0.0.1/32]
  ports: [{{port "127.0.0.1"}}]
  addresses: [{{loopback}}]
  noSNI: allow
`})
	port := e.Origin("127.0.0.1").Addr.Port()
	for _, spelling := range []string{
		"127.1", "127.0.1", "0x7f000001", "0x7f.0.0.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "127.000.000.001", "127.0.0.1.", "127.0.0.256", "1.2.3.4.5",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "[::1%lo]", "[::1%25lo]", "[0000::1]", "[::FFFF:1]", "[127.0.0.1]", "0", "0x",
	} {
		connectDenied(t, e, fmt.Sprintf("%s:%d", spelling, port), 400, "bad_host")
	}
	for _, other := range []string{"127.0.0.2", "[::1]", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]"} {
		connectDenied(t, e, fmt.Sprintf("%s:%d", other, port), 403, "not_in_allowlist")
	}
	nothingArrived(t, e, "127.0.0.1", "allowed.test")
	c := e.RawConnect(t, "127.0.0.1")
	if err := c.StartTLS("127.0.0.1", nil); err != nil { // no SNI: it is an address
		t.Fatal(err)
	}
	c.WantOpen("127.0.0.1", "/by-address")
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "rule": "by-address", "host": "127.0.0.1"})
	if asked := e.Resolver.Asked(); len(asked) > 0 {
		t.Errorf("%q were looked up", asked)
	}
}

func TestA16ConnectInsideTheTunnel(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	tunnelWay(e).denies(t,
		denied{"a CONNECT to the tunnel's own host", "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n", "nested_connect", 405},
		denied{"a CONNECT to another", "CONNECT denied.test:443 HTTP/1.1\r\nHost: {host}\r\n\r\n", "nested_connect", 405},
		denied{"a CONNECT to a path", "CONNECT /x HTTP/1.1\r\nHost: {host}\r\n\r\n", "nested_connect", 405},
	)
	host := e.Authority("allowed.test")
	for what, fields := range map[string][]string{
		"a CONNECT":                {":method: CONNECT", ":authority: " + host},
		"a CONNECT to another":     {":method: CONNECT", ":authority: denied.test:443"},
		"an extended CONNECT":      {":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: " + host, ":path: /"},
		"a GET with a :protocol":   {":method: GET", ":protocol: websocket", ":scheme: https", ":authority: " + host, ":path: /"},
		"a CONNECT with a :scheme": {":method: CONNECT", ":scheme: https", ":authority: " + host, ":path: /"},
	} {
		c := dialH2(t, e, "allowed.test")
		a := c.answer(c.open(false, fields...))
		if a.Status != 405 && a.Reset == 0 && !a.Gone {
			t.Errorf("%s over HTTP/2: %s, want 405 or a reset", what, a)
		}
		_ = c.Close()
	}
	nothingArrived(t, e, "allowed.test", "denied.test")
	t.Run("a CONNECT with a body", func(t *testing.T) {
		for _, field := range []string{"Content-Length: 3", "Content-Length: 0", "Transfer-Encoding: chunked"} {
			c := e.RawProxy(t)
			c.Send("CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n" + field + "\r\n\r\nabc")
			refused(t, field, c.Reply("GET"), 400, "bad_framing")
			c.WantClosed()
		}
		c := e.RawProxy(t)
		c.Send("CONNECT " + host + " HTTP/1.1\r\nHost: denied.test:443\r\n\r\n")
		refused(t, "another Host", c.Reply("GET"), 421, "name_mismatch")
		c.WantClosed()
	})
}

func TestA17OtherProtocolsInATunnel(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	rows := map[string]string{
		"HTTP":           "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
		"HTTP/2":         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"SSH":            "SSH-2.0-OpenSSH_9.7\r\n",
		"SMTP":           "EHLO agent.test\r\n",
		"Redis":          "*1\r\n$4\r\nPING\r\n",
		"PostgreSQL":     "\x00\x00\x00\x08\x04\xd2\x16\x2f",
		"SOCKS 5":        "\x05\x01\x00",
		"TLS data":       "\x17\x03\x03\x00\x05hello",
		"an SSLv2 hello": "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
		"one byte":       "\x00",
	}
	n := 0
	for what, raw := range rows {
		n++
		c := e.RawConnect(t, "allowed.test")
		c.Send(raw)
		c.WantClosed()
		if found := e.WantRecords(t, n, enginetest.Fields{"event": "egress_denied", "reason": "not_tls", "host": "allowed.test"}); len(found) != n {
			t.Errorf("%s: %d records, want %d", what, len(found), n)
		}
	}
	for what, raw := range map[string]string{
		"a handshake record of noise":    "\x16\x03\x01\x00\x04\x63\x00\x00\x00",
		"a ServerHello":                  "\x16\x03\x03\x00\x04\x02\x00\x00\x00",
		"a record that is too long":      "\x16\x03\x01\xff\xff" + strings.Repeat("\x01", 1<<16),
		"an HTTP request in a handshake": "\x16\x03\x01\x00\x10GET / HTTP/1.1\r\n",
	} {
		c := e.RawConnect(t, "allowed.test")
		c.Send(raw)
		answer := make([]byte, 1<<10)
		if m, _ := c.Read(answer); m > 0 && answer[0] != typeAlert {
			t.Errorf("%s: %q", what, answer[:m])
		}
		_ = c.Close()
	}
	e.WantRecords(t, 4, enginetest.Fields{"event": "egress_denied", "reason": "bad_client_hello", "host": "allowed.test"})
	nothingArrived(t, e, "allowed.test")
	inspected(t, e, "allowed.test")
}

func TestA18OurOwnAndTheClustersAddresses(t *testing.T) {
	e := attacked(t, enginetest.Options{
		Hosts: map[string]enginetest.Host{"allowed.test": {}, "engine.test": {}, "pod.test": {}, "node.test": {}, "kubernetes.test": {}, "metadata.test": {}},
	})
	own := netip.MustParseAddrPort(e.Addr)
	e.SetPolicy(t, fmt.Sprintf(`
- name: any-address-of-loopback
  hosts: [engine.test, 127.0.0.0/8]
  ports: [%d]
  scheme: http
  addresses: [{{loopback}}]
- name: no-address
  hosts: [pod.test, node.test, kubernetes.test, metadata.test]
  ports: [443]
  scheme: http
`, own.Port()))
	ask := func(host string, port uint16) *enginetest.Reply {
		c := e.RawProxy(t)
		defer c.Close()
		at := fmt.Sprintf("%s:%d", host, port)
		c.Send("GET http://" + at + "/own HTTP/1.1\r\nHost: " + at + "\r\n\r\n")
		return c.Reply("GET")
	}
	// A range that holds the engine's own port does not name it.
	e.Resolver.Set("engine.test", own.Addr())
	refused(t, "our own port by name", ask("engine.test", own.Port()), 403, upstream.ReasonAddressDenied)
	refused(t, "our own port by address", ask(own.Addr().String(), own.Port()), 403, upstream.ReasonAddressDenied)
	for host, addr := range map[string]string{"pod.test": "10.244.0.7", "node.test": "192.168.1.10", "kubernetes.test": "10.96.0.1", "metadata.test": "169.254.169.254"} {
		e.Resolver.Set(host, netip.MustParseAddr(addr))
		refused(t, host, ask(host, 443), 403, upstream.ReasonAddressDenied)
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "phase": "complete", "host": host, "reason": upstream.ReasonAddressDenied})
	}
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied", "phase": "complete", "port": own.Port(), "reason": upstream.ReasonAddressDenied})
	e.NoRecord(t, enginetest.Fields{"phase": "complete", "status_code": 200})
	t.Run("without a rule there is not even a decision", func(t *testing.T) {
		e := attacked(t, enginetest.Options{})
		connectDenied(t, e, e.Addr, 403, "not_in_allowlist")
		connectDenied(t, e, "kubernetes.default.svc:443", 403, "not_in_allowlist")
		if asked := e.Resolver.Asked(); len(asked) > 0 {
			t.Errorf("%q were looked up", asked)
		}
	})
}

func TestA19MethodOverrides(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	over := func(line string) denied {
		return denied{line, head("POST", line, "Content-Length: 0"), "method_override", 403}
	}
	rows := []denied{
		over("X-HTTP-Method-Override: DELETE"), over("x-http-method-override: delete"), over("X-HTTP-Method: DELETE"), over("X-Method-Override: DELETE"),
		over("X_HTTP_Method_Override: DELETE"), over("X-Original-URL: /admin"), over("X-Rewrite-URL: /admin"), over("X-Forwarded-Host: denied.test"),
		over("X-Original-Host: denied.test"), over("X-Host: denied.test"), over("Forwarded: for=1.2.3.4;host=denied.test"), over("X-Forwarded-Prefix: /admin"),
		over("X-HTTP-Method-Override:"),
	}
	for _, q := range []string{"_method=DELETE", "a=1&_method=delete", "%5fmethod=DELETE", "_METHOD=DELETE", "_method[]=DELETE", "a;_method=DELETE", "+_method=DELETE", "_method", "x-http-method-override=DELETE", "$httpMethod=DELETE"} {
		rows = append(rows, denied{"?" + q, "POST {at}/x?" + q + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", "method_override", 403})
	}
	for _, w := range bothWays(e) {
		w.denies(t, rows...)
	}
	c := dialH2(t, e, "allowed.test")
	a := c.answer(c.open(true, ":method: POST", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: /x", "x-http-method-override: DELETE"))
	if a.Status != 403 || a.Fields["x-aegrail-reason"] != "method_override" {
		t.Errorf("over HTTP/2: %s", a)
	}
	nothingArrived(t, e, "allowed.test", "plain.test")
	t.Run("a rule that says so, and one that looks at nothing", func(t *testing.T) {
		e := attacked(t, enginetest.Options{Policy: `
- name: says-so
  {{to "allowed.test"}}
  methods: [POST]
  methodOverride: allow
- name: looks-at-nothing
  {{to "plain.test"}}
`})
		for _, w := range bothWays(e) {
			w.denies(t,
				denied{"TRACE by a field", head("POST", "X-HTTP-Method-Override: TRACE", "Content-Length: 0"), "bad_method", 405},
				denied{"TRACE by a parameter", "POST {at}/x?_method=trace HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n", "bad_method", 405},
			)
		}
		for _, w := range bothWays(e) {
			s := w.sends(t, w.dial(t), "POST", head("POST", "X-HTTP-Method-Override: DELETE", "Content-Length: 0"))
			if s.Get("X-HTTP-Method-Override") != "DELETE" {
				t.Errorf("%s: the origin got %q", w.name, s.Head)
			}
		}
	})
}

func TestA20HostsThatNoRuleCouldAllow(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, target := range []string{e.Authority("denied.test"), "denied.test:443", "denied.test:22", "nowhere.test:443", "8.8.8.8:443", "[2001:4860:4860::8888]:443"} {
		connectDenied(t, e, target, 403, "not_in_allowlist")
		c := e.RawProxy(t)
		c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n" + clientHello(sni("denied.test")))
		r := c.Reply("GET")
		var problem struct{ Reason, Detail string }
		if err := json.Unmarshal([]byte(r.Body), &problem); err != nil || problem.Reason != "not_in_allowlist" || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: %v, %s %s", target, err, r.Header.Get("Content-Type"), r.Body)
		}
		if strings.Contains(r.Body, "over-tls") || strings.Contains(r.Body, "allowed.test") {
			t.Errorf("%s: the refusal names rules: %s", target, r.Body)
		}
		c.WantClosed()
	}
	if n := e.Leaves.Stats().Mints; n != 0 {
		t.Errorf("%d leaves were minted", n)
	}
	if asked := e.Resolver.Asked(); len(asked) > 0 {
		t.Errorf("%q were looked up", asked)
	}
	untouched(t, e, "allowed.test", "plain.test", "denied.test")
}
