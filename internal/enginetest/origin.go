package enginetest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// keepRaw is how much of what one connection sent is kept byte for byte.
const keepRaw = 1 << 20 // 1 MiB

// Host says what stands behind a name. The zero value is an HTTPS server that
// speaks HTTP/1.1, captures every byte and answers each request with 200.
type Host struct {
	TLS   *tls.Config // nil: a good certificate for the name, from the harness's Root
	Plain bool        // HTTP without TLS

	// At most one of the three is set. Handler is served by net/http, HTTP/2
	// and HTTP/1.1; what it records are the parsed requests, not their bytes.
	// Answer is called with each request once its body was read. Script has a
	// connection for itself; what it does not read as requests is read so
	// afterwards, from the captured bytes.
	Handler http.Handler
	Answer  func(c *OriginConn, r Seen)
	Script  func(c *OriginConn)
}

// Origin is a server on loopback that a test's policy may or may not let the
// agent reach.
type Origin struct {
	Name string
	Addr netip.AddrPort
	tls  bool

	host     Host
	arrived  func(o *Origin, s Seen) // called with each request's head, before it is answered
	listener net.Listener
	server   *http.Server
	wg       sync.WaitGroup

	mu       sync.Mutex
	seen     []Seen
	conns    []*OriginConn
	total    int     // connections accepted, whatever became of them
	refused  []error // handshakes that came to nothing
	problems []string
	closed   bool
}

// NewOrigin starts the server that h describes and stops it in the test's
// cleanup. Tests of the whole engine name their hosts in Options instead.
func NewOrigin(tb testing.TB, root *Root, name string, h Host) *Origin {
	tb.Helper()
	o, err := newOrigin(tb, root, name, h)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(o.Close)
	return o
}

func newOrigin(tb testing.TB, root *Root, name string, h Host) (*Origin, error) {
	tb.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("enginetest: listening for the origin %s: %w", name, err)
	}
	o := &Origin{Name: name, Addr: ln.Addr().(*net.TCPAddr).AddrPort(), tls: !h.Plain, host: h, listener: ln}
	cfg := h.TLS
	if cfg == nil && o.tls {
		cfg = serverConfig(root.Certificate(tb, name))
		if h.Handler != nil {
			cfg.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	o.wg.Add(1)
	if h.Handler != nil {
		go o.serveHandler(cfg)
	} else {
		go o.serveRaw(cfg)
	}
	return o, nil
}

// Close stops the server and waits until nothing of it runs.
func (o *Origin) Close() {
	o.mu.Lock()
	o.closed = true
	conns, server := slices.Clone(o.conns), o.server
	o.mu.Unlock()
	_ = o.listener.Close() // the second Close of a test that closed its origin itself
	if server != nil {
		_ = server.Close()
	}
	for _, c := range conns {
		c.Cut()
	}
	o.wg.Wait()
}

// Requests returns what has arrived so far, in the order of the heads.
func (o *Origin) Requests() []Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

// Connections returns how many connections were ever accepted.
func (o *Origin) Connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// HandshakeErrors returns why handshakes came to nothing.
func (o *Origin) HandshakeErrors() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.refused)
}

// Bytes returns what connection number conn sent, at most 1 MiB of it. An
// origin with a Handler has none.
func (o *Origin) Bytes(conn int) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if conn >= len(o.conns) {
		return nil
	}
	return bytes.Clone(o.conns[conn].raw)
}

// AllBytes returns what every connection sent, one after the other.
func (o *Origin) AllBytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []byte
	for _, c := range o.conns {
		all = append(all, c.raw...)
	}
	return all
}

// problem notes what the engine must never do; the harness fails the test for
// it when it ends.
func (o *Origin) problem(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problems = append(o.problems, o.Name+": "+fmt.Sprintf(format, args...))
}

// begin notes a request whose head arrived and returns where to report what
// becomes of it.
func (o *Origin) begin(s Seen) (progress func(Seen)) {
	o.mu.Lock()
	i := len(o.seen)
	o.seen = append(o.seen, s)
	arrived := o.arrived
	o.mu.Unlock()
	if arrived != nil {
		arrived(o, s)
	}
	return func(s Seen) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen[i] = s
	}
}

func (o *Origin) serveRaw(cfg *tls.Config) {
	defer o.wg.Done()
	for {
		conn, err := o.listener.Accept()
		if err != nil {
			return
		}
		c := &OriginConn{Conn: conn, tcp: conn, origin: o}
		c.r = bufio.NewReader((*capture)(c))
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			_ = conn.Close()
			return
		}
		c.Number = len(o.conns)
		o.conns = append(o.conns, c)
		o.total++
		o.wg.Add(1)
		o.mu.Unlock()
		go func() {
			defer o.wg.Done()
			c.serve(cfg)
		}()
	}
}

// OriginConn is one connection at an origin. Writes go to the engine; what is
// read was captured.
type OriginConn struct {
	net.Conn        // the *tls.Conn, or the TCP connection of a plain origin
	Number   int    // from 0
	Proto    string // the ALPN protocol, "" if none

	tcp    net.Conn
	origin *Origin
	r      *bufio.Reader
	raw    []byte // under origin.mu
	parsed bool   // requests were read as they came
}

// capture is the OriginConn as its own bufio.Reader sees it.
type capture OriginConn

func (c *capture) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.origin.mu.Lock()
	defer c.origin.mu.Unlock()
	if room := keepRaw - len(c.raw); room > 0 {
		c.raw = append(c.raw, p[:min(n, room)]...)
	}
	return n, err
}

