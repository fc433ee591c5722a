package main

import (
	"fmt"
	"strconv"
	"strings"
)

// authorityRows are A1 to A3, A6, A16 and A20: names that do not agree.
func authorityRows() []row {
	tunnel := func(id, what string, r row) row {
		r.id, r.what, r.want = id, what, nothing
		r.need |= needConnect
		if r.in == "" {
			r.in = chat("Content-Length: 0") + smuggled
		}
		return r
	}
	toDenied := "POST " + chatPath + " HTTP/1.1\r\nHost: {denied}\r\nContent-Length: 0\r\n\r\n" + smuggled
	rows := []row{
		tunnel("A1", "CONNECT allowed, SNI and Host another", row{sni: "{deniedname}", in: toDenied}),
		tunnel("A1", "CONNECT allowed, SNI another", row{sni: "{deniedname}"}),
		tunnel("A1", "CONNECT allowed, SNI another that is allowed too", row{sni: "{othername}"}),
		tunnel("A1", "CONNECT another, SNI and Host allowed", row{connect: "{deniedname}:{port}"}),
		tunnel("A1", "CONNECT to an address, SNI and Host allowed", row{connect: "127.0.0.2:{port}"}),
		tunnel("A1", "a CONNECT whose Host is another", row{head: "CONNECT {deniedname}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n"}),
		tunnel("A1", "an allowed CONNECT whose Host is another", row{head: "CONNECT {name}:{port} HTTP/1.1\r\nHost: {denied}\r\n\r\n"}),
		tunnel("A6", "an allowed name below another", row{connect: "{name}.evil.test:{port}", sni: "{name}.evil.test", in: "POST " + chatPath + " HTTP/1.1\r\nHost: {name}.evil.test:{port}\r\nContent-Length: 0\r\n\r\n"}),
		tunnel("A6", "the apex of a wildcard", row{connect: "api.test:{port}", sni: "api.test", in: "POST " + chatPath + " HTTP/1.1\r\nHost: api.test:{port}\r\nX-Case: {name}\r\nContent-Length: 0\r\n\r\n"}),
		tunnel("A6", "a name that ends like an allowed one", row{connect: "evilapi.test:{port}", sni: "evilapi.test", in: "POST " + chatPath + " HTTP/1.1\r\nHost: evilapi.test:{port}\r\nX-Case: {name}\r\nContent-Length: 0\r\n\r\n"}),
		tunnel("A16", "a CONNECT inside the tunnel", row{in: "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n" + smuggled}),
		tunnel("A16", "a CONNECT to another inside the tunnel", row{in: "CONNECT {deniedname}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n" + smuggled}),
		tunnel("A20", "a CONNECT to what no rule allows", row{connect: "{deniedname}:{port}", sni: "{deniedname}", in: toDenied}),
		tunnel("A20", "a CONNECT with a body", row{head: "CONNECT {name}:{port} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\n"}),
		tunnel("A20", "a CONNECT with chunks", row{head: "CONNECT {name}:{port} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"}),
	}
	for _, host := range []string{
		"{denied}", "{deniedname}", "{name}", "{name}:443", "{name}:80", "sub.{host}", "{name}.evil.test:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost:{port}", "",
		"{host}, {denied}", "user@{host}", "{host}/../x", "{denied}@{host}", "{host}#", "{denied}\t{host}",
	} {
		rows = append(rows, deny("A2", fmt.Sprintf("a Host of %q", host), "POST "+chatPath+" HTTP/1.1\r\nHost: "+host+"\r\nX-Case: {name}\r\nContent-Length: 0\r\n\r\n"))
	}
	for what, raw := range map[string]string{
		"HTTP": "DELETE /admin HTTP/1.1\r\nHost: {host}\r\n\r\n", "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{name}", "SSH": "SSH-2.0-{name}\r\n", "SMTP": "EHLO {name}\r\n",
		"Redis": "*1\r\n$4\r\nPING {name}\r\n", "PostgreSQL": "\x00\x00\x00\x08\x04\xd2\x16\x2f{name}", "SOCKS 5": "\x05\x01\x00{name}", "an SSLv2 hello": "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10{name}",
	} {
		rows = append(rows, row{id: "A17", what: what + " inside a tunnel", way: inTheOpen, in: raw, want: nothing, need: needConnect})
	}
	return rows
}

