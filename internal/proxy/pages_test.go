package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// talkers are an origin over HTTP/2 and one over HTTP/1.1 that send back what they
// get, below a head that is as large as is asked for.
func talkers() map[string]enginetest.Host {
	large := strings.Repeat("x", 20<<10)
	return map[string]enginetest.Host{
		"h2.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				w.Header().Set("X-Large", large)
			}
			_, _ = io.Copy(w, r.Body)
		})},
		"h1.test": {Answer: func(c *enginetest.OriginConn, r enginetest.Seen) {
			if r.Path() == "/large" {
				c.Printf("HTTP/1.1 200 OK\r\nX-Large: %s\r\nContent-Length: 2\r\n\r\nok", large)
				return
			}
			c.Reply(200, strings.Repeat("a", 300_000))
		}},
	}
}

const anyTalk = `
- name: h1
  {{to "h1.test"}}
- name: h2
  {{to "h2.test"}}
`

// Where there is no room for large pages, what is large passes in small pieces, and
// only an answer whose head is large does not.
func TestR08WithoutRoomBodiesPassInSmallPieces(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Hosts: talkers(), Policy: anyTalk, Limits: proxy.Limits{PageBytes: 2}})
	body := strings.Repeat("0123456789", 30_000)
	for name, client := range bothClients(t, e) {
		if r := e.Do(t, client, "POST", "h2.test", "/echo/"+name, body); r.Status != 200 || r.Body != body {
			t.Errorf("%s, an echo: %d %s, %d bytes", name, r.Status, r.Reason(), len(r.Body))
		}
		if r := e.Do(t, client, "POST", "h1.test", "/big/"+name, body); r.Status != 200 || len(r.Body) != len(body) {
			t.Errorf("%s, HTTP/1.1: %d %s, %d bytes", name, r.Status, r.Reason(), len(r.Body))
		}
		for _, host := range []string{"h1.test", "h2.test"} {
			refused(t, name+", a large head of "+host, e.Do(t, client, "GET", host, "/large", ""), 503, "too_many_heads")
		}
	}
}

// What the heads of answers take is given back: there is room for a few at a time.
func TestR08LargeHeadsOfAnswersGiveBackTheirRoom(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Hosts: talkers(), Policy: anyTalk, Limits: proxy.Limits{PageBytes: 2 * 600 << 10}})
	for name, client := range bothClients(t, e) {
		for _, host := range []string{"h1.test", "h2.test", "h1.test", "h2.test", "h1.test", "h2.test"} {
			if r := e.Do(t, client, "GET", host, "/large", ""); r.Status != 200 {
				t.Fatalf("%s, %s: %d %s", name, host, r.Status, r.Reason())
			}
		}
	}
}

// Streams that take all that there is for what they are read into do not take the room
// of another answer's head, which passes in no smaller pieces.
func TestR08StreamsLeaveRoomForLargeHeadsOfAnswers(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Hosts: talkers(), Policy: anyTalk, Limits: proxy.Limits{PageBytes: 4 * 140 << 10}})
	client := e.ClientH2(t)
	for range 4 { // an answer without an end each
		in, out := io.Pipe()
		t.Cleanup(func() { _ = out.Close() })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL("h2.test", "/stream"), in)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = out.Write(make([]byte, 8<<10)) }()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if _, err := io.ReadFull(resp.Body, make([]byte, 4<<10)); err != nil {
			t.Fatal(err)
		}
	}
	for name, client := range bothClients(t, e) {
		for _, host := range []string{"h1.test", "h2.test"} {
			if r := e.Do(t, client, "GET", host, "/large", ""); r.Status != 200 {
				t.Errorf("%s, %s: %d %s", name, host, r.Status, r.Reason())
			}
		}
	}
}
