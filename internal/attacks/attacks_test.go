package main

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTheCatalogueIsWhole has the numbers of the catalogue that bytes can say.
// Those that are missing say why.
func TestTheCatalogueIsWhole(t *testing.T) {
	want := strings.Fields("S1 S2 S3 S4 S5 S8 S9 S10 S11 S12 S13 S14 S16 S18 S19 P1 P2 P3 P4 P5 P6 P7 P8 B1 B2 B3 B4 B5 B6 B7 " +
		"A1 A2 A3 A4 A5 A6 A7 A8 A9 A11 A13 A14 A16 A17 A18 A19 A20 D1 D2 D3 D8 D10 U1 U2 U3 U4 U6 " +
		"T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14 T15 H1 H2 H3 H4 H5 H6 H7 H8 R1 R3 R6")
	// D9 needs a redirect by the kernel (make test-netns), H9 is h2spec's, R2, R5,
	// R7 and R8 are measured by -floods, R9 is a test of package metrics.
	var have []string
	for _, r := range catalogue() {
		if !slices.Contains(have, r.id) {
			have = append(have, r.id)
		}
	}
	if !slices.Equal(have, want) {
		t.Errorf("the rows are of\n%q, want\n%q", have, want)
	}
}

func TestRowsAreToldApart(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range catalogue() {
		name := r.id + " " + r.what
		if r.what == "" || seen[name] {
			t.Errorf("two rows are called %q", name)
		}
		seen[name] = true
	}
}

func TestEveryBadUpstreamHasItsRow(t *testing.T) {
	k, err := makeKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, r := range catalogue() {
		rows[r.id+" "+r.what] = true
	}
	for name := range k.bad {
		if !rows[name] {
			t.Errorf("no row is called %q", name)
		}
	}
}

const hostLine = "Host: c1.api.test:9\r\n"

func TestTheStrictReaderReadsOneSpelling(t *testing.T) {
	s := newStrictReader()
	for _, raw := range []string{
		"GET /files/a HTTP/1.1\r\n" + hostLine + "\r\n",
		"POST /x HTTP/1.1\r\n" + hostLine + "Content-Length: 3\r\n\r\nabc",
		"POST /x HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Checksum: 1\r\n\r\n",
	} {
		found, err := s.all(raw + raw)
		if err != nil || len(found) != 2 || !found[1].complete {
			t.Errorf("%q twice: %+v, %v", raw, found, err)
		}
		for i := 1; i < len(raw); i++ {
			found, err := s.all(raw[:i])
			if err != nil || len(found) != 1 || found[0].complete {
				t.Fatalf("%q: %+v, %v", raw[:i], found, err)
			}
		}
	}
}

func TestTheStrictReaderRefusesTwoReadings(t *testing.T) {
	s := newStrictReader()
	for _, raw := range []string{
		"GET /a HTTP/1.1\n" + hostLine + "\r\n", "GET  /a HTTP/1.1\r\n" + hostLine + "\r\n", "GET /a HTTP/1.0\r\n" + hostLine + "\r\n", "get /a HTTP/1.1\r\n" + hostLine + "\r\n",
		"GET /a HTTP/1.1\r\n\r\n", "GET /a HTTP/1.1\r\n" + hostLine + hostLine + "\r\n", "GET /a HTTP/1.1\r\n" + hostLine + "X : a\r\n\r\n", "GET /a HTTP/1.1\r\n" + hostLine + " X: a\r\n\r\n",
		"GET /a HTTP/1.1\r\n" + hostLine + "X: a\rb\r\n\r\n", "GET /a HTTP/1.1\r\n" + hostLine + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET /a HTTP/1.1\r\n" + hostLine + "Content-Length: 03\r\n\r\nabc", "GET /a HTTP/1.1\r\n" + hostLine + "Content_Length: 3\r\n\r\nabc",
		"GET /a HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\n\r\n", "GET /a HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: b\r\n\r\n",
		"GET /a HTTP/1.1\r\n" + hostLine + "Upgrade: h2c\r\n\r\n",
	} {
		if found, err := s.all(raw); err == nil {
			t.Errorf("%q was read as %+v", raw, found)
		}
	}
}

