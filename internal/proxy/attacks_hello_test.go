package proxy_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// with16 puts a length of two bytes before p, with8 one of one.
func with16(p []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...) }
func with8(p []byte) []byte  { return append([]byte{byte(len(p))}, p...) }

func extension(id uint16, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), with16(content)...)
}

// sni is a server_name extension (RFC 6066 section 3) with these names, whatever
// is in them.
func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0), with16([]byte(n))...)
	}
	return extension(0, with16(list))
}

// clientHello is a record with the least ClientHello that a TLS 1.2 server
// answers, and these extensions: crypto/tls's client has no way to send them.
func clientHello(extensions ...[]byte) string {
	body := append([]byte{3, 3}, make([]byte, 32)...)              // legacy_version, random
	body = append(body, 0)                                         // session ID
	body = append(body, with16([]byte{0xc0, 0x2b, 0xc0, 0x2f})...) // ECDHE with ECDSA and RSA, AES-128-GCM
	body = append(body, 1, 0)                                      // no compression
	all := extension(10, with16([]byte{0, 23}))                    // P-256
	all = append(all, extension(13, with16([]byte{4, 3, 8, 4}))...)
	all = append(all, extension(11, with8([]byte{0}))...)
	for _, e := range extensions {
		all = append(all, e...)
	}
	body = append(body, with16(all)...)
	message := append([]byte{1, 0}, with16(body)...) // a length of three bytes
	return string(append([]byte{22, 3, 1}, with16(message)...))
}

const (
	typeAlert     = 21
	typeHandshake = 22
)

// firstRecord sends hello in a tunnel to host and returns what comes back: the
// type of the first record, its content, and whether anything came at all.
func firstRecord(t *testing.T, e *enginetest.Engine, host, hello string) (kind byte, content []byte, ok bool) {
	t.Helper()
	c := e.RawConnect(t, host)
	defer c.Close()
	c.Send(hello)
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, false
	}
	content = make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(c, content); err != nil {
		t.Fatalf("a record that stops short: %v", err)
	}
	if head[0] == typeAlert {
		c.WantClosed()
	}
	return head[0], content, true
}

// refusesHello fails the test unless hello is answered with a fatal alert, and
// recorded with reason, before a leaf is minted.
func refusesHello(t *testing.T, e *enginetest.Engine, what, hello string, f enginetest.Fields) {
	t.Helper()
	f["event"] = "egress_denied"
	before, mints := len(e.Find(t, f)), e.Leaves.Stats().Mints
	kind, alert, ok := firstRecord(t, e, "allowed.test", hello)
	if !ok || kind != typeAlert || len(alert) != 2 || alert[0] != 2 {
		t.Errorf("%s: record %d %x, want a fatal alert", what, kind, alert)
	}
	e.WantRecords(t, before+1, f)
	if now := e.Leaves.Stats().Mints; now != mints {
		t.Errorf("%s: a leaf was minted", what)
	}
}

func TestA01AnotherNameInTheHello(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, name := range []string{"denied.test", "evil.test", "sub.allowed.test", "allowed.test.evil.test", "xallowed.test", "plain.test", "localhost"} {
		err := e.RawConnect(t, "allowed.test").StartTLS("allowed.test", &enginetest.TunnelOptions{ServerName: name})
		if err == nil || !strings.Contains(err.Error(), "remote error") {
			t.Errorf("%s: %v, want an alert", name, err)
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "name_mismatch", "host": "allowed.test", "sni": name})
		refusesHello(t, e, name, clientHello(sni(name)), enginetest.Fields{"reason": "name_mismatch", "host": "allowed.test", "sni": name})
	}
	nothingArrived(t, e, "allowed.test", "denied.test")
}

