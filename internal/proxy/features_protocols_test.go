package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// echoRaw and echoHandler are one origin in HTTP/1.1, byte for byte, and in
// HTTP/2: they answer by the path.
func echoRaw(c *enginetest.OriginConn, r enginetest.Seen) {
	switch r.Path() {
	case "/echo":
		sum := "X-Sum: " + sha256Hex(string(r.Body)) + "\r\n"
		if len(r.Trailers) > 0 {
			sum += "X-Got: " + r.Trailers[0].Name + "=" + r.Trailers[0].Value + "\r\n"
		}
		c.Printf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Two: a\r\nX-Two: b\r\n\r\n")
		for _, part := range strings.SplitAfter(string(r.Body), " ") {
			if part != "" {
				c.Printf("%x\r\n%s\r\n", len(part), part)
			}
		}
		c.Printf("0\r\n%s\r\n", sum)
	case "/none":
		c.Printf("HTTP/1.1 204 No Content\r\nX-Answer: none\r\n\r\n")
	case "/same":
		c.Printf("HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 5\r\n\r\n")
	case "/empty":
		c.Printf("HTTP/1.1 201 Created\r\nContent-Length: 0\r\nLocation: /new\r\n\r\n")
	case "/hints":
		c.Printf("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
		c.Reply(200, "hello")
	case "/away":
		c.Printf("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n")
	default:
		if r.Method == "HEAD" {
			c.Printf("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Answer: head\r\n\r\n")
			return
		}
		c.Printf("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nAlt-Svc: h3=\":443\"\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nhello")
	}
}

func echoHandler(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h := w.Header()
	switch r.URL.Path {
	case "/echo":
		h["X-Two"] = []string{"a", "b"}
		for _, part := range strings.SplitAfter(string(body), " ") {
			_, _ = io.WriteString(w, part)
			_ = http.NewResponseController(w).Flush()
		}
		h.Set(http.TrailerPrefix+"X-Sum", sha256Hex(string(body)))
		for name, values := range r.Trailer {
			h.Set(http.TrailerPrefix+"X-Got", name+"="+values[0])
		}
	case "/none":
		h.Set("X-Answer", "none")
		w.WriteHeader(204)
	case "/same":
		h.Set("Etag", `"x"`)
		w.WriteHeader(304)
	case "/empty":
		h.Set("Location", "/new")
		h.Set("Content-Length", "0")
		w.WriteHeader(201)
	case "/hints":
		h.Set("Link", "</a>; rel=preload")
		w.WriteHeader(103)
		h.Del("Link")
		w.WriteHeader(102)
		_, _ = io.WriteString(w, "hello")
	case "/away":
		h.Set("Location", "http://169.254.169.254/latest")
		h.Set("Content-Length", "0")
		w.WriteHeader(302)
	default:
		h.Set("Content-Length", "5")
		h.Set("Alt-Svc", `h3=":443"`)
		h.Set("X-Answer", "head")
		_, _ = io.WriteString(w, "hello")
	}
}

// pair is a client's protocol and an origin's.
type pair struct {
	client, origin string
	e              *enginetest.Engine
	http           *http.Client
}

// everyPair runs f for HTTP/1.1 and HTTP/2 on either side.
func everyPair(t *testing.T, f func(t *testing.T, p pair)) {
	t.Helper()
	for _, client := range []string{"h1", "h2"} {
		for _, origin := range []string{"h1", "h2"} {
			t.Run(client+" to "+origin, func(t *testing.T) {
				host := enginetest.Host{Answer: echoRaw}
				if origin == "h2" {
					host = enginetest.Host{Handler: http.HandlerFunc(echoHandler)}
				}
				e := enginetest.Start(t, &enginetest.Options{
					Policy: strings.Replace(readPolicy, "[GET", "[DELETE, OPTIONS, PATCH, GET", 1),
					Hosts:  map[string]enginetest.Host{"allowed.test": host},
				})
				p := pair{client, origin, e, e.Client(t)}
				if client == "h2" {
					p.http = e.ClientH2(t)
				}
				f(t, p)
			})
		}
	}
}

// ended returns the completion of the last request for path and checks who
// spoke what.
func (p pair) ended(t *testing.T, n int, path string) enginetest.Record {
	t.Helper()
	all := p.e.WantRecords(t, n, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": path, "truncated": nil})
	r := all[len(all)-1]
	upstream := map[string]string{"h1": "HTTP/1.1", "h2": "HTTP/2.0"}[p.origin]
	if r.Get("upstream_proto") != upstream || r.Get("alpn") != alpnOf(p.client) {
		t.Errorf("%s: the record says %q to %q", path, r.Get("alpn"), r.Get("upstream_proto"))
	}
	return r
}

// TestEveryProtocolPairAnswers has each kind of answer, and after each the same
// connection is used again.
func TestEveryProtocolPairAnswers(t *testing.T) {
	everyPair(t, func(t *testing.T, p pair) {
		for _, row := range []struct {
			method, path, body string
			status             int
			want               string
			field              string
		}{
			{"GET", "/", "", 200, "hello", ""},
			{"POST", "/", "x", 200, "hello", ""},
			{"PATCH", "/", "x", 200, "hello", ""},
			{"DELETE", "/", "", 200, "hello", ""},
			{"HEAD", "/head", "", 200, "", "X-Answer: head"},
			{"GET", "/none", "", 204, "", "X-Answer: none"},
			{"DELETE", "/none", "", 204, "", "X-Answer: none"},
			{"GET", "/same", "", 304, "", "Etag: \"x\""},
			{"POST", "/empty", "x", 201, "", "Location: /new"},
			{"GET", "/away", "", 302, "", "Location: http://169.254.169.254/latest"},
		} {
			what := row.method + " " + row.path
			r := p.e.Do(t, p.http, row.method, "allowed.test", row.path, row.body)
			name, value, _ := strings.Cut(row.field, ": ")
			if r.Status != row.status || r.Body != row.want || r.Header.Get(name) != value {
				t.Errorf("%s: %d %q %v", what, r.Status, r.Body, r.Header)
			}
			if r.Header.Get("Alt-Svc") != "" || r.Header.Get("X-Hop") != "" {
				t.Errorf("%s: what is for one hop came through: %v", what, r.Header)
			}
			if wire := "HTTP/" + map[string]string{"h1": "1.1", "h2": "2.0"}[p.client]; r.Proto != wire {
				t.Errorf("%s: answered in %s", what, r.Proto)
			}
			if row.method == "HEAD" && r.Header.Get("Content-Length") != "5" {
				t.Errorf("%s: Content-Length %q", what, r.Header.Get("Content-Length"))
			}
			next := p.e.Do(t, p.http, "GET", "allowed.test", "/next", "")
			if next.Status != 200 || next.Body != "hello" {
				t.Errorf("after %s: %d %q", what, next.Status, next.Body)
			}
		}
		p.e.WantRecords(t, 10, enginetest.Fields{"phase": "complete", "path": "/next", "response_sha256": sha256Hex("hello"), "response_bytes": 5})
		if r := p.ended(t, 2, "/none"); r.Get("response_bytes") != "0" || r.Get("status_code") != "204" {
			t.Errorf("the record: %s", r.Line)
		}
		if n := p.e.Origin("allowed.test").Connections(); n != 1 {
			t.Errorf("%d connections to the origin, want the one that was kept", n)
		}
		notAsked(t, p.e, "169.254.169.254")
	})
}

// TestEveryProtocolPairCarriesTrailers sends a body of unknown length in pieces,
// with a trailer, and gets one back.
func TestEveryProtocolPairCarriesTrailers(t *testing.T) {
	everyPair(t, func(t *testing.T, p pair) {
		const body = "one two three"
		for i := range 2 {
			req, err := http.NewRequest("POST", p.e.URL("allowed.test", "/echo?q=1"), io.MultiReader(strings.NewReader("one "), strings.NewReader("two three")))
			if err != nil {
				t.Fatal(err)
			}
			req.Trailer = http.Header{"X-Checksum": {"abc"}}
			resp, err := p.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || string(got) != body || resp.Trailer.Get("X-Sum") != sha256Hex(body) {
				t.Errorf("%q %v, trailers %v", got, err, resp.Trailer)
			}
			if two := resp.Header["X-Two"]; len(two) != 2 || two[0] != "a" || two[1] != "b" {
				t.Errorf("the field that is there twice: %q", two)
			}
			end := p.ended(t, i+1, "/echo")
			if end.Get("request_sha256") != sha256Hex(body) || end.Get("response_sha256") != sha256Hex(body) || end.Get("request_bytes") != "13" {
				t.Errorf("the record: %s", end.Line)
			}
			seen := p.e.Origin("allowed.test").Requests()[i]
			if seen.Target != "/echo?q=1" || string(seen.Body) != body {
				t.Errorf("the origin saw %s", seen)
			}
			if len(seen.Trailers) != 1 || seen.Trailers[0].Name != "X-Checksum" || resp.Trailer.Get("X-Got") != "X-Checksum=abc" {
				t.Errorf("the origin saw the trailers %v and said %q", seen.Trailers, resp.Trailer.Get("X-Got"))
			}
		}
	})
}

// TestEveryProtocolPairRelaysInterimAnswers has 103 and 102 before the answer.
func TestEveryProtocolPairRelaysInterimAnswers(t *testing.T) {
	everyPair(t, func(t *testing.T, p pair) {
		var interim []int
		link := ""
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			interim = append(interim, code)
			link += h.Get("Link")
			return nil
		}}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", p.e.URL("allowed.test", "/hints"), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(body) != "hello" || fmt.Sprint(interim) != "[103 102]" || link != "</a>; rel=preload" || resp.Header.Get("Link") != "" {
			t.Errorf("%q %v after %v with Link %q; the head has %v", body, err, interim, link, resp.Header)
		}
		p.ended(t, 1, "/hints")
		if r := p.e.Do(t, p.http, "GET", "allowed.test", "/next", ""); r.Status != 200 {
			t.Errorf("the next request: %d", r.Status)
		}
	})
}

