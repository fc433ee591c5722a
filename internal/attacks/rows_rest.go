package main

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2"
)

// addressRows are D1 to D10. The upstream's second address stands for the
// inside of a network: a connection there is through, whatever it carries.
func addressRows() []row {
	to := func(id, what string, c class, again string, n need) row {
		return row{id: id, what: what, class: c, in: chat("Content-Length: 0"), again: again, want: nothing, need: n | needLookup | needGuard}
	}
	rows := []row{
		to("D1", "an allowed name that points inside", inside, "", 0),
		to("D2", "an allowed name that points inside and outside", mixed, "", 0),
		{id: "D2", what: "an allowed name that points outside once, then inside", class: rebind, in: chat("Content-Length: 0", "Connection: close"), again: chat("Content-Length: 0"), want: atMost, may: []string{chatLine, chatLine}, need: needLookup | needGuard},
		{id: "D3", what: "a redirect to the inside is the client's", in: chat("Content-Length: 0"), answer: "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:{port}/latest\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", want: exactly, may: []string{chatLine}},
		{id: "D8", what: "a connection of a rule with addresses, for a rule without", class: split, in: get("a") + chat("Content-Length: 0"), want: exactly, may: []string{"GET /files/a"}, need: needLookup | needRuleGuard},
		{id: "D10", what: "a denied name is not resolved", connect: "{deniedname}:{port}", sni: "{deniedname}", in: "GET / HTTP/1.1\r\nHost: {denied}\r\n\r\n", want: nothing, need: needConnect | needWatch},
	}
	return rows
}