// spellingRows are A4, A5, A7 and A8 in a CONNECT, and A5 in SNI and Host.
func spellingRows() []row {
	var rows []row
	connect := func(id, target string) {
		rows = append(rows, row{id: id, what: "a CONNECT to " + short(target), connect: target, in: chat("Content-Length: 0") + smuggled, want: nothing, need: needConnect})
	}
	long := strings.Repeat("a", 63) + "."
	for _, name := range []string{
		"{name}..", "x..{name}", ".{name}", "[{name}]", "\uff43{name}", "b\u00fccher.{name}", "\u200d{name}", "a\u3002{name}", "xn--a\u00e9.{name}", "xn--.{name}",
		long + long + long + long + "{name}", strings.Repeat("a", 64) + ".{name}", "-a.{name}", "a-.{name}",
	} {
		connect("A4", name+":{port}")
	}
	for _, target := range []string{"{NAME}:{port}", "{name}.:{port}"} {
		rows = append(rows, row{id: "A4", what: fmt.Sprintf("a CONNECT to %q has one canonical form", target), connect: target, in: chat("Content-Length: 0"), want: atMost, may: []string{chatLine}, need: needConnect})
	}
	odd := []string{
		"evil.test\x00.{name}", "{name}\x00", "{name}\x00.evil.test", "{name}\n", "evil.test\n{name}", "{name},evil.test", "*.{name}", "*", "all\xff.{name}", "\u202a{name}", "{name} ", " {name}", "{name}/",
		"{name}@evil.test", "[{name}]", "x%2e{name}", "al\x1b[2J.{name}",
	}
	for _, name := range odd {
		connect("A5", name+":{port}")
		rows = append(rows, row{id: "A5", what: fmt.Sprintf("an SNI of %q", name), sni: name, in: chat("Content-Length: 0") + smuggled, want: nothing})
		if strings.TrimSpace(name) != "{name}" { // white space around a value is HTTP's, not the name's
			rows = append(rows, deny("A5", fmt.Sprintf("a Host of %q", name), "POST "+chatPath+" HTTP/1.1\r\nHost: "+name+":{port}\r\nX-Case: {name}\r\nContent-Length: 0\r\n\r\n"))
		}
	}
	for _, port := range []string{"", ":", ":0{port}", ":+{port}", ":-1", ":99999", ":65536", ":0", ":{port}:80", ": {port}", ":0x1bb", ":{port}/", ":https", ":{port}.0", ":4_43"} {
		connect("A7", "{name}"+port)
	}
	for _, addr := range []string{
		"127.1", "127.0.1", "0x7f000001", "0x7f.0.0.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "127.0.0.1.", "127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "[::1%lo]", "[::1%25lo]", "0",
	} {
		connect("A8", addr+":{port}")
	}
	return rows
}

// short is text quoted, or its beginning and its length.
func short(text string) string {
	if len(text) > 60 {
		return fmt.Sprintf("%.20q and so on, %d bytes", text, len(text))
	}
	return strconv.Quote(text)
}

