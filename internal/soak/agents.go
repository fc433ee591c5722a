package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const callTime = 90 * time.Second // of a request: far beyond any but one that hangs

// agent is one well-behaved program, and what it does wrong now and then.
type agent struct {
	ledger *ledger
	ids    *atomic.Int64
	rng    *rand.Rand
	roots  *x509.CertPool
	kept   *http.Client // HTTP/1, one connection after another
	fresh  *http.Client // HTTP/1, a connection each
	h2     *http.Client
	grpc   *grpc.ClientConn
}

func newAgent(l *ledger, ids *atomic.Int64, rng *rand.Rand, roots *x509.CertPool, made func(tls.ConnectionState) error) (*agent, error) {
	a := &agent{ledger: l, ids: ids, rng: rng, roots: roots}
	client := func(h2, fresh bool) *http.Client {
		t := &http.Transport{
			Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: engineAddr}), Protocols: new(http.Protocols), DisableKeepAlives: fresh, DisableCompression: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, VerifyConnection: made}, MaxIdleConnsPerHost: 4,
		}
		t.Protocols.SetHTTP1(!h2)
		t.Protocols.SetHTTP2(h2)
		return &http.Client{Transport: t}
	}
	a.kept, a.fresh, a.h2 = client(false, false), client(false, true), client(true, false)
	var err error
	a.grpc, err = grpc.NewClient("passthrough:///"+grpcHost+":443", grpc.WithContextDialer(dialThrough),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: grpcHost, VerifyConnection: made})))
	return a, err
}

func (a *agent) close() {
	for _, c := range []*http.Client{a.kept, a.fresh, a.h2} {
		c.CloseIdleConnections()
	}
	_ = a.grpc.Close()
}

// run does one thing after another until ctx ends.
func (a *agent) run(ctx context.Context) {
	all := a.deeds()
	total := 0
	for _, d := range all {
		total += d.share
	}
	for ctx.Err() == nil {
		n := a.rng.IntN(total)
		for _, d := range all {
			if n -= d.share; n < 0 {
				d.do(d.kind)
				break
			}
		}
		think := time.NewTimer(time.Duration(20+a.rng.IntN(150)) * time.Millisecond)
		select {
		case <-think.C:
		case <-ctx.Done():
			think.Stop()
		}
	}
}

// deed is something that an agent does, so many times in all.
type deed struct {
	kind  string
	share int
	do    func(kind string)
}

func (a *agent) deeds() []deed {
	ask := func(share int, kind string, client func() *http.Client, host, dir string, w want, size func() int64) deed {
		return deed{kind, share, func(kind string) { a.ask(kind, client(), host, dir, w, size()) }}
	}
	kept, fresh, h2 := func() *http.Client { return a.kept }, func() *http.Client { return a.fresh }, func() *http.Client { return a.h2 }
	some := func() int64 { return a.rng.Int64N(4 << 10) }
	much := func() int64 { return 64<<10 + a.rng.Int64N(2<<20) }
	few := func() int64 { return 1 + a.rng.Int64N(10) }
	return []deed{
		ask(20, "HTTP/1, kept", kept, goodHost, "echo", allowed, some),
		ask(10, "HTTP/1, kept, HTTP/1 behind", kept, plainHost, "echo", allowed, some),
		ask(8, "HTTP/1, a connection each", fresh, goodHost, "echo", allowed, some),
		ask(16, "HTTP/2", h2, goodHost, "echo", allowed, some),
		ask(8, "HTTP/2, HTTP/1 behind", h2, plainHost, "echo", allowed, some),
		ask(3, "upload", kept, plainHost, "up", allowed, much),
		ask(3, "upload, HTTP/2", h2, goodHost, "up", allowed, much),
		ask(3, "download", kept, goodHost, "down", allowed, much),
		ask(3, "download, HTTP/2", h2, plainHost, "down", allowed, much),
		ask(2, "events", kept, plainHost, "sse", allowed, few),
		ask(2, "events, HTTP/2", h2, goodHost, "sse", allowed, few),
		ask(3, "the client leaves", h2, goodHost, "down", leaving, much),
		ask(2, "the client leaves, HTTP/1", kept, plainHost, "down", leaving, much),
		ask(6, "by the revision", kept, goodHost, "flip", flipping, some),
		ask(3, "by the revision, HTTP/2", h2, plainHost, "flip", flipping, some),
		ask(2, "no rule for the path", kept, goodHost, "nowhere", refused, some),
		ask(2, "no rule for the path, HTTP/2", h2, goodHost, "nowhere", refused, some),
		ask(2, "an origin that resets", kept, faultHost, "reset", faulty, some),
		ask(1, "an origin that stalls", h2, faultHost, "stall", leaving, some),
		ask(2, "an origin that breaks off", kept, faultHost, "cut", faulty, some),
		ask(2, "a certificate of nobody", h2, falseHost, "echo", faulty, some),
		ask(1, "a name that is not found", kept, goneHost, "echo", faulty, some),
		ask(1, "a name that is found late", fresh, slowHost, "echo", late, some),
		{"a body that is judged", 4, a.judged},
		{"gRPC", 10, func(kind string) { a.unary(kind) }},
		{"gRPC stream", 3, func(kind string) { a.stream(kind) }},
		{"WebSocket", 3, a.socket},
		{"no rule for the name", 2, a.deniedName},
		{"two lengths", 1, a.ambiguous},
		{"ClientHello", 1, a.noise},
	}
}

