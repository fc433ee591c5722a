package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

func TestGeneratedCasesAreManyAndOfEveryKind(t *testing.T) {
	kinds := map[string]int{}
	for _, r := range generated() {
		kinds[r.id]++
		if r.sent == 0 {
			t.Fatalf("%s %s: how many requests are in it?", r.id, r.what)
		}
	}
	total := 0
	for _, n := range kinds {
		total += n
	}
	if total < 5000 || len(kinds) < 12 {
		t.Errorf("%d cases of %d kinds: %v", total, len(kinds), kinds)
	}
}

func TestAClientHelloInPiecesIsTheSameMessage(t *testing.T) {
	hello := []byte(clientHello(sni("c1.api.test")))
	for at := 1; at < len(hello)+3; at++ {
		c := caseOf{row: row{at: at}}
		if got := bytes.Join(c.inSegments(hello), nil); !bytes.Equal(got, hello) {
			t.Fatalf("in segments at %d: %x", at, got)
		}
		var message []byte
		for rest := c.inRecords(hello)[0]; len(rest) > 0; {
			n := int(rest[3])<<8 | int(rest[4])
			if n == 0 {
				t.Fatalf("in records at %d: an empty record", at)
			}
			message, rest = append(message, rest[5:5+n]...), rest[5+n:]
		}
		if !bytes.Equal(message, hello[5:]) {
			t.Fatalf("in records at %d: %x", at, message)
		}
	}
}

func TestTheOracleCountsRequests(t *testing.T) {
	j := judge{newStrictReader()}
	const one = "GET /files/a HTTP/1.1\r\n" + hostLine + "\r\n"
	for _, row := range []struct {
		what string
		sent int
		body bool
		raw  string
		want verdict
	}{
		{"nothing", 1, false, "", refused},
		{"one of one", 1, false, one, refused},
		{"two of one", 1, false, one + one, through},
		{"one of two", 2, false, one, refused},
		{"half a head", 1, false, one[:20], through},
		{"half a body, where one may break off", 1, true, strings.Replace(one, "\r\n\r\n", "\r\nContent-Length: 3\r\n\r\na", 1), refused},
		{"another path", 1, false, strings.Replace(one, "/files/a", adminPath, 1), through},
	} {
		c := caseOf{n: 1, port: 9}
		c.want, c.sent, c.body = either, row.sent, row.body
		f := j.of(c, []captured{{tls: true, raw: []byte(row.raw)}}, got{})
		if f.verdict != row.want {
			t.Errorf("%s: %s %s, want %s", row.what, f.verdict, f.why, row.want)
		}
	}
}

func TestTheLogMustSayWhatArrived(t *testing.T) {
	const line, sum = "GET /files/a", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	arrived := []request{{method: "GET", target: "/files/a?x=1", complete: true}}
	of := func(decided, ended, allowed int) *logged {
		return &logged{decisions: map[string]int{line: decided}, ends: map[string]int{line + " " + sum: ended}, allowed: map[string]int{line + " " + sum: allowed}}
	}
	if err := of(1, 1, 1).disagrees(arrived); err != nil {
		t.Error(err)
	}
	for what, l := range map[string]*logged{"nothing": nil, "no decision": of(0, 1, 1), "no end": of(1, 0, 0), "more than arrived": of(2, 2, 2)} {
		if l.disagrees(arrived) == nil {
			t.Errorf("a log with %s agrees", what)
		}
	}
}

func TestOriginsSayWhatTheyRead(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addr, _, stop, err := startGo(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	raw := "POST /files/%41?x HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	want, err := newStrictReader().all(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := stream{raw, want}
	got, err := replay(addr, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.compare(got); err != nil {
		t.Error(err)
	}
	got[0].Body = []byte("another")
	if s.compare(got) == nil {
		t.Error("another body is taken for the same")
	}
	if _, err := replay(addr, stream{raw: "GET / HTTP/1.1\r\n" + hostLine + "Connection: close\r\n\r\n"}); err == nil {
		t.Error("an origin that does not read the last request goes unnoticed")
	}
}
