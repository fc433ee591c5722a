package main

import (
	"fmt"
	"strings"
)

// framingRows are S1 to S9: two readings of where a request ends.
func framingRows() []row {
	const end = "0\r\n\r\n"
	rows := []row{
		deny("S1", "a length and chunks", chat("Content-Length: 5", "Transfer-Encoding: chunked")+end),
		deny("S1", "chunks and a length", chat("Transfer-Encoding: chunked", "Content-Length: 5")+end),
		deny("S1", "a length that covers the next request, and chunks", chat("Content-Length: 63", "Transfer-Encoding: chunked")+end),
		deny("S1", "a length of nothing, and chunks", chat("Content-Length: 0", "Transfer-Encoding: chunked")+end),
		deny("S1", "a length and chunks in capitals", chat("CONTENT-LENGTH: 5", "TRANSFER-ENCODING: CHUNKED")+end),
		deny("S1", "a length that Connection names, and chunks", chat("Connection: Content-Length", "Content-Length: 5", "Transfer-Encoding: chunked")+end),
		deny("S1", "a length, and chunks with an underscore", chat("Content-Length: 5", "Transfer_Encoding: chunked")+end),
		deny("S2", "two lengths", chat("Content-Length: 3", "Content-Length: 4")+"abc"),
		deny("S2", "two lengths, the larger first", chat("Content-Length: 63", "Content-Length: 0")),
		deny("S2", "one length twice", chat("Content-Length: 3", "Content-Length: 3")+"abc"),
		deny("S2", "a length in two spellings", chat("Content-Length: 3", "content-length: 3")+"abc"),
		deny("S2", "a length, and one with an underscore", chat("Content-Length: 0", "Content_Length: 3")+"abc"),
		deny("S2", "two lengths with a field between", chat("Content-Length: 0", "X-Between: 1", "Content-Length: 3")+"abc"),
		deny("S4", "LF after the request line", "POST "+chatPath+" HTTP/1.1\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S4", "LF after a field", "POST "+chatPath+" HTTP/1.1\r\nHost: {host}\nContent-Length: 0\r\n\r\n"),
		deny("S4", "LF and a coding within a value", chat("X: a\nTransfer-Encoding: chunked", "Content-Length: 5")+end),
		deny("S4", "LF as the empty line", "POST "+chatPath+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\n"),
		deny("S4", "LF alone throughout", "POST "+chatPath+" HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n"),
		deny("S4", "CR in the target", "POST "+chatPath+"\r HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S4", "CR within a value", chat("X: a\rb", "Content-Length: 0")),
		deny("S4", "CR and a coding within a value", chat("X: a\rTransfer-Encoding: chunked", "Content-Length: 5")+end),
		deny("S4", "CR at the end of a value", chat("X: a\r", "Content-Length: 0")),
		deny("S4", "CR before a field", chat("\rX: a", "Content-Length: 0")),
		deny("S4", "an empty line before the first", "\r\n"+chat("Content-Length: 0")),
		deny("S5", "a field folded by a space", chat("X: a", " b", "Content-Length: 0")),
		deny("S5", "a field folded by a tab", chat("X: a", "\tb", "Content-Length: 0")),
		deny("S5", "a Host that is folded", "POST "+chatPath+" HTTP/1.1\r\nHost:\r\n {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S5", "a length that is folded", chat("Content-Length:", " 3")+"abc"),
		deny("S5", "a coding that is folded", chat("Transfer-Encoding:", " chunked")+end),
		deny("S5", "a length hidden in a fold", chat("X: a", " Content-Length: 63")),
		deny("S5", "a field before Host that is folded", "POST "+chatPath+" HTTP/1.1\r\n X: y\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S8", "chunks on HTTP/1.0", "POST "+chatPath+" HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"+end),
		deny("S8", "chunks on HTTP/1.0, kept alive", "POST "+chatPath+" HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"+end),
		deny("S8", "identity on HTTP/1.0", "POST "+chatPath+" HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: identity\r\n\r\n"),
		deny("S9", "two codings in two fields", chat("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")+end),
		deny("S9", "identity, then chunked", chat("Transfer-Encoding: identity", "Transfer-Encoding: chunked")+end),
		deny("S9", "a coding with a space before its colon", chat("Transfer-Encoding : chunked")+end),
		deny("S9", "a coding with a space before its colon, and a length", chat("Transfer-Encoding : chunked", "Content-Length: 5")+end),
	}
	for _, v := range []string{
		"010", "03", "+3", "-3", "3,3", "3, 3", "", "0x10", "3.0", "3e0", "1_0", "3;", "three", "3 3", "\"3\"", "\uff13",
		"18446744073709551619", "99999999999999999999", "9223372036854775808", "-0",
	} {
		rows = append(rows, deny("S3", fmt.Sprintf("a length of %q", v), chat("Content-Length: "+v)+"abc"))
	}
	for _, v := range []string{
		"chunked, chunked", "gzip, chunked", "chunked, gzip", "gzip", "identity", ",chunked", "chunked,", "chunked;q=1",
		"\"chunked\"", "x-chunked", "chunked chunked", "chun ked", "", "cow", "\vchunked", "chunked\x00",
	} {
		rows = append(rows, deny("S9", fmt.Sprintf("a coding of %q", v), chat("Transfer-Encoding: "+v)+end))
	}
	return rows
}

// fieldRows are S12 to S16: bodies where none is, expectations, pipelines, and
// fields with two readings.
func fieldRows() []row {
	const none = "Content-Length: 0"
	rows := []row{
		deny("S12", "a DELETE with a body", asking("DELETE /files/a", "Content-Length: 3")+"abc"),
		deny("S12", "a HEAD with a body, expecting 100", asking("HEAD "+adminPath, "Expect: 100-continue", "Content-Length: 3")+"abc"),
		{id: "S12", what: "a GET that the rule allows, with bytes behind it that nothing frames", in: get("x") + "{\"not\": \"framed\"}\r\n\r\n" + smuggled, want: exactly, may: []string{"GET /files/x"}},
		deny("S13", "a denied request that waits with its length", asking("DELETE /files/a", "Expect: 100-continue", "Content-Length: 1000")),
		deny("S13", "a denied request that waits with its chunks", asking("DELETE /files/a", "Expect: 100-continue", "Transfer-Encoding: chunked")),
		deny("S13", "another expectation", chat("Expect: 200-ok", "Content-Length: 3")+"abc"),
		deny("S13", "two expectations", chat("Expect: 100-continue, 100-continue", "Content-Length: 3")+"abc"),
		deny("S13", "two fields of one expectation", chat("Expect: 100-continue", "Expect: 100-continue", "Content-Length: 3")+"abc"),
		{id: "S14", what: "a denied request behind an allowed one", in: get("1") + smuggled, want: exactly, may: []string{"GET /files/1"}},
		{id: "S14", what: "an allowed request behind what cannot be read", in: get("1") + asking("GET /files/2", "X : y") + get("3"), want: exactly, may: []string{"GET /files/1"}},
		{id: "S14", what: "another host behind an allowed request", in: get("1") + "GET /files/2 HTTP/1.1\r\nHost: {denied}\r\n\r\n" + get("3"), want: exactly, may: []string{"GET /files/1"}},
		{id: "S14", what: "a request in a body", in: post("GET /admin HTTP/1.1\r\nHost: h\r\n\r\n") + get("2"), want: exactly, may: []string{chatLine, "GET /files/2"}},
		{id: "S14", what: "two allowed requests", in: post("a") + get("2"), want: exactly, may: []string{chatLine, "GET /files/2"}},
	}
	for what, line := range map[string]string{
		"a NUL in a value": "X: a\x00b", "a NUL in a name": "X\x00Y: a", "a VT in a value": "X: a\vb", "a VT before a value": "X:\va",
		"an ESC in a value": "X: \x1b[2J", "a DEL in a value": "X: a\x7fb", "a space before the colon": "X : a", "a tab before the colon": "X\t: a",
		"an empty name": ": a", "no colon": "Just a line", "a space in a name": "X Y: a", "a name that is quoted": "\"X\": a",
		"a name beyond ASCII": "X\xc3\xa9: a", "a slash in a name": "X/Y: a", "two hosts": "Host: {denied}", "one host twice": "Host: {host}",
		"two kinds of content": "Content-Type: text/plain\r\nContent-Type: application/json", "two authorizations": "Authorization: a\r\nAuthorization: b",
		"a space before the colon of a second host": "Host : {denied}",
	} {
		rows = append(rows, deny("S16", what, chat(line, none)))
	}
	return append(rows,
		deny("S16", "a leading space", "POST "+chatPath+" HTTP/1.1\r\n X: a\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "no host", "POST "+chatPath+" HTTP/1.1\r\nX: a\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "two spaces in the request line", "POST  "+chatPath+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "a tab in the request line", "POST\t"+chatPath+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "a NUL in the method", "PO\x00ST "+chatPath+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "no version", "POST "+chatPath+"\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "a version of 1.2", "POST "+chatPath+" HTTP/1.2\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "a version of 2.0", "POST "+chatPath+" HTTP/2.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
		deny("S16", "a method in lower case", "post "+chatPath+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
	)
}

// chunkRows are S10 and S18: the head is allowed and may be gone when the chunks
// turn out to be none.
func chunkRows() []row {
	var rows []row
	for what, body := range map[string]string{
		"a size of 0x3": "0x3\r\nabc\r\n0\r\n\r\n", "a signed size": "+3\r\nabc\r\n0\r\n\r\n", "a negative size": "-3\r\nabc\r\n0\r\n\r\n",
		"a space after the size": "3 \r\nabc\r\n0\r\n\r\n", "a space before the size": " 3\r\nabc\r\n0\r\n\r\n", "a tab after the size": "3\t\r\nabc\r\n0\r\n\r\n",
		"an underscore in the size": "0_2e\r\n" + strings.Repeat("a", 0x2e) + "\r\n0\r\n\r\n", "no size": "\r\nabc\r\n0\r\n\r\n",
		"no size before an extension": ";a=b\r\nabc\r\n0\r\n\r\n", "17 digits": "00000000000000003\r\nabc\r\n0\r\n\r\n",
		"a size of 2^64 + 3": "10000000000000003\r\nabc\r\n0\r\n\r\n", "a size of 2^63": "8000000000000000\r\nabc\r\n0\r\n\r\n",
		"a bare LF after the size": "3\nabc\r\n0\r\n\r\n", "a bare LF in an extension": "3;a=b\nabc\r\n0\r\n\r\n", "a bare CR in an extension": "3;a=\rb\r\nabc\r\n0\r\n\r\n",
		"a request behind a bare LF in an extension": "2;\nxx\r\n3f\r\n0\r\n\r\n",
		"a chunk longer than its size":               "3\r\nabcd\r\n0\r\n\r\n", "a chunk that ends in LF": "3\r\nabc\n0\r\n\r\n", "a chunk that ends in another two bytes": "3\r\nabcXX0\r\n\r\n",
		"an extension of 32 KiB":       "3;" + strings.Repeat("a", 32<<10) + "\r\nabc\r\n0\r\n\r\n",
		"a last chunk without its end": "3\r\nabc\r\n0\r\nDELETE /admin HTTP/1.1\r\n\r\n", "a last chunk that ends in LF": "3\r\nabc\r\n0\n\n",
	} {
		rows = append(rows, cuts("S10", what, chunked(body)))
	}
	rows = append(rows, row{id: "S10", what: "extensions are dropped", in: chunked("3;a=b;c=\"d e\"\r\nabc\r\n0;last\r\n\r\n"), want: exactly, may: []string{chatLine}})
	for _, trailer := range []string{
		"Content-Length: 3", "Content_Length: 3", "Transfer-Encoding: chunked", "Host: {denied}", "Authorization: Bearer x", "Cookie: a=b",
		"Content-Type: text/plain", "Content-Encoding: gzip", "Connection: close", "Expect: 100-continue", "Proxy-Authorization: x", "X-Forwarded-Host: {denied}",
		"X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "X : a", " X: a", "X: a\x00b", ": a", "no colon",
	} {
		rows = append(rows, cuts("S18", fmt.Sprintf("the trailer %q", trailer), chunked("3\r\nabc\r\n0\r\n"+trailer+"\r\n\r\n")))
	}
	return rows
}

// bodyLengthRows are S11: less than was declared, or more.
func bodyLengthRows() []row {
	short := func(what, in, ending string) row {
		return row{id: "S11", what: what, in: in, ending: ending, want: unfinished}
	}
	return []row{
		short("a body that stops short", chat("Content-Length: 10")+"abcd", "fin"),
		short("a body that stops short, the client gone", chat("Content-Length: 10")+"abcd", "gone"),
		short("a body of which nothing comes", chat("Content-Length: 10"), "fin"),
		short("chunks without the last", chunked("4\r\nabcd\r\n"), "fin"),
		short("chunks without the last, the client gone", chunked("4\r\nabcd\r\n"), "gone"),
		short("a chunk that stops short", chunked("a\r\nabcd"), "fin"),
		short("a last chunk without its empty line", chunked("4\r\nabcd\r\n0\r\n"), "fin"),
		{id: "S11", what: "a body that is longer", in: chat("Content-Length: 3") + "abc<surplus>\r\n\r\n" + smuggled, want: exactly, may: []string{chatLine}},
	}
}

// answerRows are S19: upstreams whose answers have two readings.
func answerRows() []row {
	const (
		ok    = "HTTP/1.1 200 OK\r\n"
		whole = ok + "Content-Length: 2\r\n\r\nok"
		more  = ok + "Content-Length: 8\r\n\r\npoisoned"
	)
	var rows []row
	for what, answer := range map[string]string{
		"a length and chunks": ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + more, "two lengths": ok + "Content-Length: 2\r\nContent-Length: 5\r\n\r\nok" + more,
		"one length twice": ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", "a length of 2,2": ok + "Content-Length: 2,2\r\n\r\nok",
		"a length of 0x2": ok + "Content-Length: 0x2\r\n\r\nok", "a negative length": ok + "Content-Length: -2\r\n\r\nok", "a length of +2": ok + "Content-Length: +2\r\n\r\nok",
		"another coding": ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "two codings": ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks on HTTP/1.0":      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"endless interim answers": strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 100) + whole,
		"a 101 nobody asked for":  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "a bare 101": "HTTP/1.1 101 Switching Protocols\r\n\r\n" + more,
		"a body on a 204": "HTTP/1.1 204 No Content\r\n\r\n" + more, "chunks on a 204": "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + more,
		"a body on a 304": "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok" + more, "an answer behind the answer": whole + more, "a byte behind the answer": whole + "\n",
		"a bare LF in the head": "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "a folded field": ok + "X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
		"a space before the colon": ok + "Content-Length : 2\r\n\r\nok", "a NUL in a field": ok + "X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
		"a CR and a field within a field": ok + "X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", "a status of two digits": "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
		"a status of 999": "HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok", "a banner of SSH": "SSH-2.0-OpenSSH_9.7\r\n", "a head of 100 KB": ok + "X: " + strings.Repeat("x", 100_000) + "\r\n\r\n",
		"a chunk size of 0x3": ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0x3\r\nabc\r\n0\r\n\r\n", "a chunk longer than its size": ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
		"a trailer that is a length": ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
	} {
		rows = append(rows, row{id: "S19", what: what, in: get("a"), then: get("honest"), answer: answer, want: guarded})
	}
	for what, answer := range map[string]string{
		"a body that stops short": ok + "Content-Length: 10\r\n\r\nabc", "chunks without the last": ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		rows = append(rows, row{id: "S19", what: what, in: get("a"), answer: answer, cut: true, want: guarded})
	}
	return rows
}