func (a *agent) path(dir string) string { return fmt.Sprintf("/%s/%d", dir, a.ids.Add(1)) }

// ask makes an HTTP request with a body of size bytes, or for one.
func (a *agent) ask(kind string, client *http.Client, host, dir string, w want, size int64) {
	c := &call{host: host, method: http.MethodPost, path: a.path(dir), want: w}
	body := content(c.path+" sent", size)
	expected := ""
	query := ""
	if dir == "down" || dir == "sse" {
		c.method, body, query = http.MethodGet, nil, fmt.Sprint("?n=", size)
	}
	if dir == "down" {
		h := sha256.New()
		_, _ = io.Copy(h, content(c.path, size)) // cannot fail
		expected = hex.EncodeToString(h.Sum(nil))
	}
	a.request(kind, client, c, query, body, expected)
}

// request makes the call c and notes what came of it.
func (a *agent) request(kind string, client *http.Client, c *call, query string, body io.Reader, expected string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	if c.want == leaving {
		defer time.AfterFunc(time.Duration(a.rng.IntN(60))*time.Millisecond, cancel).Stop()
	}
	sent := &summed{r: bytes.NewReader(nil)}
	var payload []byte
	if body != nil {
		var b bytes.Buffer
		sent = &summed{r: body}
		sent.drain(&b)
		payload = b.Bytes()
	} else {
		sent.drain(io.Discard)
	}
	c.sent, c.sentN = sent.hex(), sent.n
	req, err := http.NewRequestWithContext(ctx, c.method, "https://"+c.host+c.path+query, bytes.NewReader(payload))
	if err != nil {
		c.err = err
		a.ledger.made(kind, c.path, c)
		return
	}
	if body == nil {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	}
	req.Header.Set("Content-Type", "application/json")
	c.began = time.Now()
	resp, err := client.Do(req)
	if err == nil {
		got := &summed{r: resp.Body}
		got.drain(io.Discard)
		_ = resp.Body.Close()
		c.status, c.reason, c.got, c.gotN = resp.StatusCode, resp.Header.Get("X-Aegrail-Reason"), got.hex(), got.n
		if !got.all {
			err = errors.New("the answer broke off")
		} else if expected != "" && c.status == http.StatusOK && expected != c.got {
			err = errors.New("the answer is another than the origin's")
		}
	}
	c.err, c.ended = err, time.Now()
	a.ledger.made(kind, c.path, c)
}

// judged sends a body that a rule reads, good or bad.
func (a *agent) judged(kind string) {
	model, w := "good", allowed
	if a.rng.IntN(3) == 0 {
		model, w = "bad", refused
	}
	client := a.kept
	if a.rng.IntN(2) == 0 {
		client = a.h2
	}
	c := &call{host: goodHost, method: http.MethodPost, path: a.path("judged"), want: w}
	a.request(kind, client, c, "", strings.NewReader(`{"model": "`+model+`"}`), "")
}

func (a *agent) unary(kind string) { a.messages(kind, "/soak.Unary/", 1) }

func (a *agent) stream(kind string) { a.messages(kind, "/soak.Stream/", 2+a.rng.IntN(20)) }

