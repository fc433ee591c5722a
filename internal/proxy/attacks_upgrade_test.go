package proxy_test

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 names SHA-1
	"encoding/base64"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// socketKey is the key of RFC 6455 section 1.3's example.
const socketKey = "dGhlIHNhbXBsZSBub25jZQ=="

func socketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// handshake is an opening handshake for path, with the lines given added.
func handshake(path string, lines ...string) string {
	return "GET {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(append([]string{
		"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + socketKey,
	}, append(lines, "", "")...), "\r\n")
}

// switched is a 101 with the right answer to socketKey and these lines.
func switched(lines ...string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + socketAccept(socketKey) + "\r\n" +
		strings.Join(append(lines, "", ""), "\r\n")
}

const upgradePolicy = `
- name: over-tls
  {{to "allowed.test"}}
  methods: [GET, POST]
  paths: ["/**"]
  websocket: true
- name: without-tls
  {{to "plain.test"}}
  methods: [GET, POST]
  paths: ["/**"]
  websocket: true
`

// upgrading starts an engine whose rules allow WebSockets, before origins that
// answer each path with its bytes, and then do what then says.
func upgrading(t *testing.T, rows map[string]string, then func(c *enginetest.OriginConn, path string)) *enginetest.Engine {
	t.Helper()
	host := func(plain bool) enginetest.Host {
		h := answers(rows, plain)
		answer := h.Answer
		h.Answer = func(c *enginetest.OriginConn, r enginetest.Seen) {
			answer(c, r)
			if _, ok := rows[r.Path()]; ok && then != nil {
				then(c, r.Path())
			}
		}
		return h
	}
	return attacked(t, enginetest.Options{Policy: upgradePolicy, Hosts: map[string]enginetest.Host{
		"allowed.test": host(false), "plain.test": host(true), "denied.test": {},
	}})
}

// TestU01UpgradeWithoutA101 has origins that stay with HTTP. Whatever comes
// behind the handshake is the next request and is judged as one.
func TestU01UpgradeWithoutA101(t *testing.T) {
	e := upgrading(t, map[string]string{
		"/stays":   ok200 + "Content-Length: 2\r\n\r\nno",
		"/upgrade": "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
		"/refuses": "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
	}, nil)
	for _, w := range bothWays(e) {
		for path, status := range map[string]int{"/stays": 200, "/upgrade": 426, "/refuses": 403} {
			t.Run(path+" "+w.name, func(t *testing.T) {
				before := len(e.Origin(w.host).Requests())
				c := w.dial(t)
				c.Send(w.raw(handshake(path) + "DELETE {at}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"))
				if r := c.Reply("GET"); r.Status != status {
					t.Fatalf("the handshake: %d %q", r.Status, r.Reason())
				}
				refused(t, "the DELETE behind it", c.Reply("DELETE"), 403, "method_not_allowed")
				c.Send(w.raw(get("/next")))
				if r := c.Reply("GET"); r.Status != 200 {
					t.Errorf("the request after that: %d", r.Status)
				}
				if got := strings.Join(targets(e.Origin(w.host).Requests()[before:]), ", "); got != "GET "+path+", GET /next" {
					t.Errorf("the origin saw %s", got)
				}
			})
		}
	}
	e.NoRecord(t, enginetest.Fields{"event": "egress_allowed", "path": "/smuggled"})
}

