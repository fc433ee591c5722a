package enginetest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
)

// read reads what an origin would take for requests and returns them with the
// error that ended it.
func read(raw string) ([]Seen, error) {
	r := bufio.NewReader(strings.NewReader(raw))
	var all []Seen
	for {
		s, err := readHead(r)
		if err != nil {
			return all, err
		}
		body, err := newBodyReader(r, s, nil)
		if err != nil {
			return all, err
		}
		_, err = io.Copy(io.Discard, body)
		all = append(all, *s)
		if err != nil {
			return all, err
		}
	}
}

func TestAnOriginReadsOneSpellingOnly(t *testing.T) {
	const host = "Host: a.test\r\n"
	for raw, want := range map[string]string{
		"GET / HTTP/1.1\r\n" + host + "\r\n":                                                                          "",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nhi":                                                  "hi",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\n ho\r\n0\r\nX-T: 1\r\n\r\n": "hi ho",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\n" + host + "\r\n":                "hi",
	} {
		seen, err := read(raw)
		if err != io.EOF || len(seen) == 0 || string(seen[0].Body) != want || seen[0].BodySHA256 != sumOf(want) || !seen[0].Complete {
			t.Errorf("%q: %v, %v", raw, seen, err)
		}
	}
	for _, raw := range []string{
		"GET / HTTP/1.0\r\n" + host + "\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\n" + host + host + "\r\n",
		"GET  / HTTP/1.1\r\n" + host + "\r\n",
		"GET / HTTP/1.1\nHost: a.test\n\n",
		"GET / HTTP/1.1\r\nHost:a.test\r\n\r\n",
		"GET / HTTP/1.1\r\n" + host + "A : b\r\n\r\n",
		"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 02\r\n\r\nhi",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi!0\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nhi there",
	} {
		if seen, err := read(raw); err == nil || err == io.EOF {
			t.Errorf("%q was taken as %v", raw, seen)
		}
	}
}

func TestABodyThatBreaksOffIsCountedAsFarAsItCame(t *testing.T) {
	seen, err := read("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhi")
	if err != io.ErrUnexpectedEOF || len(seen) != 1 || seen[0].Complete || seen[0].BodyBytes != 2 || seen[0].BodySHA256 != sumOf("hi") {
		t.Errorf("%+v, %v", seen, err)
	}
}

// Every row of bad certificates is refused by Go's client, but for two that
// the engine has to refuse by itself: that each row is what its name says shows
// in the error.
func TestBadTLSIsBad(t *testing.T) {
	root := NewRoot(t, "test root")
	want := map[string]string{
		"T1": "expired", "T2": "not yet valid", "T3": "valid for other.a.test", "T4": "unknown authority", "T5": "unknown authority",
		"T6": "unknown authority", "T7": "Common Name", "T8": "SHA1", "T9": "", "T10": "key usage", "T11": "", "T12": "limit",
		"T13": "protocol version", "T14": "remote error",
	}
	for _, bad := range root.BadTLS(t, "a.test") {
		o := NewOrigin(t, root, "a.test", Host{TLS: bad.TLS})
		conn, err := tls.Dial("tcp", o.Addr.String(), &tls.Config{RootCAs: root.Pool, ServerName: "a.test"})
		if err == nil {
			if bad.Row == "T11" && len(conn.ConnectionState().PeerCertificates[0].DNSNames) != manySANs {
				t.Error("T11 has too few names")
			}
			if bad.Row == "T14" { // in TLS 1.3 the client's part ends before the server's refusal
				_, err = conn.Read(make([]byte, 1))
			}
			_ = conn.Close()
		}
		if text := want[bad.Row]; text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%s %s: %v, want %q in it", bad.Row, bad.Name, err, text)
		}
		o.Close()
	}
}

func TestOriginsRecordWhatArrives(t *testing.T) {
	root := NewRoot(t, "test root")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for name, h := range map[string]Host{
		"raw": {}, "plain": {Plain: true}, "handler": {Handler: handler}, "plain handler": {Handler: handler, Plain: true},
		"script": {Script: func(c *OriginConn) {
			lines := bufio.NewReader(c)
			for {
				if _, err := io.CopyN(io.Discard, skipHead(lines), int64(len("some body"))); err != nil {
					return
				}
				c.Reply(200, "")
			}
		}},
	} {
		o := NewOrigin(t, root, "127.0.0.1", h)
		scheme := "https"
		if h.Plain {
			scheme = "http"
		}
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: root.Pool}, Protocols: protocols}
		client := &http.Client{Transport: transport}
		for range 2 {
			resp, err := client.Post(scheme+"://"+o.Addr.String()+"/x?y=z", "text/plain", strings.NewReader("some body"))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		transport.CloseIdleConnections()
		o.Close()
		seen := o.Requests()
		if len(seen) != 2 || o.Connections() != 1 || len(o.problems) > 0 {
			t.Fatalf("%s: %d requests on %d connections, problems %q", name, len(seen), o.Connections(), o.problems)
		}
		for _, s := range seen {
			if s.Method != "POST" || s.Target != "/x?y=z" || s.BodySHA256 != sumOf("some body") || !s.Complete {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
}

// skipHead reads up to an empty line.
func skipHead(r *bufio.Reader) io.Reader {
	for {
		if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
			return r
		}
	}
}

func TestCutClosesWithoutCloseNotify(t *testing.T) {
	root := NewRoot(t, "test root")
	cut := NewOrigin(t, root, "a.test", Host{Script: func(c *OriginConn) {
		_, _ = c.Read(make([]byte, 1))
		c.Cut()
	}})
	closed := NewOrigin(t, root, "a.test", Host{Script: func(c *OriginConn) { _, _ = c.Read(make([]byte, 1)) }})
	for o, want := range map[*Origin]bool{cut: false, closed: true} {
		// In TLS 1.2 nothing but an alert follows a handshake without data.
		cfg := &tls.Config{RootCAs: root.Pool, ServerName: "a.test", MaxVersion: tls.VersionTLS12}
		conn, err := tls.Dial("tcp", o.Addr.String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(conn.NetConn())
		if err != nil || (len(rest) > 0) != want {
			t.Errorf("%d bytes follow the handshake, %v; a close_notify: %v", len(rest), err, want)
		}
		_ = conn.Close()
	}
}
