package main

import "fmt"

// pathRows are P1 to P5: paths with two readings. What makes them worth sending
// is that a proxy which decodes or cleans a path before it matches takes each
// for one that a rule allows.
func pathRows() []row {
	var rows []row
	add := func(id string, lines ...string) {
		for _, line := range lines {
			rows = append(rows, deny(id, fmt.Sprintf("%.70q", line), asking(line, "Content-Length: 0")))
		}
	}
	add("P1", "GET /files/.", "GET /files/..", "GET /files/../admin", "GET /files/./a", "GET /files/a/../../admin", "GET /files/%2e%2e/admin", "GET /files/.%2E/admin", "GET /files/%2e",
		"GET /files/..;/admin", "GET /files/..;x=y/admin", "GET /files/%2e%2e;/admin", "GET /files/..%3b/admin", "GET /files/..?x", "POST /v1/./chat/completions", "POST /x/../v1/chat/completions",
		"POST /v1/chat/completions/.", "POST /v1/chat/completions/x/..", "POST /v1/%2e/chat/completions", "POST /v1/chat/completions/../../../admin")
	add("P2", "POST /v1/chat%2fcompletions", "POST /v1%2Fchat%2Fcompletions", "POST /v1/chat%5ccompletions", "POST /v1\\chat\\completions", "POST /%76%31%2fchat/completions",
		"GET /files/..%2fadmin", "GET /files/..%2f..%2fadmin", "GET /files/..%5cadmin", "GET /files/..\\admin", "GET /files/a%2fb", "GET /files%2fa", "GET /files/%2f%2fadmin")
	add("P3", "GET /files/a%00", "GET /files/a%00.png", "GET /files/a%0d%0aX:%20y", "GET /files/a%0D%0A%0D%0AGET%20/admin", "GET /files/a%7fb", "GET /files/a%1bb", "GET /files/a%c2%85",
		"POST /v1/chat/completions%00", "POST /v1/chat/completions%0a", "POST /v1/chat/completions%20")
	for _, b := range []string{"\x00", "\x01", "\t", "\v", "\x7f", "\x80", "\xff", "\xc3\xa9", " "} {
		rows = append(rows, deny("P3", fmt.Sprintf("the byte %q in a path", b), asking("GET /files/a"+b+"b")))
	}
	add("P4", "GET //files/a", "GET /files//a", "GET /files//admin", "GET //admin", "POST //v1/chat/completions", "POST /v1//chat/completions", "POST /v1/chat/completions//",
		"GET /files/;a", "GET /files/a;b", "GET /files;x=y/a", "POST /v1/chat/completions;a=b", "POST /v1;a/chat/completions")
	add("P5", "GET /files/a%", "GET /files/a%2", "GET /files/a%zz", "GET /files/a%%32e", "GET /files/a%u002e", "GET /files/%c0%ae%c0%ae/admin", "GET /files/%c0%afadmin", "GET /files/%e0%80%af",
		"GET /files/%80", "GET /files/%ff", "GET /files/%ed%a0%80", "GET /files/%f4%90%80%80", "GET /files/%252e%252e/admin", "GET /files/%252fadmin", "GET /files/%255cadmin", "GET /files/a%2500",
		"GET /files/%25%32%65", "POST /v1/chat%252fcompletions")
	return rows
}

// targetRows are P6: targets that are no path.
func targetRows() []row {
	var rows []row
	for _, target := range []string{
		"*", "http:opaque", "a", "?x", "#", "http:" + chatPath, "{name}" + chatPath, "http://{host}" + chatPath, "https://{host}" + chatPath, "http://{denied}/admin",
		"https://{denied}" + chatPath, "https://user:secret@{host}" + chatPath, chatPath + "#x", chatPath + "?a#b", "/#" + chatPath,
	} {
		rows = append(rows, deny("P6", fmt.Sprintf("the target %s in a tunnel", target), asking("POST "+target, "Content-Length: 0")))
	}
	for what, in := range map[string]string{
		"origin-form":                 "POST " + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
		"ftp":                         "GET ftp://{host}/files/a HTTP/1.1\r\nHost: {host}\r\n\r\n",
		"userinfo":                    "POST http://user:secret@{host}" + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
		"userinfo that looks like us": "POST http://{host}@{denied}" + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
		"no host in the target":       "POST http://" + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
		"a Host that is another":      "POST {at}" + chatPath + " HTTP/1.1\r\nHost: {denied}\r\nContent-Length: 0\r\n\r\n",
		"a target that is another":    "POST http://{denied}" + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
		"http where https is allowed": "POST {at}" + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
		"a fragment behind the host":  "POST {at}#" + chatPath + " HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
	} {
		r := deny("P6", what+" at the proxy port", in)
		r.way, r.need = atPort, needPort
		rows = append(rows, r)
	}
	return rows
}

// queryRows are P7: forwarded byte for byte, or refused; never dropped.
func queryRows() []row {
	var rows []row
	for _, q := range []string{"x=%zz", "%", "x=%2", "x=%00", "x=%u0041", "x=a;y=b", ";", "a=1&a=2", "x=%c3%a9", "x=%ff%fe", "x=/../../etc", "x=%2e%2e%2f", "x[]=1&x[]=2", "x=%0d%0aY:z", "="} {
		rows = append(rows, row{id: "P7", what: fmt.Sprintf("the query %q", q), in: asking("GET /files/a?" + q), want: atMost, may: []string{"GET /files/a?" + q}})
	}
	for _, b := range []string{"\x00", "\x7f", "\t", " b"} {
		rows = append(rows, deny("P7", fmt.Sprintf("%q in a query", b), asking("GET /files/a?x="+b)))
	}
	// P8: one canonical form. The judge's own reading of the path must come to
	// a path that a rule allows.
	for _, p := range []string{"/files/%7ea", "/files/%41", "/files/a%20b", "/files/%c3%a9", "/files/a+b", "/files/@a:b", "/v1/chat/%63ompletions"} {
		method := "GET "
		if p[1] == 'v' {
			method = "POST "
		}
		rows = append(rows, row{id: "P8", what: fmt.Sprintf("the path %q has one canonical form", p), in: asking(method+p, "Content-Length: 0"), want: atMost, may: []string{method + canonical(p)}})
	}
	return rows
}

// canonical is what the rows of P8 come to: unreserved characters decoded,
// triplets in upper case (RFC 3986 section 6.2.2).
func canonical(p string) string {
	switch p {
	case "/files/%7ea":
		return "/files/~a"
	case "/files/%41":
		return "/files/A"
	case "/files/%c3%a9":
		return "/files/%C3%A9"
	case "/v1/chat/%63ompletions":
		return chatPath
	}
	return p
}
