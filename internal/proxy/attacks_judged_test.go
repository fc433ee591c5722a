package proxy_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// judgedPolicy has a rule that reads bodies, one that limits them, and one that
// denies by them.
const judgedPolicy = `
- name: model
  {{to "judged.test"}}
  methods: [POST]
  paths: [/v1/**]
  when: 'request.body.json.model == "good"'
  limits: {requestBytes: 4Ki}
- name: plain
  {{to "judged.test"}}
  methods: [POST]
  paths: [/plain]
  limits: {requestBytes: 4Ki}
`

// judge starts an engine with judgedPolicy.
func judge(t *testing.T) *enginetest.Engine {
	t.Helper()
	return enginetest.Start(t, &enginetest.Options{Policy: judgedPolicy, Hosts: map[string]enginetest.Host{"judged.test": {}}})
}

// bothClients are an HTTP/1.1 and an HTTP/2 client.
func bothClients(t *testing.T, e *enginetest.Engine) map[string]*http.Client {
	t.Helper()
	return map[string]*http.Client{"h1": e.Client(t), "h2": e.ClientH2(t)}
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func gzipped(parts ...string) string {
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(p))
		_ = w.Close()
	}
	return b.String()
}

func deflated(p string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(p))
	_ = w.Close()
	return b.String()
}

const (
	good   = `{"model":"good"}`
	isJSON = "Content-Type: application/json"
)

// refusedBody is a body that has two readings, or none.
type refusedBody struct {
	what, body string
	fields     []string
}

func refusedBodies() []refusedBody {
	body := func(what, text string) refusedBody { return refusedBody{what, text, []string{isJSON}} }
	kind := func(what string, fields ...string) refusedBody { return refusedBody{what, good, fields} }
	coded := func(what, encoding, wire string) refusedBody {
		return refusedBody{what, wire, []string{isJSON, "Content-Encoding: " + encoding}}
	}
	return []refusedBody{
		body("B1 a key twice", `{"model":"good","model":"evil"}`),
		body("B1 a key twice by case folding", `{"model":"good","MODEL":"evil"}`),
		body("B1 a key twice by an escape", `{"model":"good","mode\u006c":"evil"}`),
		body("B1 a key twice, deep", `{"model":"good","x":[{"a":1,"a":2}]}`),
		body("B1 a byte order mark", "\xef\xbb\xbf"+good),
		body("B1 UTF-16", "{\x00\"\x00m\x00\"\x00:\x001\x00}\x00"),
		body("B1 invalid UTF-8", "{\"model\":\"good\",\"x\":\"\xff\"}"),
		body("B1 a lone surrogate", `{"model":"good","x":"\ud800"}`),
		body("B1 NaN", `{"model":"good","x":NaN}`),
		body("B1 a number beyond a double", `{"model":"good","x":1e999}`),
		body("B1 a depth of 65", `{"model":"good","x":`+strings.Repeat("[", 64)+strings.Repeat("]", 64)+`}`),
		body("B1 trailing data", good+good),
		body("B1 a trailing comma", `{"model":"good",}`),
		body("B1 a comment", `{"model":"good"/**/}`),
		body("B1 cut short", `{"model":"good"`),
		body("B1 empty of content", ` `),
		kind("B2 text", "Content-Type: text/plain"),
		kind("B2 none"),

		kind("B2 two in one", "Content-Type: application/json, text/plain"),
		kind("B2 another charset", "Content-Type: application/json; charset=utf-16"),
		kind("B2 two charsets", "Content-Type: application/json; charset=utf-8; charset=utf-7"),
		kind("B3 an unknown encoding", isJSON, "Content-Encoding: zstd"),
		kind("B3 brotli", isJSON, "Content-Encoding: br"),
		coded("B3 not gzip", "gzip", good),
		coded("B3 gzip twice", "gzip, gzip", gzipped(gzipped(good))),
		coded("B3 two members", "gzip", gzipped(good, `{"model":"evil"}`)),
		coded("B3 data behind gzip", "gzip", gzipped(good)+"x"),
		coded("B3 gzip cut short", "gzip", gzipped(good)[:20]),
		coded("B3 deflate without its wrapper", "deflate", "\x03\x00"),
		kind("B6 a form", "Content-Type: application/x-www-form-urlencoded"),
		kind("B6 a form with parts", "Content-Type: multipart/form-data; boundary=x"),
		kind("B6 an odd boundary", `Content-Type: application/json; boundary="a"; charset=utf-8"`),
	}
}

