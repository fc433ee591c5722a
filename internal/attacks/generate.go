package main

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2"
)

// Generated cases have no outcome of their own. The oracle is the same for all:
// nothing of the request arrives, or exactly what was sent arrives as requests
// that have one reading, that the policy allows and that the log names; and
// every origin's parser reads the same in them.

// generated are the cases by kind.
func generated() []row {
	var all []row
	for _, part := range [][]row{
		framingMutations(), everyByte256(), chunkSpellings(), pairs(), pseudoFields(), splitBlocks(), splitHellos(),
	} {
		all = append(all, part...)
	}
	return all
}

// maybe is a case of kind id with so many requests in it.
func maybe(id, in string, sent int) row {
	return row{id: id, what: fmt.Sprintf("%.200q", in), in: in, want: either, sent: sent}
}

// oddBytes are those that some reader takes for white space, for a separator, or
// for nothing.
func oddBytes() []byte {
	var all []byte
	for b := range byte(0x21) {
		all = append(all, b)
	}
	return append(all, 0x7f, 0x80, 0x85, 0xa0, 0xff, ',', ';', ':', '"', '_', '+', '-', '.', '0', 'x', '\'', '=', '(')
}

// framingMutations puts every odd byte at every place of each framing field, and
// in the place of every byte, alone and beside the other framing.
func framingMutations() []row {
	var all []row
	for _, f := range []struct{ field, beside, body string }{
		{"Content-Length: 3", "X-Beside: 1", "abc"},
		{"Transfer-Encoding: chunked", "X-Beside: 1", "3\r\nabc\r\n0\r\n\r\n"},
		{"Transfer-Encoding: chunked", "Content-Length: 13", "3\r\nabc\r\n0\r\n\r\n"},
		{"Content-Length: 0", "Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"},
	} {
		for at := range len(f.field) + 1 {
			for _, b := range oddBytes() {
				in := f.field[:at] + string([]byte{b}) + f.field[at:]
				all = append(all, maybe("a byte in a framing field", chat("Connection: close", f.beside, in)+f.body, 1))
				if at < len(f.field) && f.beside[0] == 'X' {
					over := f.field[:at] + string([]byte{b}) + f.field[at+1:]
					all = append(all, maybe("another byte in a framing field", chat("Connection: close", over)+f.body, 1))
				}
			}
		}
		for i := range len(f.field) { // case, letter by letter
			flipped := f.field[:i] + string(f.field[i]^0x20) + f.field[i+1:]
			all = append(all, maybe("a framing field's case", chat("Connection: close", flipped)+f.body, 1))
		}
	}
	return all
}

// everyByte256 puts every byte at every place of a path, a host and a field's
// name.
func everyByte256() []row {
	var all []row
	insert := func(id, text string, request func(string) string) {
		for at := range len(text) + 1 {
			for b := range 256 {
				all = append(all, maybe(id, request(text[:at]+string([]byte{byte(b)})+text[at:]), 1))
			}
		}
	}
	insert("a byte in a path", "/files/ab", func(p string) string { return asking("GET "+p, "Connection: close") })
	insert("a byte in a name", "X-Ab", func(n string) string { return get("a", n+": v", "Connection: close") })
	// The host is known when the case has its number: a byte goes before, behind
	// and between its parts.
	for b := range 256 {
		x := string([]byte{byte(b)})
		for _, host := range []string{x + "{host}", "{host}" + x, "{name}" + x + ":{port}", "{name}:" + x + "{port}", "{name}." + x + ":{port}", x + ".{host}", "c" + x + "{host}"} {
			all = append(all, maybe("a byte in a host", "GET /files/a HTTP/1.1\r\nHost: "+host+"\r\nX-Case: {name}\r\nConnection: close\r\n\r\n", 1))
		}
	}
	for b := range 256 {
		x := string([]byte{byte(b)})
		for _, line := range []string{x + "GET /files/a HTTP/1.1", "GET" + x + " /files/a HTTP/1.1", "GET " + x + "/files/a HTTP/1.1", "GET /files/a" + x + " HTTP/1.1", "GET /files/a " + x + "HTTP/1.1", "GET /files/a HTTP/1.1" + x, "G" + x + "ET /files/a HTTP/1.1", "GET /files/a HTTP/1." + x, "GET" + x + "/files/a HTTP/1.1"} {
			all = append(all, maybe("a byte in a request line", line+"\r\nHost: {host}\r\nConnection: close\r\n\r\n", 1))
		}
	}
	return all
}

// chunkSpellings are sizes in every spelling that one reader takes for 3 and
// another for something else.
func chunkSpellings() []row {
	var all []row
	for _, before := range []string{"", " ", "\t", "+", "-", "0x", "0X", "0", "000000000000000", "0000000000000000", "_", "\x00", "\v", "x"} {
		for _, size := range []string{"3", "3.0", "0_3", "10000000000000003", "\uff13"} {
			for _, behind := range []string{"", " ", "\t", ";", ";a", ";a=b", ";a=\"b\"", ";a=\"", " ;a", ",", "\x00", "h", ";\x7f", ";a\rb"} {
				for _, end := range []string{"\r\n", "\n", "\r\r\n"} {
					body := before + size + behind + end + "abc\r\n0\r\n\r\n"
					r := maybe("a chunk size", chunked(body, "Connection: close"), 1)
					r.body = true
					all = append(all, r)
				}
			}
		}
	}
	return all
}