// grpcHandler answers unary calls the way a gRPC server does.
func grpcHandler(w http.ResponseWriter, r *http.Request) {
	message, _ := io.ReadAll(r.Body)
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	if r.URL.Path == "/echo.Echo/Fail" { // trailers only
		h.Set("Grpc-Status", "5")
		h.Set("Grpc-Message", "no such thing")
		return
	}
	_, _ = w.Write(message)
	h.Set(http.TrailerPrefix+"Grpc-Status", "0")
}

// TestGRPCUnary makes calls with trailers, without a message in the answer, and
// refused by policy, all on one connection.
func TestGRPCUnary(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: echo\n  {{to \"allowed.test\"}}\n  methods: [POST]\n  paths: [/echo.Echo/*]\n",
		Hosts:  map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(grpcHandler)}},
	})
	c := dialH2(t, e, "allowed.test")
	call := func(path string) h2answer {
		stream := c.open(false, ":method: POST", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: "+path,
			"content-type: application/grpc+proto", "te: trailers", "grpc-timeout: 10S")
		c.data(stream, true, "\x00\x00\x00\x00\x02hi")
		return c.answer(stream)
	}
	a := call("/echo.Echo/Say")
	if a.Status != 200 || a.Body != "\x00\x00\x00\x00\x02hi" || a.Fields["trailer:grpc-status"] != "0" || !a.Ended {
		t.Errorf("an answer with trailers: %s %v", a, a.Fields)
	}
	a = call("/echo.Echo/Fail")
	if a.Status != 200 || a.Body != "" || a.Fields["grpc-status"] != "5" || a.Fields["grpc-message"] != "no such thing" {
		t.Errorf("an answer of trailers only: %s %v", a, a.Fields)
	}
	a = call("/other.Other/Say")
	if a.Status != 200 || a.Fields["grpc-status"] != "7" || a.Fields["content-type"] != "application/grpc" || a.Body != "" {
		t.Errorf("a refusal: %s %v", a, a.Fields)
	}
	if a = call("/echo.Echo/Say"); a.Status != 200 {
		t.Errorf("the call after a refusal: %s", a)
	}
	seen := e.Origin("allowed.test").Requests()
	if len(seen) != 3 || seen[0].Get("Te") != "trailers" || seen[0].Get("Grpc-Timeout") != "10S" || seen[0].Get("User-Agent") != "" {
		t.Errorf("the origin saw %q, the first with %v", seen, seen[0].Fields)
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "path": "/other.Other/Say", "reason": "path_not_allowed", "status_code": 403})
	e.WantRecords(t, 2, enginetest.Fields{"phase": "complete", "path": "/echo.Echo/Say", "request_bytes": 7, "response_bytes": 7, "upstream_proto": "HTTP/2.0"})
}