func TestB01ToB06BodiesWithTwoReadings(t *testing.T) {
	e := judge(t)
	for _, row := range refusedBodies() {
		for name, client := range bothClients(t, e) {
			r := e.Do(t, client, "POST", "judged.test", "/v1/x", row.body, row.fields...)
			refused(t, row.what+" over "+name, r, 400, "bad_body")
		}
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "bad_body", "path": "/v1/x"})
	e.NoRecord(t, enginetest.Fields{"event": "egress_allowed"})
	untouched(t, e, "judged.test")
}

// TestB03Bombs has bodies that are small on the wire.
func TestB03Bombs(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: strings.Replace(judgedPolicy, "4Ki", "64Mi", 1),
		Hosts:  map[string]enginetest.Host{"judged.test": {}},
	})
	bomb := `{"model":"good","x":"` + strings.Repeat("x", 16<<20) + `"}`
	for name, wire := range map[string]string{"gzip": gzipped(bomb), "deflate": deflated(bomb)} {
		if len(wire) > 64<<10 {
			t.Fatalf("%s: the bomb has %d bytes", name, len(wire))
		}
		r := e.Do(t, e.Client(t), "POST", "judged.test", "/v1/x", wire, isJSON, "Content-Encoding: "+name)
		refused(t, name, r, 400, "bad_body")
	}
	untouched(t, e, "judged.test")
}

// TestB07WhatWasJudgedIsForwarded compares bytes and digests at the three
// places that have them.
func TestB07WhatWasJudgedIsForwarded(t *testing.T) {
	e := judge(t)
	spaced := " {\n\t\"x\" : [1.0e+2, \"\\u0061\\/\"],\r\n \"model\" : \"good\" }\n"
	n := 0
	for _, row := range []struct{ what, body, encoding string }{
		{"odd spacing", spaced, ""},
		{"gzip", gzipped(good), "gzip"},
		{"deflate", deflated(good), "deflate"},
		{"identity", good, "identity"},
		{"the largest", `{"model":"good","x":"` + strings.Repeat("y", 4096-23) + `"}`, ""},
	} {
		for name, client := range bothClients(t, e) {
			fields := []string{isJSON}
			if row.encoding != "" {
				fields = append(fields, "Content-Encoding: "+row.encoding)
			}
			r := e.Do(t, client, "POST", "judged.test", "/v1/x", row.body, fields...)
			if r.Status != 200 {
				t.Errorf("%s over %s: %d %s %s", row.what, name, r.Status, r.Reason(), r.Body)
				continue
			}
			seen := e.Origin("judged.test").Requests()[n]
			n++
			if string(seen.Body) != row.body || seen.Get("Content-Encoding") != row.encoding {
				t.Errorf("%s over %s: the origin saw %q", row.what, name, seen.Body)
			}
			e.WantRecord(t, enginetest.Fields{"phase": "complete", "request_sha256": sha256Hex(row.body), "request_bytes": len(row.body)})
		}
	}
}