func TestU02A101ThatWasNotAskedFor(t *testing.T) {
	const plain = "GET {at}%s HTTP/1.1\r\nHost: {host}\r\n\r\n"
	rows := []struct{ what, request, answer string }{
		{"nobody asked", plain, switched()},
		{"nobody asked, and there is no Upgrade", plain, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		{"h2c was asked for", "GET {at}%s HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"},
		{"another protocol", handshake("%s"), strings.Replace(switched(), "Upgrade: websocket", "Upgrade: tcp", 1)},
		{"two protocols", handshake("%s"), strings.Replace(switched(), "Upgrade: websocket", "Upgrade: websocket, tcp", 1)},
		{"no protocol", handshake("%s"), strings.Replace(switched(), "Upgrade: websocket\r\n", "", 1)},
		{"no Connection", handshake("%s"), strings.Replace(switched(), "Connection: Upgrade\r\n", "", 1)},
		{"no answer to the key", handshake("%s"), "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"the answer to another key", handshake("%s"), strings.Replace(switched(), socketAccept(socketKey), socketAccept("AAAAAAAAAAAAAAAAAAAAAA=="), 1)},
		{"two answers to the key", handshake("%s"), switched("Sec-WebSocket-Accept: " + socketAccept(socketKey))},
		{"an extension that was not offered", handshake("%s"), switched("Sec-WebSocket-Extensions: permessage-deflate")},
		{"an extension that nobody checks", handshake("%s", "Sec-WebSocket-Extensions: x-own"), switched("Sec-WebSocket-Extensions: x-own")},
		{"HTTP/1.0", handshake("%s"), strings.Replace(switched(), "HTTP/1.1", "HTTP/1.0", 1)},
	}
	raw := map[string]string{}
	for i, row := range rows {
		raw[numbered(i)] = row.answer
	}
	e := upgrading(t, raw, nil)
	for _, w := range bothWays(e) {
		for i, row := range rows {
			t.Run(row.what+" "+w.name, func(t *testing.T) {
				path := numbered(i)
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw(strings.Replace(row.request, "%s", path, 1)))
				r := c.Reply("GET")
				if r.Status != 502 || r.Reason() != "bad_response" && r.Reason() != "bad_upgrade" {
					t.Errorf("got %d %q, want 502", r.Status, r.Reason())
				}
				recorded(t, e, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": path, "host": w.host, "reason": r.Reason(), "status_code": 502})
				w.wantUnused(t, path)
			})
		}
	}
}

func TestU03H2CIsStripped(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	const settings = "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"
	for _, w := range bothWays(e) {
		for _, lines := range [][]string{
			{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", settings},
			{"Connection: Upgrade", "Upgrade: H2C"},
			{"Connection: upgrade, http2-settings", "Upgrade: h2c", settings},
			{"Upgrade: h2c"},
			{"Upgrade: websocket"}, // Connection does not name it
		} {
			c := w.dial(t)
			s := w.sends(t, c, "GET", head("GET", lines...))
			w.wantHead(t, s, "GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")
			w.sends(t, c, "GET", get("/next")) // and it is HTTP/1.1 still
		}
		w.deniesUpgrade(t, "upgrade_not_allowed", 403,
			head("GET", "Connection: Upgrade", "Upgrade: tcp"), head("GET", "Connection: Upgrade", "Upgrade: h2c, websocket"),
			head("GET", "Connection: Upgrade", "Upgrade: TLS/1.0"), head("GET", "Connection: Upgrade", "Upgrade: websocket/13"))
		w.deniesUpgrade(t, "bad_header", 400, head("GET", "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"), head("GET", "Connection: Upgrade", "Upgrade:"))
	}
}

// deniesUpgrade sends each request with a second behind it and fails the test
// unless it is refused, recorded, and neither arrives.
func (w way) deniesUpgrade(t *testing.T, reason string, status int, requests ...string) {
	t.Helper()
	o := w.e.Origin(w.host)
	before := len(o.Requests())
	f := enginetest.Fields{"event": "egress_denied", "reason": reason, "status_code": status}
	for _, raw := range requests {
		records := len(w.e.Find(t, f))
		c := w.dial(t)
		c.Send(w.raw(raw + smuggled))
		refused(t, raw, c.Reply("GET"), status, reason)
		c.WantClosed()
		if n := len(w.e.Find(t, f)); n != records+1 {
			t.Errorf("%q: %d records with %s, want one more than %d", raw, n, f, records)
		}
	}
	if now := len(o.Requests()); now != before {
		t.Errorf("%s: %q arrived", reason, targets(o.Requests()[before:]))
	}
}

func TestU04HandshakesThatAreNone(t *testing.T) {
	e := upgrading(t, map[string]string{}, nil)
	change := func(old, with string) string { return strings.Replace(handshake("/x"), old, with, 1) }
	for _, w := range bothWays(e) {
		w.deniesUpgrade(t, "bad_upgrade", 400,
			change("GET", "POST"),
			strings.Replace(handshake("/x", "Content-Length: 3"), "\r\n\r\n", "\r\n\r\nabc", 1),
			handshake("/x", "Transfer-Encoding: chunked")+"0\r\n\r\n",
			change("Version: 13", "Version: 8"), change("Version: 13", "Version: 013"), change("Version: 13", "Version: 13, 8"), change("Sec-WebSocket-Version: 13\r\n", ""),
			change("Sec-WebSocket-Key: "+socketKey+"\r\n", ""), change(socketKey, ""), change(socketKey, "c2hvcnQ="), change(socketKey, "not base64"),
			change(socketKey, "AAAAAAAAAAAAAAAAAAAAAB=="), // bits that mean nothing
			change(socketKey, "dGhlIHNhbXBsZSBub25jZWQ="), // 17 bytes
		)
		w.deniesUpgrade(t, "bad_header", 400, handshake("/x", "Sec-WebSocket-Key: "+socketKey), handshake("/x", "Sec-WebSocket-Version: 13"))
		// HTTP/1.0 cannot ask: it is an ordinary request, and no tunnel.
		c := w.dial(t)
		s := w.sends(t, c, "GET", change("HTTP/1.1", "HTTP/1.0"))
		if s.Count("Upgrade")+s.Count("Connection") > 0 {
			t.Errorf("from HTTP/1.0 the origin got %q", s.Head)
		}
		c.WantClosed()
	}
	t.Run("a rule that does not say so", func(t *testing.T) {
		e := attacked(t, enginetest.Options{})
		for _, w := range bothWays(e) {
			c := w.dial(t)
			c.Send(w.raw(handshake("/x")))
			refused(t, w.name, c.Reply("GET"), 403, "websocket_not_allowed")
			c.Send("\x81\x85\x00\x00\x00\x00hello")
			refused(t, "a frame all the same", c.Reply("GET"), 400, "bad_request_line")
			c.WantClosed()
			recorded(t, e, enginetest.Fields{"event": "egress_denied", "reason": "websocket_not_allowed"})
		}
		nothingArrived(t, e, "allowed.test", "plain.test")
	})
}

// frame is a WebSocket frame: its first byte, whether it is masked (with
// zeros), and its payload.
func frame(first byte, masked bool, payload string) string {
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return string(b) + payload
}

const (
	text, continued, closing, ping = 0x81, 0x80, 0x88, 0x89

	clientClose1002 = "\x88\x82\x00\x00\x00\x00\x03\xea"
	serverClose1002 = "\x88\x02\x03\xea"
)

// badFrames are bytes that are no frames of a side that masks or does not.
func badFrames(masked bool) map[string]string {
	hello, bit, mask := frame(text, masked, "hello"), byte(0), ""
	if masked {
		bit, mask = 0x80, "\x00\x00\x00\x00"
	}
	long := func(length ...byte) string {
		return string(append([]byte{text, bit | length[0]}, length[1:]...)) + mask
	}
	return map[string]string{
		"raw HTTP":                       "GET /smuggled HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
		"raw TLS":                        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"SSH":                            "SSH-2.0-OpenSSH_9.7\r\n",
		"the other side's masking":       frame(text, !masked, "hello"),
		"a reserved bit":                 frame(text|0x40, masked, "hello"),
		"another reserved bit":           frame(text|0x10, masked, "hello"),
		"a reserved opcode":              frame(0x83, masked, "hello"),
		"a reserved control opcode":      frame(0x8b, masked, "hello"),
		"a control frame of 126 bytes":   frame(ping, masked, strings.Repeat("p", 126)),
		"a control frame in pieces":      frame(ping&^0x80, masked, "p"),
		"a continuation of nothing":      frame(continued, masked, "x"),
		"a message inside a message":     frame(text&^0x80, masked, "x") + hello,
		"a length in too many bytes":     long(126, 0, 5) + "hello",
		"a length in far too many bytes": long(127, 0, 0, 0, 0, 0, 0, 0, 5) + "hello",
		"a length beyond the cap":        long(127, 0, 0, 1, 0, 0, 0, 0, 0),
		"a length of 2^63":               long(127, 0x80, 0, 0, 0, 0, 0, 0, 0),
		"bytes behind a close":           frame(closing, masked, "\x03\xe8") + hello,
	}
}

// goodMessage goes before every bad frame.
const goodMessage = "good"

// TestU04AndU06FramesFromTheClient sends bytes that are no frames in a WebSocket
// that works: the client hears 1002, and the origin hears at most that.
func TestU04AndU06FramesFromTheClient(t *testing.T) {
	heard := make(chan string, 1) // by the origin, after its 101
	e := upgrading(t, map[string]string{"/listens": switched()}, func(c *enginetest.OriginConn, _ string) {
		heard <- untilClosed(c, clientClose1002)
		_ = c.Close()
	})
	for _, w := range bothWays(e) {
		for what, raw := range badFrames(true) {
			t.Run(what+" "+w.name, func(t *testing.T) {
				before := len(e.Find(t, badFrame))
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw(handshake("/listens")))
				if r := c.Reply("GET"); r.Status != 101 {
					t.Fatalf("the handshake: %d %q", r.Status, r.Reason())
				}
				c.Send(frame(text, true, goodMessage))
				c.Send(raw)
				if answer := untilClosed(c, serverClose1002); answer != serverClose1002 {
					t.Errorf("the client heard %q, want a close with 1002", answer)
				}
				_ = c.Close()
				rest := strings.TrimPrefix(<-heard, frame(text, true, goodMessage))
				if what == "bytes behind a close" {
					rest = strings.TrimPrefix(rest, frame(closing, true, "\x03\xe8"))
				}
				if what == "a message inside a message" {
					rest = strings.TrimPrefix(rest, frame(text&^0x80, true, "x"))
				}
				if rest != clientClose1002 && rest != "" {
					t.Errorf("the origin heard %q", rest)
				}
				e.WantRecords(t, before+1, badFrame)
			})
		}
	}
}

// untilClosed reads up to the close frame that is meant to come, as an honest
// peer does before it closes, or to the end.
func untilClosed(r io.Reader, last string) string {
	var all []byte
	piece := make([]byte, 4<<10)
	for !strings.HasSuffix(string(all), last) {
		n, err := r.Read(piece)
		all = append(all, piece[:n]...)
		if err != nil {
			break
		}
	}
	return string(all)
}

// badFrame is the end of a WebSocket that was one no longer.
var badFrame = enginetest.Fields{"event": "egress_error", "phase": "complete", "reason": "bad_frame", "method": "GET"}

// TestU04AndU06FramesFromTheOrigin is the same the other way round.
func TestU04AndU06FramesFromTheOrigin(t *testing.T) {
	rows, bad, what := map[string]string{}, map[string]string{}, map[string]string{}
	for name, raw := range badFrames(false) {
		path := numbered(len(rows))
		rows[path], bad[path], what[path] = switched(), raw, name
	}
	e := upgrading(t, rows, func(c *enginetest.OriginConn, path string) {
		c.Printf("%s%s", frame(text, false, goodMessage), bad[path])
		untilClosed(c, clientClose1002)
		_ = c.Close()
	})
	for _, w := range bothWays(e) {
		for path := range what {
			t.Run(what[path]+" "+w.name, func(t *testing.T) {
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw(handshake(path)))
				if r := c.Reply("GET"); r.Status != 101 {
					t.Fatalf("the handshake: %d %q", r.Status, r.Reason())
				}
				rest := strings.TrimPrefix(untilClosed(c, serverClose1002), frame(text, false, goodMessage))
				if rest != serverClose1002 {
					t.Errorf("the client heard %q, want a close with 1002", rest)
				}
				_ = c.Close()
				e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "reason": "bad_frame", "path": path, "host": w.host})
			})
		}
	}
}