// TestEventsArriveAtOnceInEveryPair has an origin that sends its next event
// only when the client has the one before.
func TestEventsArriveAtOnceInEveryPair(t *testing.T) {
	for _, client := range []string{"h1", "h2"} {
		t.Run(client+" from a raw origin", func(t *testing.T) {
			got := make(chan struct{})
			e := enginetest.Start(t, &enginetest.Options{
				Policy: readPolicy,
				Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
					c.Printf("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
					<-got // the head comes alone
					for range 3 {
						c.Printf("9\r\ndata: x\n\n\r\n")
						<-got
					}
					c.Printf("0\r\n\r\n")
				}}},
			})
			hc := e.Client(t)
			if client == "h2" {
				hc = e.ClientH2(t)
			}
			resp, err := hc.Get(e.URL("allowed.test", "/events"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got <- struct{}{}
			event := make([]byte, 9)
			for range 3 {
				if _, err := io.ReadFull(resp.Body, event); err != nil || !bytes.Equal(event, []byte("data: x\n\n")) {
					t.Fatalf("%q, %v", event, err)
				}
				got <- struct{}{}
			}
			if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
			e.WantRecord(t, enginetest.Fields{"phase": "complete", "response_bytes": 27, "truncated": nil})
		})
	}
}

// TestAnswersThatBreakOffLookBroken has an origin that stops in the middle: the
// client must not take what it has for the whole.
func TestAnswersThatBreakOffLookBroken(t *testing.T) {
	for what, answer := range map[string]string{
		"of a length":    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
		"in chunks":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
		"inside a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\npart",
		"to its close":   "HTTP/1.1 200 OK\r\n\r\npart",
	} {
		t.Run(what, func(t *testing.T) {
			e := enginetest.Start(t, &enginetest.Options{
				Policy: readPolicy,
				Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
					if _, err := c.ReadRequest(); err == nil {
						c.Printf("%s", answer)
						c.Cut()
					}
				}}},
			})
			for name, hc := range bothClients(t, e) {
				if r, err := e.Try(t, hc, "GET", "allowed.test", "/"+name, ""); err == nil && r.Status == 200 {
					t.Errorf("over %s: a whole answer of %q", name, r.Body)
				}
				end := e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/" + name})
				if end.Event != "egress_error" || end.Get("truncated") != "true" && end.Get("status_code") == "200" {
					t.Errorf("over %s: the record: %s", name, end.Line)
				}
			}
		})
	}
}

// alpnOf is what a record has for a client of the harness: Go's offers nothing
// where it speaks HTTP/1.1 alone.
func alpnOf(client string) string {
	if client == "h2" {
		return "h2"
	}
	return ""
}
