package canon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// What net/http's HTTP/2 server has done to a request before a handler sees it
// (Go 1.26: h2_bundle.go newWriterAndRequest, internal/httpcommon
// NewServerRequest), and what is left to look at:
//
//   - RequestURI is :path byte for byte; url.ParseRequestURI took it, which
//     lets absolute-form, spaces and '#' pass.
//   - Host is :authority, or the first host field if there was none. Host
//     fields stay in Header. :authority without any host and host without
//     :authority are both possible; the latter looks as if both were there.
//   - TLS is nil if :scheme was "http", whatever the connection is, but only
//     for the HTTP/2 code: net/http fills it in on the way to Server.Handler.
//     Hence ExposeScheme.
//   - A plain CONNECT is passed on with RequestURI = :authority. :protocol
//     resets the stream unless GODEBUG=http2xconnect=1; then it is in Header
//     under ":protocol".
//   - Field names and values were checked (httpguts), names made canonical,
//     Cookie lines joined with "; ".
//   - Expect is gone if it had 100-continue; the server answers it at the
//     first read of the body. Trailer is gone, its names are in Request.Trailer.
//   - ContentLength is the first content-length, 0 if that cannot be parsed, -1
//     if there was none and the stream is open, 0 if the stream has ended
//     whatever content-length said. All content-length fields stay in Header.
//
// Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade and a TE
// other than "trailers" are answered with 400 by the server itself. It answers
// "OPTIONS *" itself too, unless ExposeScheme or DisableGeneralOptionsHandler
// keeps it from doing so.

// ExposeScheme makes the HTTP/2 side of s hand each request to s.Handler with
// :scheme in URL.Scheme. FromHTTP2 refuses requests of a server that was not
// prepared in this way, since it could not tell http from https. Call it once,
// before s serves; s.TLSConfig must be nil or name h2 in NextProtos.
//
// net/http sets up HTTP/2 when a server begins to serve, and there is no other
// public way to its entry in TLSNextProto. So s serves a listener that ends at
// once (s.BaseContext, if there is one, is called with it), and then the entry
// is wrapped, and AfterPreface with it: requests go from HTTP/2 straight to s.Handler, past the handler
// that fills in Request.TLS and past the one that answers "OPTIONS *".
func ExposeScheme(s *http.Server) error {
	if err := s.Serve(ended{}); !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("preparing the HTTP/2 server: %w", err)
	}
	for _, entry := range [...]string{"h2", AfterPreface} {
		serve := s.TLSNextProto[entry]
		if serve == nil {
			return errors.New("preparing the HTTP/2 server: it does not speak h2; put h2 in TLSConfig.NextProtos or leave TLSConfig nil")
		}
		s.TLSNextProto[entry] = func(s *http.Server, c *tls.Conn, h http.Handler) {
			serve(s, c, schemeHandler{s.Handler, h})
		}
	}
	return nil
}

// AfterPreface is the entry of http.Server.TLSNextProto that takes any net.Conn
// whose client preface was read: that of the *tls.Conn it is called with, asked by
// UnencryptedNetConn. The name is net/http's; a connection that has a ConnectionState
// is taken for TLS here too.
const AfterPreface = "unencrypted_http2"

// ended is a listener at its end.
type ended struct{}

func (ended) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (ended) Close() error              { return nil }
func (ended) Addr() net.Addr            { return &net.TCPAddr{} }

// schemeHandler writes :scheme into URL.Scheme before anything fills in TLS.
type schemeHandler struct {
	next http.Handler
	conn http.Handler // net/http's own, for its BaseContext
}

func (h schemeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.URL.Scheme = "http"
	if r.TLS != nil {
		r.URL.Scheme = "https"
	}
	h.next.ServeHTTP(w, r)
}

// BaseContext is how net/http hands a connection's context to HTTP/2.
func (h schemeHandler) BaseContext() context.Context {
	if c, ok := h.conn.(interface{ BaseContext() context.Context }); ok {
		return c.BaseContext()
	}
	return context.Background()
}

// FromHTTP2 reads a request that net/http's server received over HTTP/2, on a
// TLS connection whose name is agreed, prepared with ExposeScheme. Fields are sorted by name, so that the
// same request is always forwarded in the same bytes. After an error r has no
// scheme and no host.
func (r *Request) FromHTTP2(id uint64, in Inbound, h *http.Request) error {
	r.reset(id)
	if e := r.readHTTP2(&in, h); e != nil {
		r.fail(id)
		return e
	}
	return nil
}

func (r *Request) readHTTP2(in *Inbound, h *http.Request) *Error {
	if e := r.readMethod(r.keep(h.Method)); e != nil {
		return e // before the scheme, which CONNECT has none of
	}
	if e := checkConnection(in, h); e != nil {
		return e
	}
	if _, ok := h.Header[":protocol"]; ok {
		return refuse(ReasonNestedConnect, 405, "an extended CONNECT")
	}
	if e := r.readAuthority(in, h); e != nil {
		return e
	}
	if len(h.RequestURI) > http1.MaxTarget {
		return refuse(ReasonHeadTooLarge, 431, ":path has %d bytes, at most %d are taken", len(h.RequestURI), http1.MaxTarget)
	}
	if e := r.readTarget(r.keep(h.RequestURI)); e != nil {
		return e
	}
	if e := r.readHeader(h.Header); e != nil {
		return e
	}
	if e := r.readLength(h); e != nil {
		return e
	}
	if e := r.readTrailer(h.Trailer); e != nil {
		return e
	}
	r.Scheme = in.Scheme
	r.HTTP2 = true
	return nil
}

