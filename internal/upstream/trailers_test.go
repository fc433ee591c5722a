package upstream

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

func trailer(name string) []http1.Field {
	return []http1.Field{{Name: []byte("X-Sum"), Value: []byte("1")}, {Name: []byte(name), Value: []byte("2")}}
}

// TestS18TrailersThatWouldChangeTheHead has a rule that edits the head, and
// bodies with trailers of those names and of names that are never trailers.
func TestS18TrailersThatWouldChangeTheHead(t *testing.T) {
	ca := newAuthority(t)
	got := make(chan string, 1)
	for proto, o := range map[string]*origin{
		"h1": listen(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, func(conn net.Conn) {
			b, _ := io.ReadAll(conn)
			got <- string(b)
		}),
		"h2": serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(string(b), err == nil, len(r.Trailer["X-Sum"]))
		})),
	} {
		w := newWorld(t, ca, nil)
		w.rule.headers = "{set: {X-Api-Key: secret}, remove: [X-Debug]}"
		for _, name := range []string{"X-Api-Key", "x_api_key", "X-Debug", "Authorization", "Content_Length", "X-Forwarded-For", "Trailer"} {
			body := whole("abc")
			body.trailers = trailer(name)
			_, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
			wantReason(t, err, "bad_trailer 400")
			if g := <-got; strings.HasSuffix(g, "\r\n0\r\n\r\n") || strings.Contains(g, "X-Sum") || strings.HasSuffix(g, "true1") || strings.HasSuffix(g, "true0") {
				t.Errorf("%s: %s: the origin got an end of the request: %q", proto, name, g)
			}
		}
		before := o.conns.Load()
		_, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked\nTrailer: X-Sum, X_Debug", withBody(whole("abc")))
		wantReason(t, err, "bad_trailer 400")
		if o.conns.Load() != before {
			t.Errorf("%s: dialled for a request that announces a trailer it may not have", proto)
		}
	}
}

func TestTrailersOverHTTP2AreAnnounced(t *testing.T) {
	ca := newAuthority(t)
	o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		announced := len(r.Trailer)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, announced, r.Trailer)
	}))
	w := newWorld(t, ca, nil)
	for lines, want := range map[string]string{
		"Transfer-Encoding: chunked\nTrailer: x-sum, X-Unsent": "2 map[X-Sum:[1] X-Unsent:[]]",
		"Transfer-Encoding: chunked\nTrailer: X-Other":         "1 map[X-Other:[2]]",
		"Transfer-Encoding: chunked":                           "0 map[]",
		"Content-Length: 3\nTrailer: X-Sum":                    "0 map[]", // HTTP/1 has none there
	} {
		body := whole("abc")
		body.trailers = trailer("X-Other")
		res, err := w.send(o, "POST / HTTP/1.1\n"+lines, withBody(body))
		w.expect(res, err, want)
	}
	res, err := w.send(o, "GET / HTTP/1.1\nTrailer: X-Sum", nil)
	w.expect(res, err, "0 map[]")
}

// panics is a Body with a defect.
type panics struct{ *feed }

func (p panics) Next() ([]byte, error) {
	if b, err := p.feed.Next(); err == nil {
		return b, nil
	}
	panic("a defect")
}

// TestAPanicEndsItsExchangeAlone has one in the goroutines that are not the caller's.
func TestAPanicEndsItsExchangeAlone(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	for proto, o := range map[string]*origin{"h1": serveHTTP(t, conf, false, echo()), "h2": serveHTTP(t, conf, true, echo())} {
		var log lines
		w := newWorld(t, ca, func(c *Config) { c.Logger = log.logger() })
		_, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(panics{whole("abc")}))
		wantReason(t, err, "internal 500")
		if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "a defect") {
			t.Errorf("%s: logged %q", proto, text)
		}
		if w.idle() != 0 {
			t.Errorf("%s: the connection was kept", proto)
		}
		res, err := w.send(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(whole("abc")))
		w.expect(res, err, "abc")
	}
}

func TestAPanicOfWhoTakesInterimAnswersEndsTheExchange(t *testing.T) {
	ca := newAuthority(t)
	o := listenH2(t, ca, func(s *rawH2) {
		if _, _, stream, ok := s.next(); ok {
			s.write(frameHeaders, flagEndHeaders, stream, literal(":status", "103"))
		}
	})
	var log lines
	w := newWorld(t, ca, func(c *Config) { c.Logger = log.logger() })
	_, err := w.send(o, "GET / HTTP/1.1", &SendOptions{Principal: "a", OnInterim: func(int, []http1.Field) error { panic("a defect") }})
	wantReason(t, err, "internal 500")
	if !strings.Contains(log.String(), "a defect") {
		t.Errorf("logged %q", log.String())
	}
}

// TestTrailersAreRefusedAfterTheAnswerBegan has an origin that does not wait for
// the end of the request.
func TestTrailersAreRefusedAfterTheAnswerBegan(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) {
		br := bufio.NewReader(conn)
		_, _ = readHead(br)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
		_, _ = io.Copy(io.Discard, br)
	})
	w := newWorld(t, nil, nil)
	body := newFeed("abc")
	body.trailers = trailer("Cookie")
	res, err := w.sendPlain(o, "POST / HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
	if err != nil {
		t.Fatal(err)
	}
	close(body.pieces)
	_, err = readAll(res)
	wantReason(t, err, "bad_trailer 400")
	res.Close()
}

// TestOnlyTheEngineSendsItsFields has an origin that would like its trailers to
// look like a refusal's fields, as they do to gRPC.
func TestOnlyTheEngineSendsItsFields(t *testing.T) {
	ca := newAuthority(t)
	for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		o := serveHTTP(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, h2, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"X-Aegrail-Decision", "x-aegrail-Reason", "Alt-Svc"} {
				w.Header().Set(name, "head")
				w.Header().Set(http.TrailerPrefix+name, "trailer")
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "7")
			_, _ = io.WriteString(w, "ok")
			_ = http.NewResponseController(w).Flush()
		}))
		w := newWorld(t, ca, nil)
		res, err := w.send(o, "GET / HTTP/1.1", nil)
		if err != nil || res.Proto != proto {
			t.Fatal(proto, err)
		}
		if _, err := readAll(res); err != nil {
			t.Fatal(err)
		}
		all := append(slices.Clone(res.Fields), res.Trailers()...)
		if len(res.Trailers()) != 1 || field(all, "grpc-status") != "7" || field(all, "x-aegrail-decision")+field(all, "x-aegrail-reason")+field(all, "alt-svc") != "" {
			t.Errorf("%s: %s", proto, all)
		}
		res.Close()
	}
}
