package canon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// origin is net/http's own HTTP/2 server with a handler that reads each request
// as the engine does. The tests speak to it in frames, since no client would
// send what they send.
type origin struct {
	t      *testing.T
	client *http2.Framer
	conn   net.Conn
	next   uint32
	reads  chan reading
}

type connKey struct{}

// reading is what one request was read as.
type reading struct {
	r   *Request
	err error
}

func serve(t *testing.T) *origin {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"api.example"}, NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{t: t, next: 1, reads: make(chan reading, 1)}
	s := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, h *http.Request) {
			r := new(Request)
			err := r.FromHTTP2(1, inTunnel(), h)
			if h.Context().Value(connKey{}) != "the connection's" {
				err = errors.New("the connection's context was lost")
			}
			o.reads <- reading{r, err}
		}),
	}
	s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, "the connection's")
	}
	if err := ExposeScheme(s); err != nil {
		t.Fatal(err)
	}
	ln = tls.NewListener(ln, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"},
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if o.conn != nil {
			o.conn.Close()
		}
		s.Shutdown(context.Background())
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended with %v", err)
		}
	})
	o.conn, err = tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(o.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	o.client = http2.NewFramer(o.conn, o.conn)
	o.client.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := o.client.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return o
}

// send opens a stream with these fields, "name value" each, and returns its
// number. A field that begins with '-' takes the default of that name away.
func (o *origin) send(end bool, fields ...string) uint32 {
	o.t.Helper()
	pseudo := [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.example"}, {":path", "/"}}
	var regular [][2]string
	for _, f := range fields {
		name, value, _ := strings.Cut(f, " ")
		if without, ok := strings.CutPrefix(name, "-"); ok {
			for i := range pseudo {
				if pseudo[i][0] == without {
					pseudo[i][0] = ""
				}
			}
			continue
		}
		known := false
		for i := range pseudo {
			if pseudo[i][0] == name {
				pseudo[i][1], known = value, true
			}
		}
		switch {
		case known:
		case strings.HasPrefix(name, ":"):
			pseudo = append(pseudo, [2]string{name, value})
		default:
			regular = append(regular, [2]string{name, value})
		}
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0) // a block that the server refuses must not desynchronise the next
	for _, f := range append(pseudo, regular...) {
		if f[0] != "" {
			enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
	}
	id := o.next
	o.next += 2
	const maxFrame = 16 << 10
	rest := block.Bytes()
	first := rest[:min(len(rest), maxFrame)]
	rest = rest[len(first):]
	err := o.client.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(rest) == 0, EndStream: end})
	for err == nil && len(rest) > 0 {
		next := rest[:min(len(rest), maxFrame)]
		rest = rest[len(next):]
		err = o.client.WriteContinuation(id, len(rest) == 0, next)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return id
}

// answer waits for what becomes of a stream: its :status, or "reset CODE".
func (o *origin) answer(id uint32) string {
	o.t.Helper()
	for {
		frame, err := o.client.ReadFrame()
		if err != nil {
			o.t.Fatalf("stream %d: %v", id, err)
		}
		if frame.Header().StreamID != id {
			continue
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset " + f.ErrCode.String()
		}
	}
}

// read sends a request that reaches the handler and returns its reading.
func (o *origin) read(end bool, fields ...string) reading {
	o.t.Helper()
	id := o.send(end, fields...)
	if got := o.answer(id); got != "200" {
		o.t.Fatalf("%q: the server answered %s by itself", fields, got)
	}
	return <-o.reads
}

func (o *origin) accept(fields ...string) *Request {
	o.t.Helper()
	got := o.read(true, fields...)
	if got.err != nil {
		o.t.Errorf("%q was refused: %v", fields, got.err)
	}
	return got.r
}

func (o *origin) deny(status int, reason string, fields ...string) {
	o.t.Helper()
	o.refused(o.read(true, fields...), status, reason, fields)
}

func (o *origin) refused(got reading, status int, reason string, fields []string) {
	o.t.Helper()
	checkRefusal(o.t, strings.Join(fields, ", "), got.err, status, reason)
	if got.r.Scheme != NoScheme || got.r.Host != "" || got.r.Path != nil || len(got.r.Fields) != 0 {
		o.t.Errorf("%q: refused, but left %+v", fields, got.r)
	}
}

// reset checks that the server refuses the stream itself: no handler sees it.
func (o *origin) reset(fields ...string) {
	o.t.Helper()
	if got := o.answer(o.send(true, fields...)); got != "reset PROTOCOL_ERROR" {
		o.t.Errorf("%q: %s, want a reset by the server", fields, got)
	}
	select {
	case got := <-o.reads:
		o.t.Errorf("%q reached the handler: %+v, %v", fields, got.r, got.err)
	default:
	}
}