func (c *OriginConn) serve(cfg *tls.Config) {
	defer func() { _ = c.Close() }() // of what c.Conn is by then
	if cfg != nil {
		conn := tls.Server(c.tcp, cfg)
		if err := conn.Handshake(); err != nil {
			c.origin.mu.Lock()
			defer c.origin.mu.Unlock()
			c.origin.refused = append(c.origin.refused, err)
			return
		}
		c.Conn, c.Proto = conn, conn.ConnectionState().NegotiatedProtocol
	}
	if c.origin.host.Script != nil {
		c.origin.host.Script(c)
		c.parseCaptured()
		return
	}
	answer := c.origin.host.Answer
	if answer == nil {
		answer = hello
	}
	for {
		s, err := c.ReadRequest()
		if err != nil {
			return
		}
		answer(c, s)
	}
}

// hello is the answer of an origin that nobody told what to say.
func hello(c *OriginConn, r Seen) {
	body := "hello from " + c.origin.Name + "\n"
	if r.Method == "HEAD" {
		c.Printf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
		return
	}
	c.Reply(200, body)
}

// Read reads what the engine sent, after what was read as requests.
func (c *OriginConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// ReadHead reads a request's head and returns it with its body, which is to be
// read before the next head.
func (c *OriginConn) ReadHead() (Seen, io.Reader, error) {
	c.parsed = true
	s, err := readHead(c.r)
	if err != nil {
		c.report(err)
		return Seen{}, nil, err
	}
	s.Conn = c.Number
	report := c.origin.begin(*s)
	body, err := newBodyReader(c.r, s, report)
	if err != nil {
		c.report(err)
		return *s, nil, err
	}
	return *s, &reportingReader{body, c}, nil
}

// ReadRequest reads a request with its body. A client that waits for leave to
// send its body gets it.
func (c *OriginConn) ReadRequest() (Seen, error) {
	s, body, err := c.ReadHead()
	if err != nil {
		return s, err
	}
	if strings.EqualFold(s.Get("Expect"), "100-continue") {
		c.Printf("HTTP/1.1 100 Continue\r\n\r\n")
	}
	_, err = io.Copy(io.Discard, body)
	return *body.(*reportingReader).s, err
}

// reportingReader tells the origin of a body that is not what the engine may send.
type reportingReader struct {
	*bodyReader
	c *OriginConn
}

func (r *reportingReader) Read(p []byte) (int, error) {
	n, err := r.bodyReader.Read(p)
	if err != nil {
		r.c.report(err)
	}
	return n, err
}

// report tells a broken connection, which is the network's way, from a broken
// message, which is the engine's fault.
func (c *OriginConn) report(err error) {
	var network net.Error
	broken := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network)
	if !broken {
		c.origin.problem("connection %d: %v", c.Number, err)
	}
}

// parseCaptured reads the requests that a Script took as mere bytes.
func (c *OriginConn) parseCaptured() {
	if c.parsed {
		return
	}
	r := bufio.NewReader(bytes.NewReader(c.origin.Bytes(c.Number)))
	for {
		s, err := readHead(r)
		if err != nil {
			c.report(err)
			return
		}
		s.Conn = c.Number
		body, err := newBodyReader(r, s, c.origin.begin(*s))
		if err != nil {
			c.report(err)
			return
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			c.report(err)
			return
		}
	}
}

// Reply writes a whole response with a body of known length.
func (c *OriginConn) Reply(status int, body string) {
	c.Printf("HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(body), body)
}

// Printf writes bytes as they are. A peer that has gone is no error here: what
// the engine did with the connection is seen in the log.
func (c *OriginConn) Printf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Conn, format, args...)
}

// Cut closes the connection below TLS: no close_notify is sent (row T15).
func (c *OriginConn) Cut() { _ = c.tcp.Close() }

// serveHandler lets net/http speak for the origin.
func (o *Origin) serveHandler(cfg *tls.Config) {
	defer o.wg.Done()
	server := &http.Server{
		Handler:   http.HandlerFunc(o.handle),
		TLSConfig: cfg,
		ErrorLog:  log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.total++
			}
		},
	}
	o.mu.Lock()
	o.server = server
	closed := o.closed
	o.mu.Unlock()
	if closed {
		return
	}
	// Both return when the listener is closed, which is their only error here.
	if cfg != nil {
		_ = server.ServeTLS(o.listener, "", "")
	} else {
		_ = server.Serve(o.listener)
	}
}

func (o *Origin) handle(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	o.wg.Add(1)
	o.mu.Unlock()
	defer o.wg.Done()
	s := &Seen{Method: r.Method, Target: r.RequestURI, Proto: r.Proto, Host: r.Host}
	for name, values := range r.Header {
		for _, v := range values {
			s.Fields = append(s.Fields, Field{name, v})
		}
	}
	slices.SortStableFunc(s.Fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	s.Complete = r.Body == http.NoBody
	body := &handlerBody{ReadCloser: r.Body, r: r}
	body.bodyReader = &bodyReader{s: s, sum: newSum()}
	body.account(nil)
	body.seen = o.begin(*s)
	if r.Body != http.NoBody {
		r.Body = body
	}
	o.host.Handler.ServeHTTP(w, r)
}

// handlerBody accounts for what a Handler reads.
type handlerBody struct {
	io.ReadCloser
	*bodyReader
	r *http.Request
}

func (b *handlerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.s.Complete = true
		for name, values := range b.r.Trailer {
			for _, v := range values {
				b.s.Trailers = append(b.s.Trailers, Field{name, v})
			}
		}
	}
	b.account(p[:n])
	return n, err
}
