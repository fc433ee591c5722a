package proxy_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// cutAnswers answers with a body that stops short of its length or of its last
// chunk, or that goes on until the agent has left.
func cutAnswers(c *enginetest.OriginConn, r enginetest.Seen) {
	switch r.Path() {
	case "/short":
		c.Printf("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n%s", strings.Repeat("s", 50_000))
		c.Cut()
	case "/chunks":
		c.Printf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
		c.Cut()
	case "/endless":
		c.Printf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for err := error(nil); err == nil; {
			_, err = c.Write([]byte("4\r\nmore\r\n"))
		}
	default:
		c.Reply(200, "whole")
	}
}

// TestDigestsOfBodiesThatWereCut has bodies of both directions cut by either
// side: the record says truncated, and its digest is of the part that came.
func TestDigestsOfBodiesThatWereCut(t *testing.T) {
	e, c := raw(t, enginetest.Host{Answer: cutAnswers})
	c.Send(line(e, "POST", "/whole", "Content-Length: 5") + "\r\nhello")
	wantStatus(t, "whole bodies", c, 200)
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/whole", "truncated": nil, "request_sha256": sha256Hex("hello"), "response_sha256": sha256Hex("whole")})
	e.NoRecord(t, enginetest.Fields{"phase": "decision", "request_sha256": sha256Hex("hello")})

	for path, body := range map[string]string{"/short": strings.Repeat("s", 50_000), "/chunks": "abc"} {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(line(e, "GET", path) + "\r\n")
		if r, err := c.TryReply("GET"); err == nil && r.Status == 200 {
			t.Errorf("%s looks whole: %d bytes", path, len(r.Body))
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": path, "reason": "upstream_truncated", "truncated": true,
			"response_bytes": len(body), "response_sha256": sha256Hex(body)})
	}

	c = e.RawTunnel(t, "allowed.test", nil)
	c.Send(line(e, "GET", "/endless") + "\r\n")
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	left := e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/endless", "status_code": 200, "truncated": true})
	var n int
	if _, err := fmt.Sscan(left.Get("response_bytes"), &n); err != nil || n%4 != 0 || left.Get("response_sha256") != sha256Hex(strings.Repeat("more", n/4)) {
		t.Errorf("%v: %s", err, left.Line)
	}

	c = e.RawTunnel(t, "allowed.test", nil)
	c.Send(line(e, "POST", "/left", "Content-Length: 10") + "\r\nhalf")
	_ = c.Close()
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/left", "reason": "client_aborted",
		"truncated": true, "request_bytes": 4, "request_sha256": sha256Hex("half")})
	h2 := dialH2(t, e, "allowed.test")
	stream := h2.open(false, ":method: POST", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: /left-h2", "content-length: 10")
	h2.data(stream, false, "half")
	e.WantRecord(t, enginetest.Fields{"phase": "decision", "path": "/left-h2"})
	_ = h2.Close()
	left = e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/left-h2", "reason": "client_aborted", "truncated": true})
	if sum := left.Get("request_sha256"); sum != sha256Hex("half") && sum != sha256Hex("") { // the end of the connection may overtake the frame
		t.Error(left.Line)
	}
}

// TestKeyedDigests has a key: digests are HMACs, and each record that has one
// names the key.
func TestKeyedDigests(t *testing.T) {
	key := digest.Keyed{KeyID: "support-1", Key: []byte(strings.Repeat("k", 32))}
	e := enginetest.Start(t, &enginetest.Options{
		Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {Answer: cutAnswers}},
		Proxy: func(c *proxy.Config) { c.DigestKey = key },
	})
	mac := func(body string) string {
		m := hmac.New(sha256.New, key.Key)
		m.Write([]byte(body))
		return hex.EncodeToString(m.Sum(nil))
	}
	for name, client := range bothClients(t, e) {
		if r := e.Do(t, client, "POST", "allowed.test", "/"+name, "a secret that can be guessed"); r.Status != 200 {
			t.Fatalf("%s: %d %s", name, r.Status, r.Body)
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/" + name, "digest_key_id": "support-1",
			"request_sha256": mac("a secret that can be guessed"), "response_sha256": mac("whole")})
		e.WantRecord(t, enginetest.Fields{"phase": "decision", "path": "/" + name, "digest_key_id": nil, "request_sha256": nil})
	}
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send(line(e, "GET", "/chunks") + "\r\n")
	_, _ = c.TryReply("GET")
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/chunks", "truncated": true, "digest_key_id": "support-1", "response_sha256": mac("abc")})
	if log := e.Dump(t); strings.Contains(log, sha256Hex("a secret that can be guessed")) || strings.Contains(log, string(key.Key)) {
		t.Error("the log has a plain digest, or the key")
	}
}