// messages sends n messages on a stream of gRPC and reads each back.
func (a *agent) messages(kind, service string, n int) {
	c := &call{host: grpcHost, method: http.MethodPost, path: fmt.Sprint(service, a.ids.Add(1)), want: allowed, began: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	c.err = func() error {
		s, err := a.grpc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, c.path)
		if err != nil {
			return err
		}
		for range n {
			m := &wrapperspb.BytesValue{Value: make([]byte, a.rng.IntN(2<<10))}
			if err := s.SendMsg(m); err != nil {
				return err
			}
			back := new(wrapperspb.BytesValue)
			if err := s.RecvMsg(back); err != nil {
				return err
			}
			if !bytes.Equal(back.Value, m.Value) {
				return errors.New("another message came back")
			}
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		if err := s.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
			return fmt.Errorf("after the last message: %w", err)
		}
		return nil
	}()
	if c.ended = time.Now(); c.err == nil {
		c.status = http.StatusOK
	}
	a.ledger.made(kind, c.path, c)
}

func (a *agent) socket(kind string) {
	c := &call{host: goodHost, method: http.MethodGet, path: a.path("ws"), want: allowed, began: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	c.err = func() error {
		s, resp, err := websocket.Dial(ctx, "wss://"+c.host+c.path, &websocket.DialOptions{HTTPClient: a.kept})
		if err != nil {
			return err
		}
		defer s.CloseNow()
		c.status = resp.StatusCode
		for range 1 + a.rng.IntN(20) {
			p := make([]byte, a.rng.IntN(4<<10))
			if err := s.Write(ctx, websocket.MessageBinary, p); err != nil {
				return err
			}
			if _, back, err := s.Read(ctx); err != nil || !bytes.Equal(back, p) {
				return fmt.Errorf("another message came back, or none: %w", err)
			}
		}
		return s.Close(websocket.StatusNormalClosure, "")
	}()
	c.ended = time.Now()
	a.ledger.made(kind, c.path, c)
}

// deniedName asks for a name that no rule allows.
func (a *agent) deniedName(kind string) {
	c := &call{host: fmt.Sprintf("d%d%s", a.ids.Add(1), denied), method: http.MethodConnect, want: refused, began: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	conn, err := dialThrough(ctx, c.host+":443")
	if err == nil {
		_ = conn.Close()
		c.status = http.StatusOK
	}
	if m := regexp.MustCompile(`X-Aegrail-Reason: (\w+)`).FindStringSubmatch(fmt.Sprint(err)); m != nil {
		c.reason = m[1]
	}
	c.err, c.ended = err, time.Now()
	a.ledger.made(kind, "host "+c.host, c)
}

// within makes a TLS connection through the engine.
func (a *agent) within(ctx context.Context, host string) (net.Conn, error) {
	conn, err := dialThrough(ctx, host+":443")
	if err != nil {
		return nil, err
	}
	tc := tls.Client(conn, &tls.Config{RootCAs: a.roots, ServerName: host})
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tc, nil
}

// ambiguous sends a request with two lengths, and one within it. Neither must
// arrive; the record names a host and no path.
func (a *agent) ambiguous(string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	conn, err := a.within(ctx, plainHost)
	if err != nil {
		a.ledger.problem("a connection to %s: %v", plainHost, err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTime))
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET %s HTTP/1.1\r\nHost: %s\r\n\r\n",
		a.path("echo"), plainHost, a.path("echo"), plainHost)
	resp, rerr := http.ReadResponse(bufio.NewReader(conn), nil)
	if err := errors.Join(err, rerr); err != nil {
		a.ledger.problem("two lengths: %v", err)
		return
	}
	_ = resp.Body.Close()
	reason := resp.Header.Get("X-Aegrail-Reason")
	if resp.StatusCode != http.StatusBadRequest || reason == "" {
		a.ledger.problem("two lengths: %s %q", resp.Status, reason)
		return
	}
	a.ledger.noisy(reason)
}

// noise sends what is no ClientHello, and waits for the end of the connection.
func (a *agent) noise(string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	conn, err := dialThrough(ctx, goodHost+":443")
	if err != nil {
		a.ledger.problem("a tunnel to %s: %v", goodHost, err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTime))
	p := make([]byte, 256)
	for i := range p {
		p[i] = byte(a.rng.Uint32())
	}
	kind := "bad_client_hello"
	copy(p, "\x16\x03\x01\x00\xfb\x01\xff") // longer than any
	if a.rng.IntN(2) == 0 {
		kind, p[0] = "not_tls", 'x'
	}
	if _, err := conn.Write(p); err != nil {
		a.ledger.problem("noise: %v", err)
		return
	}
	_, _ = io.Copy(io.Discard, conn) // to its end, an alert or a reset
	a.ledger.noisy(kind)
}