// pairs are two requests on one connection, in one segment.
func pairs() []row {
	parts := []string{
		get("1"), get("1", "Content-Length: 0"), get("1", "Content-Length: 3") + "abc", get("1", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", post("a"), post(smuggled), chunked("1\r\na\r\n0\r\n\r\n"),
		chunked("0\r\nX-Checksum: 1\r\n\r\n"), chat("Expect: 100-continue", "Content-Length: 1") + "a", smuggled, asking("DELETE /files/a", "Content-Length: 3") + "abc", get("a/../../admin"), get("1", "Connection: close"),
		chat("Content-Length: 5", "Transfer-Encoding: chunked") + "0\r\n\r\n", chat("Content-Length: 400"), chunked("3\r\nabc\r\n"), "\r\n" + get("1"), "GET /files/1 HTTP/1.0\r\nHost: {host}\r\n\r\n", get("1", "X : a"),
		"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n", "GET /files/1 HTTP/1.1\r\nHost: {denied}\r\n\r\n", get("1", "Connection: Upgrade", "Upgrade: h2c"), "garbage\r\n\r\n",
	}
	var all []row
	for _, first := range parts {
		for _, second := range parts {
			r := maybe("two requests", first+second, 2)
			r.body, r.ending = true, "fin"
			all = append(all, r)
		}
	}
	return all
}

// pseudoFields are HTTP/2 requests with each combination of pseudo fields.
func pseudoFields() []row {
	var all []row
	add := func(fields ...string) {
		all = append(all, row{id: "pseudo fields", what: strings.Join(fields, ", "), way: byHTTP2, streams: []h2req{{fields: fields}}, want: either, sent: 1})
	}
	for _, method := range []string{":method: GET", ":method: get", ":method: CONNECT", ":method: ", ":method: GET /admin HTTP/1.1\r\nX: y", ""} {
		for _, scheme := range []string{":scheme: https", ":scheme: http", ":scheme: ", ""} {
			for _, authority := range []string{":authority: {host}", ":authority: {denied}", ":authority: {NAME}:{port}", ":authority: u@{host}", ":authority: ", ""} {
				for _, path := range []string{":path: /files/a", ":path: *", ":path: http://{denied}/x", ":path: /files/../admin", ":path: /files/a b", ":path: ", ""} {
					var fields []string
					for _, f := range []string{method, scheme, authority, path} {
						if f != "" {
							fields = append(fields, f)
						}
					}
					if len(fields) > 0 {
						add(fields...)
					}
				}
			}
		}
	}
	usual := []string{":method: GET", ":scheme: https", ":authority: {host}", ":path: /files/a"}
	for _, more := range []string{
		":method: POST", ":path: /admin", ":authority: {denied}", ":unknown: 1", "host: {host}", "host: {denied}", "X: y", "x: a\nb", "x: a\x00b", "te: trailers", "te: gzip", "connection: close", "content-length: 3",
		"transfer-encoding: chunked", "upgrade: websocket", "keep-alive: 1", "proxy-connection: close", "expect: 100-continue", "cookie: a=b", "x y: a", ": a", "x-http-method: DELETE",
	} {
		for at := range len(usual) + 1 { // before, between and behind the pseudo fields
			fields := append(append(append([]string{}, usual[:at]...), more), usual[at:]...)
			add(fields...)
			add(append(fields, more)...)
		}
	}
	return all
}

// splitBlocks has one header block cut in two frames at every byte, with and
// without a frame between.
func splitBlocks() []row {
	var all []row
	const longest = 48 // bytes of the block, by HPACK's tables; beyond it the cut is at its end
	for at := range longest {
		for _, between := range []bool{false, true} {
			all = append(all, row{id: "a header block in pieces", what: fmt.Sprintf("at byte %d, a frame between: %v", at, between), way: byHTTP2, want: either, sent: 1, frames: func(h *h2conn, c caseOf) {
				block := h.encode(":method: GET", ":scheme: https", ":authority: "+c.host(), ":path: /files/a")
				cut := min(at, len(block))
				h.open++
				_ = h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:cut], EndStream: true})
				if between {
					_ = h.framer.WritePing(false, [8]byte{1})
				}
				_ = h.framer.WriteContinuation(1, true, block[cut:])
			}})
		}
	}
	return all
}

// splitHellos has the ClientHello cut at every byte, into segments and into
// records. It must work, and it is one request.
func splitHellos() []row {
	var all []row
	const longest = 330 // bytes of a ClientHello with X25519 alone; beyond it the cut is at its end
	for at := 1; at < longest; at++ {
		for _, pace := range []string{"segments", "records"} {
			all = append(all, row{id: "a ClientHello in pieces", what: fmt.Sprintf("in %s, at byte %d", pace, at), pace: pace, at: at, in: get("a", "Connection: close"), want: exactly, may: []string{"GET /files/a"}, sent: 1})
		}
	}
	return all
}