func TestTheJudgeBelievesTheUpstreamAlone(t *testing.T) {
	j := judge{newStrictReader()}
	const honest = "POST " + chatPath + " HTTP/1.1\r\n" + hostLine + "\r\n"
	says403 := got{answer: []byte("HTTP/1.1 403 Forbidden\r\n\r\n"), closed: true}
	for _, row := range []struct {
		what  string
		row   row
		conns []captured
		want  verdict
	}{
		{"nothing came", row{want: nothing}, nil, refused},
		{"a connection without a byte", row{want: nothing}, []captured{{tls: true}}, refused},
		{"a refusal behind half a head", row{want: nothing}, []captured{{tls: true, raw: []byte(honest[:20])}}, through},
		{"a clean request in its place", row{want: nothing}, []captured{{tls: true, raw: []byte(honest)}}, normalised},
		{"another host's", row{want: nothing}, []captured{{tls: true, raw: []byte(strings.Replace(honest, "c1", "c2", 1))}}, through},
		{"a smuggled request behind it", row{want: nothing}, []captured{{tls: true, raw: []byte(honest + strings.Replace(smuggled, "{host}", "c1.api.test:9", 1))}}, through},
		{"a method override", row{want: nothing}, []captured{{tls: true, raw: []byte(strings.Replace(honest, "\r\n\r\n", "\r\nX-HTTP-Method: DELETE\r\n\r\n", 1))}}, through},
		{"a proxy's own X-Forwarded-Host", row{want: nothing}, []captured{{tls: true, raw: []byte(strings.Replace(honest, "\r\n\r\n", "\r\nX-Forwarded-"+hostLine+"\r\n", 1))}}, normalised},
		{"an upstream that must not be trusted", row{id: "T9", want: nothing}, []captured{{tls: true, raw: []byte(honest)}}, through},
		{"bytes without TLS", row{want: nothing}, []captured{{raw: []byte("SSH-2.0")}}, through},
		{"a connection to the inside", row{want: nothing}, []captured{{inside: true}}, through},
		{"a body without its end", row{want: unfinished}, []captured{{tls: true, raw: []byte("POST " + chatPath + " HTTP/1.1\r\n" + hostLine + "Content-Length: 9\r\n\r\nabc")}}, refused},
		{"what may arrive", row{want: exactly, may: []string{chatLine}}, []captured{{tls: true, raw: []byte(honest)}}, refused},
		{"bytes behind an upgrade", row{class: socket, want: exactly, may: []string{"GET /socket"}}, []captured{{tls: true, raw: []byte(
			"GET /socket HTTP/1.1\r\nHost: c1.socket.test:9\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\nDELETE /admin")}}, through},
	} {
		c := caseOf{row: row.row, n: 1, port: 9}
		if f := j.of(c, row.conns, says403); f.verdict != row.want {
			t.Errorf("%s: %s %s, want %s", row.what, f.verdict, f.why, row.want)
		}
	}
}

func TestAnAnswerThatLooksCutIsGuarded(t *testing.T) {
	j := judge{newStrictReader()}
	arrived := []captured{{tls: true, raw: []byte("GET /files/a HTTP/1.1\r\n" + hostLine + "\r\n")}}
	for answer, want := range map[string]verdict{
		"":                                 refused,
		"HTTP/1.1 502 Bad Gateway\r\n\r\n": refused,
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc":                                                    refused,
		"HTTP/1.1 200 OK\r\nContent-Le":                                                                      refused,
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc":                                                    normalised,
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 9\r\n\r\nabc":                               through,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned": through,
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":                                                           through,
	} {
		c := caseOf{row: row{want: guarded}, n: 1, port: 9}
		if f := j.of(c, arrived, got{answer: []byte(answer)}); f.verdict != want {
			t.Errorf("%q: %s %s, want %s", answer, f.verdict, f.why, want)
		}
	}
}

func TestTheUpstreamAnswersWhenARequestIsWhole(t *testing.T) {
	d := &dialogue{}
	for _, raw := range []string{
		"GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
	} {
		if n := d.whole([]byte(raw + "GET")); n != len(raw) {
			t.Errorf("%q ends at %d, not %d", raw, n, len(raw))
		}
	}
}

// TestTheTableIsOfTheseRows fails when the rows changed and `make attacks` was
// not run.
func TestTheTableIsOfTheseRows(t *testing.T) {
	f, err := os.Open("ATTACKS.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if part := strings.Split(lines.Text(), " | "); len(part) > 2 {
			text[part[0]+" "+part[1]] = true
		}
	}
	for _, r := range catalogue() {
		if !text["| "+r.id+" "+cell(r.what)] {
			t.Errorf("ATTACKS.md has no row %s %s: run make attacks", r.id, r.what)
		}
	}
}