// checkConnection holds the request against the connection: row H6, and what
// only a mistake of ours could bring about.
func checkConnection(in *Inbound, h *http.Request) *Error {
	switch {
	case h.ProtoMajor != 2:
		return refuse(ReasonBadTarget, 400, "not an HTTP/2 request")
	case in.Kind != intake.Connect && in.Kind != intake.Transparent:
		return refuse(ReasonBadTarget, 400, "HTTP/2 on the proxy port itself")
	case in.Scheme != HTTPS || h.TLS == nil || h.URL == nil || h.URL.Scheme != "https":
		return refuse(ReasonBadScheme, 400, ":scheme is not the connection's")
	case in.Authority.Host == "" || in.Authority.Port == 0:
		return refuse(ReasonNameMismatch, 421, "the connection has no agreed name")
	}
	return nil
}

// readAuthority reads :authority and host: rows H3, H4, H5, A2, A3.
func (r *Request) readAuthority(in *Inbound, h *http.Request) *Error {
	if h.Host == "" {
		return refuse(ReasonBadHost, 400, "no :authority")
	}
	if e := r.agree(r.keep(h.Host), in); e != nil {
		return e
	}
	switch hosts := h.Header["Host"]; {
	case len(hosts) > 1:
		return refuse(ReasonBadHost, 400, "%d host fields", len(hosts))
	case len(hosts) == 1 && hosts[0] != h.Host:
		return refuse(ReasonNameMismatch, 421, ":authority %s and host %s", quoted(h.Host), quoted(hosts[0]))
	}
	return nil
}

// readHeader takes the fields, sorted.
func (r *Request) readHeader(header http.Header) *Error {
	names := r.store.names[:0]
	count := 0
	for name, values := range header {
		names = append(names, name)
		count += len(values)
	}
	r.store.names = names
	if count > http1.MaxFields {
		return refuse(ReasonTooManyFields, 431, "%d fields, at most %d are taken", count, http1.MaxFields)
	}
	slices.Sort(names)
	var s fieldScan
	for _, name := range names {
		for _, value := range header[name] {
			f := http1.Field{Name: r.keep(name), Value: r.keep(value)}
			if e := judgeField(f); e != nil {
				return e
			}
			if e := r.take(&s, f, nil); e != nil {
				return e
			}
		}
	}
	clear(names) // holds on to nothing of a request that is over
	return nil
}

// judgeField refuses what the server lets through and HTTP/1 could not carry,
// or what it would have refused or consumed itself. Surrounding white space is
// malformed in HTTP/2 (RFC 9113 section 8.2.1) and lost in HTTP/1.
func judgeField(f http1.Field) *Error {
	switch {
	case !http1.ValidToken(f.Name):
		return refuse(ReasonBadHeader, 400, "field name %s", quoted(f.Name))
	case !http1.ValidValue(f.Value):
		return refuse(ReasonBadHeader, 400, "the value of %s has a control or white space around it", quoted(f.Name))
	case http1.EqualFold(f.Name, "expect"):
		return refuse(ReasonBadExpect, 417, "an expectation other than 100-continue")
	}
	switch c, _, _ := classify(f.Name); c {
	case connection, upgrade:
		return refuse(ReasonBadHeader, 400, "%s in HTTP/2", quoted(f.Name))
	case framing:
		if http1.EqualFold(f.Name, "transfer-encoding") {
			return refuse(ReasonBadFraming, 400, "%s in HTTP/2", quoted(f.Name))
		}
	}
	return nil
}

// readLength reads what content-length promised, row H8. A second line was
// refused by take.
func (r *Request) readLength(h *http.Request) *Error {
	values := h.Header["Content-Length"]
	if len(values) == 0 {
		switch {
		case h.ContentLength < 0:
			r.Framing, r.Length = http1.Chunked, -1
		case h.ContentLength > 0:
			return refuse(ReasonBadFraming, 400, "a length that no content-length gave")
		}
		return nil
	}
	n, ok := contentLength(values[0])
	if !ok {
		return refuse(ReasonBadFraming, 400, "content-length %s", quoted(values[0]))
	}
	if n != h.ContentLength {
		return refuse(ReasonBadFraming, 400, "content-length %d, and the stream ended without a body", n)
	}
	r.Framing, r.Length = http1.Length, n
	return nil
}

// contentLength reads decimal digits without a sign or leading zeros: row S3.
func contentLength(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := int64(0)
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// readTrailer takes the announced trailers, sorted. The server hands out no
// others.
func (r *Request) readTrailer(trailer http.Header) *Error {
	names := r.store.names[:0]
	for name := range trailer {
		names = append(names, name)
	}
	r.store.names = names
	slices.Sort(names)
	for _, name := range names {
		if e := r.announce(r.keep(name)); e != nil {
			return e
		}
	}
	clear(names)
	return nil
}

// keep copies a string to the request's storage.
func (r *Request) keep(s string) []byte {
	a := r.store.arena
	from := len(a)
	a = append(a, s...)
	r.store.arena = a
	return a[from:len(a):len(a)]
}