// upgradeRows are U1 to U6.
func upgradeRows() []row {
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	const accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	shake := func(lines ...string) string { return asking("GET /socket", lines...) }
	good := shake("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
	switched := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + accept + "\r\n\r\n"
	ws := func(id, what string, r row) row {
		r.id, r.what = id, what
		if r.class == "" {
			r.class = socket
		}
		return r
	}
	once := []string{"GET /socket"}
	rows := []row{
		ws("U1", "a DELETE behind a handshake that got no 101", row{in: good + smuggled, then: smuggled, want: exactly, may: once}),
		ws("U1", "a DELETE behind a handshake that got a 403", row{in: good, then: smuggled, answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", want: exactly, may: once}),
		ws("U2", "a 101 with another protocol", row{in: good, then: smuggled, answer: strings.Replace(switched, "websocket", "tcp", 1), want: guarded}),
		ws("U2", "a 101 without the answer to the key", row{in: good, then: smuggled, answer: strings.Replace(switched, accept+"\r\n", "", 1), want: guarded}),
		ws("U2", "a 101 with the answer to another key", row{in: good, then: smuggled, answer: strings.Replace(switched, "s3pP", "AAAA", 1), want: guarded}),
		ws("U2", "a 101 that nobody asked for", row{class: api, in: get("a"), then: smuggled, answer: switched, want: guarded}),
		ws("U3", "h2c is stripped", row{class: api, in: chat("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "Content-Length: 0"), want: exactly, may: []string{chatLine}}),
		ws("U4", "a handshake by POST", row{in: strings.Replace(good, "GET", "POST", 1) + smuggled, want: nothing}),
		ws("U4", "a handshake with a body", row{in: shake("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key, "Content-Length: 3") + "abc" + smuggled, want: nothing}),
		ws("U4", "a handshake of version 8", row{in: strings.Replace(good, "13", "8", 1) + smuggled, want: nothing}),
		ws("U4", "a handshake without a key", row{in: strings.Replace(good, key+"\r\n", "", 1) + smuggled, want: nothing}),
		ws("U4", "a handshake with a short key", row{in: strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 1) + smuggled, want: nothing}),
		ws("U4", "an upgrade to tcp", row{in: shake("Connection: Upgrade", "Upgrade: tcp") + smuggled, want: nothing}),
		ws("U4", "a WebSocket where no rule says so", row{class: api, in: asking("GET /files/a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key) + smuggled, want: nothing}),
	}
	for what, raw := range map[string]string{
		"HTTP": "DELETE /admin HTTP/1.1\r\nHost: {host}\r\n\r\n", "frames that are not masked": "\x81\x06/admin", "a reserved opcode": "\x83\x86\x00\x00\x00\x00/admin",
		"a control frame of 126 bytes": "\x89\xfe\x00\x7e\x00\x00\x00\x00/admin" + strings.Repeat("x", 120), "a reserved bit": "\xc1\x86\x00\x00\x00\x00/admin",
	} {
		rows = append(rows, ws("U6", what+" behind a good handshake", row{in: good, then: raw, answer: switched, want: exactly, may: once}))
	}
	return rows
}

// upstreamTLSRows are T1 to T15. Each is tried twice: what a proxy does after an
// upstream that it does not trust is half of the row.
func upstreamTLSRows() []row {
	var rows []row
	for _, what := range []string{
		"T1 expired", "T2 not yet valid", "T3 wrong name", "T4 self-signed", "T5 unknown root", "T6 missing intermediate", "T7 common name only", "T8 SHA-1 signature", "T9 RSA-1024",
		"T10 clientAuth only", "T11 10 000 names", "T12 a chain of 100", "T13 TLS 1.0 only", "T13 TLS 1.1 only", "T14 asks for a client certificate, TLS 1.2", "T14 asks for a client certificate, TLS 1.3",
	} {
		id, what, _ := strings.Cut(what, " ")
		rows = append(rows, row{id: id, what: what, in: chat("Content-Length: 0"), again: smuggled, want: nothing})
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for what, answer := range map[string]string{
		"before the answer": "", "inside the head": ok + "Content-", "inside a body of known length": ok + "Content-Length: 5\r\n\r\nabc", "inside chunks": ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"in a body that ends with the connection": ok + "\r\nabc",
	} {
		if answer == "" {
			answer = "\r\n"
		}
		rows = append(rows, row{id: "T15", what: "cut without close_notify " + what, in: get("a"), answer: answer, cut: true, want: guarded})
	}
	return rows
}

// http2Rows are H1 to H8, and the rows of other letters as HTTP/2 has them.
func http2Rows() []row {
	fields := func(method, scheme, authority, path string, more ...string) []string {
		all := []string{":method: " + method, ":scheme: " + scheme}
		if authority != "-" {
			all = append(all, ":authority: "+authority)
		}
		return append(append(all, ":path: "+path), more...)
	}
	h2 := func(id, what, body string, all []string) row {
		return row{id: id, what: what + ", over HTTP/2", way: byHTTP2, streams: []h2req{{all, body}}, want: nothing, need: needHTTP2}
	}
	usual := func(more ...string) []string { return fields("POST", "https", "{host}", chatPath, more...) }
	rows := []row{
		h2("H1", ":path is a URL", "", fields("POST", "https", "{host}", "http://{denied}"+chatPath)),
		h2("H1", ":path is a URL of the same host", "", fields("POST", "https", "{host}", "https://{host}"+chatPath)),
		h2("H1", ":path is *", "", fields("OPTIONS", "https", "{host}", "*")),
		h2("H2", "a raw space in :path", "", fields("GET", "https", "{host}", "/files/a b")),
		h2("H2", "a request in :path", "", fields("GET", "https", "{host}", "/files/a HTTP/1.1\r\nHost: x\r\n\r\nGET /admin")),
		h2("H2", "a fragment in :path", "", fields("POST", "https", "{host}", chatPath+"#b")),
		h2("H3", ":authority unlike host", "", usual("host: {denied}")),
		h2("H3", "two host fields", "", usual("host: {host}", "host: {denied}")),
		h2("H3", "host alone, and twice", "", fields("POST", "https", "-", chatPath, "host: {host}", "host: {denied}")),
		h2("H4", "an empty :authority", "", fields("POST", "https", "", chatPath)),
		h2("H4", "no :authority", "", fields("POST", "https", "-", chatPath)),
		h2("H5", ":authority with a path", "", fields("POST", "https", "{host}/../x", chatPath)),
		h2("H5", ":authority with userinfo", "", fields("POST", "https", "user@{host}", chatPath)),
		h2("H6", ":scheme http", "", fields("POST", "http", "{host}", chatPath)),
		h2("H7", "a method in lower case", "", fields("post", "https", "{host}", chatPath)),
		h2("H7", "a method with a space", "", fields("POST /admin HTTP/1.1", "https", "{host}", chatPath)),
		h2("H8", "two unlike content-length", "ab", usual("content-length: 1", "content-length: 2")),
		h2("H8", "content-length +2", "ab", usual("content-length: +2")),
		h2("H8", "content-length without a body", "", usual("content-length: 1")),
		h2("H8", "transfer-encoding", "0\r\n\r\n", usual("transfer-encoding: chunked")),
		h2("S16", "a line break in a value", "", usual("x: a\r\ncontent-length: 9")),
		h2("S16", "a line break in a name", "", usual("x\r\ny: a")),
		h2("S16", "a connection field", "", usual("connection: close")),
		h2("P1", "a dot segment", "", fields("GET", "https", "{host}", "/files/../admin")),
		h2("P2", "an encoded slash", "", fields("POST", "https", "{host}", "/v1/chat%2fcompletions")),
		h2("P4", "two slashes", "", fields("POST", "https", "{host}", "//v1/chat/completions")),
		h2("A2", "another :authority", "", fields("POST", "https", "{denied}", chatPath)),
		h2("A16", "a CONNECT", "", []string{":method: CONNECT", ":authority: {denied}"}),
		h2("A16", "an extended CONNECT", "", []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: {host}", ":path: /socket"}),
		h2("A19", "a method override", "", usual("x-http-method-override: DELETE")),
	}
	second := h2("A3", "another authority on the second stream", "", usual())
	second.streams = append(second.streams, h2req{fields: fields("POST", "https", "{denied}", chatPath)})
	second.want, second.may = exactly, []string{chatLine}
	return append(rows, second)
}

// exhaustionRows are those of R that bytes alone can say; what they cost is
// measured by -floods.
func exhaustionRows() []row {
	usual := []string{":method: POST", ":scheme: https", ":authority: {host}", ":path: " + chatPath}
	flood := func(id, what string, f func(h *h2conn, fields []string)) row {
		return row{id: id, what: what, way: byHTTP2, want: nothing, need: needHTTP2, frames: func(h *h2conn, c caseOf) {
			fields := make([]string, len(usual))
			for i, u := range usual {
				fields[i] = c.expand(u)
			}
			h.open++
			f(h, fields)
		}}
	}
	return []row{
		{id: "R1", what: "a head that never ends", in: "POST " + chatPath + " HTTP/1.1\r\nHost: {host}\r\nX: ", pace: "slow", want: nothing},
		{id: "R1", what: "a head of 2 MiB", in: "POST " + chatPath + " HTTP/1.1\r\nHost: {host}\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", want: nothing},
		{id: "R1", what: "ten thousand fields", in: chat(strings.Repeat("a: b\r\n", 10_000)+"c: d", "Content-Length: 0"), want: nothing},
		flood("R3", "a CONTINUATION flood", func(h *h2conn, fields []string) {
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(fields...), EndStream: true})
			piece := h.encode("x: " + strings.Repeat("y", 16_000))
			for range 500 {
				if h.framer.WriteContinuation(1, false, piece) != nil {
					return
				}
			}
		}),
		flood("R3", "an HPACK bomb", func(h *h2conn, fields []string) {
			bomb := "bomb: " + strings.Repeat("b", 3000)
			for range 2000 { // each but the first is one byte: an index
				fields = append(fields, bomb)
			}
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(fields...), EndStream: true, EndHeaders: true})
		}),
		flood("R3", "a thousand tiny fields", func(h *h2conn, fields []string) {
			for i := range 1000 {
				fields = append(fields, fmt.Sprintf("a%d: b", i))
			}
			_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(fields...), EndStream: true, EndHeaders: true})
		}),
		{id: "R6", what: "a decompression bomb", class: judged, in: post(deflated(`{"model":"good","x":"`+strings.Repeat("x", 1<<20)+`"}`), isJSON, "Content-Encoding: deflate"), want: nothing, need: needBody},
	}
}