func TestA05NamesThatTwoReadersReadInTwoWays(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	rows := []string{
		"evil.test\x00.allowed.test", "allowed.test\x00", "allowed.test\x00.evil.test", "allowed.test\n", "evil.test\nallowed.test", "allowed.test\r\n",
		"allowed.test,evil.test", "*.allowed.test", "*", "all\xffowed.test", "\xe2\x80\xaallowed.test", "allowed.test ", " allowed.test", "allowed.test/", "allowed.test:443",
		"allowed.test@evil.test", "[allowed.test]", "allowed..test", ".allowed.test", "allowed%2etest", "al\x1b[2Jlowed.test", "ａllowed.test",
	}
	for _, name := range rows {
		what := fmt.Sprintf("an SNI of %q", name)
		refusesHello(t, e, what, clientHello(sni(name)), enginetest.Fields{"reason": "bad_host", "host": "allowed.test"})
	}
	w := tunnelWay(e)
	for _, name := range rows {
		// The field's own syntax refuses controls; the name's refuses the rest.
		before := len(e.Find(t, enginetest.Fields{"event": "egress_denied"}))
		c := w.dial(t)
		c.Send("GET / HTTP/1.1\r\nHost: " + name + "\r\n\r\n")
		r := c.Reply("GET")
		trimmed := strings.TrimSpace(name) == "allowed.test" // white space that HTTP allows; but the port is not the connection's
		if !(r.Status == 400 && slices.Contains([]string{"bad_host", "bad_header", "bad_port"}, r.Reason()) ||
			r.Status == 421 && r.Reason() == "name_mismatch" && (trimmed || name == "allowed.test:443")) {
			t.Errorf("a Host of %q: %d %q", name, r.Status, r.Reason())
		}
		c.WantClosed()
		if n := len(e.Find(t, enginetest.Fields{"event": "egress_denied"})); n != before+1 {
			t.Errorf("a Host of %q: %d records", name, n-before)
		}
		p := e.RawProxy(t)
		target := fmt.Sprintf("%s:%d", name, e.Origin("allowed.test").Addr.Port())
		p.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
		if r := p.Reply("GET"); r.Status != 400 || r.Reason() == "" {
			t.Errorf("a CONNECT to %q: %d %q", name, r.Status, r.Reason())
		}
		p.WantClosed()
	}
	nothingArrived(t, e, "allowed.test", "denied.test")
	for _, r := range e.Records(t) {
		if !utf8.ValidString(r.Line) || strings.ContainsAny(r.Line, "\x00\x1b\n\r") {
			t.Errorf("a record has the bytes as they are: %q", r.Line)
		}
	}
}

func TestA09HellosWithoutAName(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	refusesHello(t, e, "no SNI", clientHello(), enginetest.Fields{"reason": "no_sni", "host": "allowed.test"})
	for _, row := range []struct{ what, hello, reason string }{
		{"an SNI that is an IPv4 address", clientHello(sni("127.0.0.1")), "name_mismatch"},
		{"an SNI that is an IPv6 address", clientHello(sni("::1")), "name_mismatch"},
		{"an SNI in brackets", clientHello(sni("[::1]")), "bad_host"},
		{"an SNI that is a number", clientHello(sni("2130706433")), "bad_host"},
		{"an SNI of 256 bytes", clientHello(sni(strings.Repeat("a.", 122) + "allowed.test")), "bad_host"},
		{"an SNI of 60 KiB", clientHello(sni(strings.Repeat("a", 60<<10))), ""},
		{"an SNI with a label of 64", clientHello(sni(strings.Repeat("a", 64) + ".allowed.test")), "bad_host"},
		{"an empty SNI", clientHello(sni("")), "bad_client_hello"},
		{"an SNI that ends in a dot", clientHello(sni("allowed.test.")), "bad_client_hello"},
		{"two names in the SNI", clientHello(sni("allowed.test", "denied.test")), "bad_client_hello"},
		{"two SNI extensions", clientHello(sni("denied.test"), sni("allowed.test")), "bad_client_hello"},
	} {
		f := enginetest.Fields{"host": "allowed.test"}
		if row.reason != "" {
			f["reason"] = row.reason
		}
		refusesHello(t, e, row.what, row.hello, f)
	}
	nothingArrived(t, e, "allowed.test", "denied.test")
	t.Run("a rule that says so", func(t *testing.T) {
		e := attacked(t, enginetest.Options{Policy: "- name: nameless\n  {{to \"allowed.test\"}}\n  noSNI: allow\n"})
		cfg := &tls.Config{InsecureSkipVerify: true} // an IP address is not sent as a name
		c := e.RawTunnel(t, "allowed.test", &enginetest.TunnelOptions{ServerName: "127.0.0.1", Config: cfg})
		if leaf := c.State().PeerCertificates[0]; !slices.Equal(leaf.DNSNames, []string{"allowed.test"}) {
			t.Errorf("the leaf is for %q", leaf.DNSNames)
		}
		c.WantOpen("allowed.test", "/nameless")
		refusesHello(t, e, "another name", clientHello(sni("denied.test")), enginetest.Fields{"reason": "name_mismatch"})
	})
}

