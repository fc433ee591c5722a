package fuzz

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

const mostMessage = 64 << 10 // bytes of a fuzzed body

// FuzzGRPCCall makes calls through an engine, which reads of gRPC the media type
// and no message. Whatever is in the messages of an allowed call, well framed or
// not, arrives as it was sent, both ways, and so do status and message in the
// trailers. A refused call ends with trailers and no message where its media type
// is gRPC's, by the letter of the protocol, and is an HTTP error where it is not.
func FuzzGRPCCall(f *testing.F) {
	frame := func(text string) []byte { return append([]byte{0, 0, 0, 0, byte(len(text))}, text...) }
	for _, seed := range []struct {
		media           string
		up, down        []byte
		status, message string
	}{
		{"application/grpc", frame("hello"), frame("world"), "0", ""},
		{"application/grpc+proto", append(frame("a"), frame("b")...), nil, "5", "not found: %C3%A9"},
		{"Application/GRPC;x=y", nil, []byte{0, 0xff, 0xff, 0xff, 0xff, 1}, "", "cut"},
		{"application/grpc-web", []byte{2}, frame(""), "17", " \t"},
		{"application/grpcx", []byte("no frame"), bytes.Repeat(frame("many"), 5000), "x", "\xff"},
		{"text/plain", nil, nil, "16", "a\r\nGrpc-Status: 0"},
	} {
		f.Add(seed.media, seed.up, seed.down, seed.status, seed.message, true)
		f.Add(seed.media, seed.up, seed.down, seed.status, seed.message, false)
	}
	// One call at a time: what the origin is to do with the next.
	var up, down []byte
	var status, message string
	e := startEngine(f, "    - name: ok\n      %s\n      paths: [/ok/Method]\n    - name: read\n      %s\n      methods: [GET]\n", []string{"h2"},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up, _ = io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = w.Write(down)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
		}))
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols, ForceAttemptHTTP2: true, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dial(ctx) },
	}
	f.Cleanup(transport.CloseIdleConnections)
	f.Fuzz(func(t *testing.T, media string, sent, answered []byte, code, text string, allowed bool) {
		if media != strings.TrimSpace(media) || hasControl(media) || hasControl(code) || hasControl(text) || len(sent)+len(answered) > mostMessage {
			return
		}
		down, status, message = answered, code, text
		path := "/ok/Method"
		if !allowed {
			path = "/no/Method"
		}
		var body io.Reader = bytes.NewReader(sent)
		switch {
		case speaksGRPC(media):
			body = io.MultiReader(body) // of unknown length, as a call's is
		case !allowed:
			body = nil // net/http's client stops sending one that is refused, and the engine waits for more of it
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+e.authority+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", media)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatalf("%q: %v", media, err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%q: %v", media, err)
		}
		switch {
		case !allowed:
			wantRefusal(t, media, resp, got)
		case resp.StatusCode != http.StatusOK || !bytes.Equal(up, sent) || !bytes.Equal(got, answered):
			t.Fatalf("%q: %s, %q arrived of %q, and %q of %q", media, resp.Status, up, sent, got, answered)
		case resp.Trailer.Get("Grpc-Status") != code || resp.Trailer.Get("Grpc-Message") != text:
			t.Fatalf("%q: trailers %q of %q and %q", media, resp.Trailer, code, text)
		}
		e.check(t, media)
	})
}

// wantRefusal checks the answer to a call that no rule allows.
func wantRefusal(t *testing.T, media string, resp *http.Response, body []byte) {
	t.Helper()
	if speaksGRPC(media) {
		message, err := url.PathUnescape(resp.Header.Get("Grpc-Message"))
		code, _ := strconv.Atoi(resp.Header.Get("Grpc-Status"))
		if resp.StatusCode != 200 || len(body) > 0 || resp.Header.Get("Content-Type") != "application/grpc" || err != nil || !strings.HasPrefix(message, "aegrail: ") || code != 7 {
			t.Fatalf("a gRPC call of type %q is refused with %s, %q, %q", media, resp.Status, resp.Header, body)
		}
		return
	}
	if resp.StatusCode != 403 || resp.Header.Get("Grpc-Status") != "" || resp.Header.Get("X-Aegrail-Reason") == "" {
		t.Fatalf("a request of type %q is refused with %s, %q, %q", media, resp.Status, resp.Header, body)
	}
}

// speaksGRPC: "application/grpc", alone, with a subtype or with parameters (gRPC
// over HTTP/2, Requests, Content-Type).
func speaksGRPC(media string) bool {
	const grpc = "application/grpc"
	if len(media) < len(grpc) || !http1.EqualFold([]byte(media[:len(grpc)]), grpc) {
		return false
	}
	return len(media) == len(grpc) || strings.ContainsRune("+; ", rune(media[len(grpc)]))
}