// TestB04LargerThanRequestBytes sends more than the rule takes, in each framing.
func TestB04LargerThanRequestBytes(t *testing.T) {
	e := judge(t)
	host := e.Authority("judged.test")
	over := `{"model":"good","x":"` + strings.Repeat("y", 4096) + `"}`
	head := func(path, more string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n" + more + "\r\n"
	}
	chunked := "Transfer-Encoding: chunked\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(over))
	for what, raw := range map[string]string{
		"judged, its length says so":   head("/v1/x", length) + over,
		"judged, chunked":              head("/v1/x", chunked) + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(over), over),
		"judged, and expects 100":      head("/v1/x", length+"Expect: 100-continue\r\n"),
		"unread, its length says so":   head("/plain", length) + over,
		"unread, and expects 100":      head("/plain", length+"Expect: 100-continue\r\n"),
		"judged, a length without end": head("/v1/x", "Content-Length: 999999999999\r\n"),
	} {
		c := e.RawTunnel(t, "judged.test", nil)
		c.Send(raw)
		refused(t, what, c.Reply("POST"), 413, "body_too_large")
		c.WantClosed()
	}
	refused(t, "decodes to more", e.Do(t, e.Client(t), "POST", "judged.test", "/v1/x", gzipped(over), isJSON, "Content-Encoding: gzip"), 413, "body_too_large")
	c := dialH2(t, e, "judged.test")
	stream := c.open(false, ":method: POST", ":scheme: https", ":authority: "+host, ":path: /v1/x", "content-type: application/json")
	c.data(stream, true, over)
	if a := c.answer(stream); a.Status != 413 || a.Fields["x-aegrail-reason"] != "body_too_large" {
		t.Errorf("HTTP/2 without a length: %s", a)
	}
	untouched(t, e, "judged.test")

	// An unread body of unknown length is on its way when the limit is passed:
	// the origin never sees its end.
	raw := e.RawTunnel(t, "judged.test", nil)
	raw.Send(head("/plain", chunked) + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(over), over))
	refused(t, "unread, chunked", raw.Reply("POST"), 413, "body_too_large")
	raw.WantClosed()
	stream = c.open(false, ":method: POST", ":scheme: https", ":authority: "+host, ":path: /plain")
	c.data(stream, true, over)
	if a := c.answer(stream); a.Status != 413 || a.Fields["x-aegrail-reason"] != "body_too_large" {
		t.Errorf("HTTP/2, unread, without a length: %s", a)
	}
	e.WantRecords(t, 2, enginetest.Fields{"phase": "complete", "path": "/plain", "reason": "body_too_large", "status_code": 413})
	for _, s := range e.Origin("judged.test").Requests() {
		if s.Complete {
			t.Errorf("arrived whole: %s", s)
		}
	}
}

// TestB05ExpectWithABodyRule has the engine answer the expectation itself, when
// the head has passed.
func TestB05ExpectWithABodyRule(t *testing.T) {
	e := judge(t)
	host := e.Authority("judged.test")
	head := func(method, path string, n int) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", method, path, host, n)
	}
	t.Run("the head passes, the body passes", func(t *testing.T) {
		c := e.RawTunnel(t, "judged.test", nil)
		c.Send(head("POST", "/v1/x", len(good)))
		if r := c.Reply("POST"); r.Status != 100 {
			t.Fatalf("%d, want 100 before the body is sent", r.Status)
		}
		untouched(t, e, "judged.test")
		notAsked(t, e, "judged.test")
		c.Send(good)
		if r := c.Reply("POST"); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		seen := e.Origin("judged.test").Requests()
		if len(seen) != 1 || string(seen[0].Body) != good {
			t.Errorf("the origin saw %q", seen)
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "request_sha256": sha256Hex(good)})
		c.Send(strings.Replace(head("POST", "/v1/x", len(good)), "Expect: 100-continue\r\n", "", 1) + good)
		if r := c.Reply("POST"); r.Status != 200 {
			t.Errorf("the next request on the connection: %d %s", r.Status, r.Body)
		}
	})
	before := len(e.Origin("judged.test").Requests())
	t.Run("the head passes, the body does not", func(t *testing.T) {
		bad := `{"model":"evil"}`
		c := e.RawTunnel(t, "judged.test", nil)
		c.Send(head("POST", "/v1/x", len(bad)))
		if r := c.Reply("POST"); r.Status != 100 {
			t.Fatalf("%d, want 100 before the body is sent", r.Status)
		}
		c.Send(bad)
		refused(t, "the body", c.Reply("POST"), 403, "condition_not_met")
		c.Send(strings.Replace(head("POST", "/v1/x", len(good)), "Expect: 100-continue\r\n", "", 1) + good)
		if r := c.Reply("POST"); r.Status != 200 {
			t.Errorf("the next request on the connection: %d %s", r.Status, r.Body)
		}
		before++
	})
	t.Run("the head does not pass", func(t *testing.T) {
		c := e.RawTunnel(t, "judged.test", nil)
		c.Send(head("DELETE", "/v1/x", len(good)))
		refused(t, "the head", c.Reply("DELETE"), 403, "method_not_allowed")
		c.WantClosed()
	})
	if n := len(e.Origin("judged.test").Requests()); n != before {
		t.Errorf("%d requests arrived, want %d", n, before)
	}
}