// pieces is a connection whose first write, the ClientHello, is sent by f.
type pieces struct {
	net.Conn
	f    func(net.Conn, []byte) error
	sent bool
}

func (p *pieces) Write(b []byte) (int, error) {
	if p.sent {
		return p.Conn.Write(b)
	}
	p.sent = true
	return len(b), p.f(p.Conn, b)
}

// byteByByte sends each byte in a segment of its own: TCP_NODELAY is Go's
// default.
func byteByByte(c net.Conn, hello []byte) error {
	for i := range hello {
		if _, err := c.Write(hello[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// inRecords puts the handshake message of a ClientHello into records of n bytes.
func inRecords(n int) func(net.Conn, []byte) error {
	return func(c net.Conn, hello []byte) error {
		var out []byte
		for part := range slices.Chunk(hello[5:], n) {
			out = append(append(out, hello[:3]...), with16(part)...)
		}
		_, err := c.Write(out)
		return err
	}
}

func TestA11HellosInPieces(t *testing.T) {
	for _, tunnel := range []string{"inspect", "passthrough"} {
		e := attacked(t, enginetest.Options{Policy: "- name: one\n  {{to \"allowed.test\"}}\n  tls: " + tunnel + "\n"})
		roots := e.CAPool
		if tunnel == "passthrough" {
			roots = e.Root.Pool
		}
		for what, f := range map[string]func(net.Conn, []byte) error{
			"bytes": byteByByte, "records of 40": inRecords(40), "records of 1": inRecords(1), "records of 4": inRecords(4),
		} {
			c := e.RawConnect(t, "allowed.test")
			conn := tls.Client(&pieces{Conn: c.Conn, f: f}, &tls.Config{RootCAs: roots, ServerName: "allowed.test", NextProtos: []string{"http/1.1"}})
			if err := conn.Handshake(); err != nil {
				t.Errorf("%s, a ClientHello in %s: %v\n%s", tunnel, what, err, e.Dump(t))
				continue
			}
			path := "/" + strings.ReplaceAll(what, " ", "-")
			_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, e.Authority("allowed.test"))
			answer, err := io.ReadAll(io.LimitReader(conn, int64(len("HTTP/1.1 200"))))
			if err != nil || string(answer) != "HTTP/1.1 200" {
				t.Errorf("%s, a ClientHello in %s: %q, %v", tunnel, what, answer, err)
			}
			_ = conn.Close()
			// The name counts however it comes.
			c = e.RawConnect(t, "allowed.test")
			other := tls.Client(&pieces{Conn: c.Conn, f: f}, &tls.Config{RootCAs: roots, ServerName: "denied.test"})
			if err := other.Handshake(); err == nil {
				t.Errorf("%s: another name in %s was taken", tunnel, what)
			}
		}
		e.WantRecords(t, 4, enginetest.Fields{"event": "egress_denied", "reason": "name_mismatch", "sni": "denied.test"})
	}
}

func TestA13OddALPN(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	var many []string
	for i := range 199 {
		many = append(many, fmt.Sprintf("p%d", i))
	}
	for _, row := range []struct {
		what   string
		offer  []string
		chosen string
		denied bool
	}{
		{"none", []string{}, "", false},
		{"HTTP/1.1", []string{"http/1.1"}, "http/1.1", false},
		{"HTTP/1.1 among 200", append(slices.Clone(many), "http/1.1"), "http/1.1", false},
		{"only acme-tls/1", []string{"acme-tls/1"}, "", true},
		{"only h3", []string{"h3"}, "", true},
		{"only HTTP/1.0", []string{"http/1.0"}, "", true},
		{"200 that nobody knows", append(slices.Clone(many), "ssh"), "", true},
		{"h2 in capitals", []string{"H2"}, "", true},
	} {
		t.Run(row.what, func(t *testing.T) {
			c := e.RawConnect(t, "allowed.test")
			err := c.StartTLS("allowed.test", &enginetest.TunnelOptions{ALPN: row.offer})
			if row.denied {
				if err == nil || !strings.Contains(err.Error(), "no application protocol") {
					t.Errorf("%v, want no_application_protocol", err)
				}
				e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "no_application_protocol", "host": "allowed.test"})
				return
			}
			if err != nil || c.State().NegotiatedProtocol != row.chosen {
				t.Fatalf("%q, %v; want %q", c.State().NegotiatedProtocol, err, row.chosen)
			}
			c.WantOpen("allowed.test", "/alpn")
		})
	}
	if c := dialH2(t, e, "allowed.test"); c.answer(c.get(e.Authority("allowed.test"), "/h2")).Status != 200 {
		t.Error("h2 does not work")
	}
}

// echConfig is an ECHConfigList (RFC 9849 section 4) by which a client hides
// its name behind public.
func echConfig(t *testing.T, public string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := []byte{7, 0, 0x20} // config_id, DHKEM(X25519)
	c = append(c, with16(key.PublicKey().Bytes())...)
	c = append(c, with16([]byte{0, 1, 0, 1})...) // HKDF-SHA256, AES-128-GCM
	c = append(c, 64)                            // maximum_name_length
	c = append(c, with8([]byte(public))...)
	c = append(c, 0, 0) // no extensions
	return with16(extension(0xfe0d, c))
}

func TestA14EncryptedHello(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	hidden := func(public string) *enginetest.TunnelOptions {
		return &enginetest.TunnelOptions{ServerName: "denied.test", Config: &tls.Config{RootCAs: e.CAPool, EncryptedClientHelloConfigList: echConfig(t, public)}}
	}
	t.Run("the engine is the outer name and cannot be the inner", func(t *testing.T) {
		err := e.RawConnect(t, "allowed.test").StartTLS("allowed.test", hidden("allowed.test"))
		if err == nil || !strings.Contains(err.Error(), "ECH") {
			t.Errorf("the handshake: %v, want ECH to be rejected", err)
		}
	})
	t.Run("an outer name that is not the target's", func(t *testing.T) {
		if err := e.RawConnect(t, "allowed.test").StartTLS("allowed.test", hidden("cloud.test")); err == nil {
			t.Error("the handshake went through")
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "name_mismatch", "host": "allowed.test", "sni": "cloud.test"})
	})
	grease := extension(0xfe0d, slices.Concat([]byte{0, 0, 1, 0, 1, 7}, with16(make([]byte, 32)), with16(make([]byte, 160))))
	t.Run("a browser's empty ECH is no obstacle", func(t *testing.T) {
		if kind, content, ok := firstRecord(t, e, "allowed.test", clientHello(sni("allowed.test"), grease)); !ok || kind != typeHandshake {
			t.Errorf("record %d %x, want a ServerHello", kind, content)
		}
	})
	nothingArrived(t, e, "allowed.test", "denied.test")
	t.Run("passthrough", func(t *testing.T) {
		e := attacked(t, enginetest.Options{Policy: "- name: pinned\n  {{to \"allowed.test\"}}\n  tls: passthrough\n"})
		refusesHello(t, e, "ECH in a passthrough", clientHello(sni("allowed.test"), grease), enginetest.Fields{"reason": "ech_in_passthrough", "host": "allowed.test"})
		refusesHello(t, e, "another name in a passthrough", clientHello(sni("denied.test")), enginetest.Fields{"reason": "name_mismatch", "sni": "denied.test"})
		refusesHello(t, e, "no name in a passthrough", clientHello(), enginetest.Fields{"reason": "no_sni"})
		nothingArrived(t, e, "allowed.test", "denied.test")
	})
}