// helloRows are A9 to A14: the ClientHello.
func helloRows() []row {
	hello := func(id, what string, f func(name, denied string) string) row {
		return row{id: id, what: what, way: byHello, hello: f, want: nothing}
	}
	raw := func(text string) func(string, string) string { return func(string, string) string { return text } }
	rows := []row{
		{id: "A9", what: "no SNI", sni: "-", in: chat("Content-Length: 0") + smuggled, want: nothing},
		hello("A9", "an SNI that is an address", raw(clientHello(sni("127.0.0.1")))),
		hello("A9", "an SNI that is a number", raw(clientHello(sni("2130706433")))),
		hello("A9", "an SNI of 256 bytes", func(name, _ string) string { return clientHello(sni(strings.Repeat("a.", 122) + name)) }),
		hello("A9", "an SNI of 60 KiB", raw(clientHello(sni(strings.Repeat("a", 60<<10))))),
		hello("A9", "an empty SNI", raw(clientHello(sni("")))),
		hello("A9", "two names in the SNI", func(name, denied string) string { return clientHello(sni(name, denied)) }),
		hello("A9", "two SNI extensions", func(name, denied string) string { return clientHello(sni(denied), sni(name)) }),
		hello("A17", "a handshake record of noise", raw("\x16\x03\x01\x00\x04\x63\x00\x00\x00")),
		hello("A17", "a ServerHello", raw("\x16\x03\x03\x00\x04\x02\x00\x00\x00")),
		hello("A17", "a record that is too long", raw("\x16\x03\x01\xff\xff"+strings.Repeat("\x01", 1<<16))),
		{id: "A11", what: "a ClientHello in pieces of a byte works", pace: "pieces", in: chat("Content-Length: 0"), want: exactly, may: []string{chatLine}},
		{id: "A13", what: "no ALPN is HTTP/1.1", alpn: "-", in: chat("Content-Length: 0"), want: exactly, may: []string{chatLine}},
		{id: "A13", what: "an ALPN of acme-tls/1 alone", alpn: "acme-tls/1", in: chat("Content-Length: 0") + smuggled, want: nothing},
		{id: "A13", what: "an ALPN of h3 alone", alpn: "h3", in: chat("Content-Length: 0") + smuggled, want: nothing},
		{id: "A13", what: "an ALPN of 200 that nobody knows", alpn: "p" + strings.Repeat(",ssh", 199), in: chat("Content-Length: 0") + smuggled, want: nothing},
		{id: "A14", what: "ECH in a passthrough", class: pinned, way: byHello, hello: func(name, _ string) string { return clientHello(sni(name), ech()) }, want: nothing, need: needPin},
		{id: "A14", what: "another name in a passthrough", class: pinned, sni: "{deniedname}", in: chat("Content-Length: 0"), want: nothing, need: needPin},
		{id: "A14", what: "no name in a passthrough", class: pinned, sni: "-", in: chat("Content-Length: 0"), want: nothing, need: needPin},
	}
	for i := range rows {
		if rows[i].way == byHello || rows[i].need&needPin != 0 {
			rows[i].need |= needConnect // HAProxy's certificate goes by SNI: there is nothing for it to disagree with
		}
	}
	return rows
}

// overrideRows are A18 and A19.
func overrideRows() []row {
	var rows []row
	for _, line := range []string{
		"X-HTTP-Method-Override: DELETE", "x-http-method-override: delete", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "X_HTTP_Method_Override: DELETE",
		"X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Host: {denied}", "X-Original-Host: {denied}", "X-Host: {denied}", "X-Forwarded-Prefix: /admin",
	} {
		rows = append(rows, deny("A19", line, chat(line, "Content-Length: 0")))
	}
	for _, q := range []string{"_method=DELETE", "a=1&_method=delete", "%5fmethod=DELETE", "_METHOD=DELETE", "a;_method=DELETE"} {
		r := deny("A19", "the query "+q, asking(chatLine+"?"+q, "Content-Length: 0"))
		rows = append(rows, r)
	}
	return append(rows,
		row{id: "A18", what: "a request to the proxy's own port", way: atPort, in: "GET http://{self}/files/a HTTP/1.1\r\nHost: {self}\r\n\r\n", want: nothing, need: needPort},
		row{id: "A18", what: "a request to the Kubernetes API", way: atPort, in: "GET http://kubernetes.default.svc/api HTTP/1.1\r\nHost: kubernetes.default.svc\r\n\r\n", want: nothing, need: needPort},
	)
}
