package canon

import (
	"bytes"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// Upgrade is what the agent asked to switch the connection to (RFC 9110
// section 7.8). h2c is not among them: it is dropped, the request stays HTTP/1.
type Upgrade uint8

const (
	NoUpgrade Upgrade = iota
	WebSocket
	OtherUpgrade // something else, or several at once; nothing allows it
)

// maxKept is how much storage a Request keeps for the next one on the
// connection, in bytes; what a larger request needed is let go.
const maxKept = 16 << 10

// Inbound is what the connection already settled for every request on it.
type Inbound struct {
	Kind   intake.Kind
	Scheme Scheme // HTTPS or HTTP; Plain means HTTP

	// Authority is the agreed name of a tunnel or a redirected connection. It
	// is zero for Plain, where the absolute-form target names it. For plain
	// HTTP that the kernel redirected there is no SNI: Host is "" and Port is
	// the original destination's; the Host field is the name, on that port.
	Authority Authority
}

// Request is a request in canonical form. It is reused for all requests of a
// connection; the slices in it alias the head it was parsed from, or storage of
// its own, and are valid until the next parse. CopyTo makes one that lasts.
//
// The zero value, and what a failed parse leaves, has NoScheme and no host:
// nothing allows it.
type Request struct {
	Scheme Scheme
	Authority
	Method   string // upper-case token; known ones are interned
	Path     []byte // canonical, begins with '/'; "*" for OPTIONS *; nil for a tunnel
	RawQuery []byte // without '?', as received and as forwarded
	HasQuery bool   // there was a '?'; the query may still be empty
	Fields   []http1.Field
	Trailers [][]byte // names that Trailer announces: HTTP/2 upstream has to announce them too
	Framing  http1.Framing
	Length   int64 // of the body; -1 when Framing is Chunked

	ExpectContinue bool // the agent waits for a 100; over HTTP/2 the server handles that and this is false
	Upgrade        Upgrade
	TETrailers     bool // the agent sent TE: trailers
	GRPC           bool // Content-Type is application/grpc
	Quirks         Quirks
	HTTP2          bool // arrived over HTTP/2

	id    uint64
	store store
}

// store is memory that outlives one request.
type store struct {
	path  []byte // Path, where it is not as it was received
	arena []byte // fields that were set or that came as strings
	query []byte // scratch
	names []string

	namedRaw []byte // the authority that was parsed last, and what it meant
	named    Authority
	namedDef uint16
}

// ID returns the number the request was parsed with, unique in the process.
func (r *Request) ID() uint64 { return r.id }

// reset makes r a request that nothing allows and keeps its memory.
func (r *Request) reset(id uint64) {
	s, fields, trailers := r.store, r.Fields[:0], r.Trailers[:0]
	if cap(s.arena) > maxKept {
		s.arena = nil
	}
	if cap(s.path) > maxKept {
		s.path = nil
	}
	if cap(s.query) > maxKept {
		s.query = nil
	}
	s.arena = s.arena[:0]
	method := r.Method
	*r = Request{id: id, store: s, Fields: fields, Trailers: trailers}
	r.Method = method // only for intern to compare with
}

// FromHTTP1 reads a head of HTTP/1. It does not allocate for an ordinary
// request. After an error r has no scheme and no host; what was sent is in h.
func (r *Request) FromHTTP1(id uint64, in Inbound, h *http1.RequestHead) error {
	r.reset(id)
	if e := r.readHTTP1(&in, h); e != nil {
		r.fail(id)
		return e
	}
	return nil
}

func (r *Request) fail(id uint64) {
	r.reset(id)
	r.Method = ""
}

func (r *Request) readHTTP1(in *Inbound, h *http1.RequestHead) *Error {
	if e := r.readMethod(h.Method); e != nil {
		return e
	}
	var e *Error
	switch in.Kind {
	case intake.Plain:
		e = r.readAbsolute(in, h)
	case intake.Connect, intake.Transparent:
		e = r.readOrigin(in, h)
	default:
		e = refuse(ReasonBadTarget, 400, "a request on a connection of no kind")
	}
	if e != nil {
		return e
	}
	var s fieldScan
	if e := s.connectionOptions(h.Fields); e != nil {
		return e
	}
	for i := range h.Fields {
		if e := r.take(&s, h.Fields[i], h.Fields); e != nil {
			return e
		}
	}
	switch h.Framing {
	case http1.NoBody:
	case http1.Length:
		r.Length = h.Length
	case http1.Chunked:
		r.Length = -1
	default:
		return refuse(ReasonBadFraming, 400, "a request body that only ends with the connection")
	}
	r.Framing = h.Framing
	r.ExpectContinue = h.ExpectContinue
	r.Upgrade = readUpgrade(h)
	r.Scheme = in.Scheme
	return nil
}

// readMethod accepts upper-case tokens. Methods are case-sensitive (RFC 9110
// section 9.1), but there are origins that fold them: "delete" has two readings.
// TRACE (RFC 9110 section 9.3.8), and TRACK as IIS called it, answers with the
// request: an agent would read a credential that its rule injects.
func (r *Request) readMethod(m []byte) *Error {
	if len(m) > http1.MaxMethod || !http1.ValidToken(m) {
		return refuse(ReasonBadMethod, 400, "method %s", quoted(m))
	}
	for _, c := range m {
		if 'a' <= c && c <= 'z' {
			return refuse(ReasonBadMethod, 400, "method %s is not in upper case", quoted(m))
		}
	}
	r.Method = intern(m, r.Method)
	switch r.Method {
	case "CONNECT":
		return refuse(ReasonNestedConnect, 405, "CONNECT where a request was expected")
	case "TRACE", "TRACK":
		return refuse(ReasonBadMethod, 405, "%s would echo the request with the fields that rules set", r.Method)
	}
	return nil
}

// intern returns m as a string without allocating for the methods there are,
// and for the one that the connection used before.
func intern(m []byte, last string) string {
	switch string(m) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	case "CONNECT":
		return "CONNECT"
	}
	if string(m) == last {
		return last
	}
	return string(m)
}

// readOrigin reads origin-form (RFC 9112 section 3.2.1), and "*".
func (r *Request) readOrigin(in *Inbound, h *http1.RequestHead) *Error {
	switch {
	case in.Scheme != HTTPS && in.Scheme != HTTP:
		return refuse(ReasonBadScheme, 400, "a request on a connection without a scheme")
	case in.Authority.Port == 0,
		in.Authority.Host == "" && (in.Kind != intake.Transparent || in.Scheme != HTTP):
		return refuse(ReasonNameMismatch, 421, "the connection has no agreed name")
	case len(h.Host) == 0:
		return refuse(ReasonBadHost, 400, "no Host")
	}
	if e := r.agree(h.Host, in); e != nil {
		return e
	}
	return r.readTarget(h.Target)
}

// readAbsolute reads absolute-form (RFC 9112 section 3.2.2), which only the
// plain proxy port takes, and only for http.
func (r *Request) readAbsolute(in *Inbound, h *http1.RequestHead) *Error {
	const scheme = "http://"
	t := h.Target
	if in.Scheme != HTTP || len(t) < len(scheme) || !http1.EqualFold(t[:len(scheme)], scheme) {
		return refuse(ReasonBadTarget, 400, "the proxy takes CONNECT and http://host/path, not a target that begins %s", quoted(beginning(t)))
	}
	t = t[len(scheme):]
	end := bytes.IndexAny(t, "/?#")
	if end < 0 {
		end = len(t)
	}
	a, e := r.name(t[:end], in.Scheme.DefaultPort())
	if e != nil {
		return e
	}
	if h.Host != nil || h.Minor != 0 { // HTTP/1.0 may do without
		host, e := r.name(h.Host, in.Scheme.DefaultPort())
		if e != nil {
			return e
		}
		if host != a {
			return refuse(ReasonNameMismatch, 421, "host %s is not the target's %s", quoted(h.Host), a.String())
		}
	}
	r.Authority = a
	switch rest := t[end:]; {
	case len(rest) > 0 && rest[0] == '/':
		return r.readTarget(rest)
	case len(rest) == 0 && r.Method == "OPTIONS":
		r.store.path = append(r.store.path[:0], '*') // RFC 9112 section 3.2.4
		r.Path = r.store.path
		return nil
	case len(rest) == 0, rest[0] == '?':
		r.store.path = append(r.store.path[:0], '/') // RFC 9110 section 4.2.3
		r.Path = r.store.path
		return r.readQuery(rest)
	default:
		return refuse(ReasonBadTarget, 400, "a fragment in the target")
	}
}

// readTarget reads path[?query] or "*".
func (r *Request) readTarget(t []byte) *Error {
	if len(t) == 1 && t[0] == '*' && r.Method == "OPTIONS" {
		r.Path = t
		return nil
	}
	path, query := t, []byte(nil)
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		path, query = t[:i], t[i:]
	}
	if len(path) == 0 || path[0] != '/' {
		return refuse(ReasonBadTarget, 400, "a target that is not a path, beginning %s", quoted(beginning(t)))
	}
	if bytes.IndexByte(path, '%') >= 0 {
		var e *Error
		if r.store.path, e = appendCanonical(r.store.path[:0], path); e != nil {
			return e
		}
		path = r.store.path
	}
	q, e := judgePath(path)
	if e != nil {
		return e
	}
	r.Path = path
	r.Quirks |= q
	return r.readQuery(query)
}

// beginning is what an error repeats of a target that is not a path: its scheme
// if it has one, else one byte. The rest may be a secret.
func beginning(t []byte) []byte {
	if i := bytes.Index(t[:min(len(t), len("https://"))], []byte("://")); i > 0 {
		return t[:i+len("://")]
	}
	return t[:min(len(t), 1)]
}

// readQuery reads what follows the path: nothing, or '?' and the query.
func (r *Request) readQuery(q []byte) *Error {
	if len(q) == 0 {
		return nil
	}
	if e := judgeQuery(q[1:]); e != nil {
		return e
	}
	r.RawQuery, r.HasQuery = q[1:], true
	return r.overrideInQuery()
}

// readUpgrade says what the head asks to switch to. HTTP/1.0 cannot ask (RFC
// 9110 section 7.8).
func readUpgrade(h *http1.RequestHead) Upgrade {
	switch {
	case h.Upgrade == nil || h.Minor == 0:
		return NoUpgrade
	case http1.EqualFold(h.Upgrade, "websocket"):
		return WebSocket
	case http1.EqualFold(h.Upgrade, "h2c"):
		return NoUpgrade
	default:
		return OtherUpgrade
	}
}

// FromTunnel makes the request that stands for a whole passthrough connection.
func (r *Request) FromTunnel(id uint64, a Authority) {
	r.reset(id)
	r.Method = "CONNECT"
	r.Authority = a
	if a.Host != "" && a.Port != 0 {
		r.Scheme = Tunnel
	}
}

// Target appends path[?query] to dst: what goes on a request line or in :path.
func (r *Request) Target(dst []byte) []byte {
	dst = append(dst, r.Path...)
	if r.HasQuery {
		dst = append(dst, '?')
		dst = append(dst, r.RawQuery...)
	}
	return dst
}

// HostHeader appends host[:port] to dst, without the scheme's default port:
// what goes in Host or :authority.
func (r *Request) HostHeader(dst []byte) []byte {
	return r.Authority.append(dst, r.Scheme.DefaultPort())
}

// CopyTo makes dst a copy of r, ID included, that shares no memory with it.
// What dst was before is gone, its memory is reused.
func (r *Request) CopyTo(dst *Request) {
	if dst == r {
		return
	}
	n := len(r.RawQuery)
	for _, f := range r.Fields {
		n += len(f.Name) + len(f.Value)
	}
	for _, name := range r.Trailers {
		n += len(name)
	}
	s, fields, trailers := dst.store, dst.Fields[:0], dst.Trailers[:0]
	*dst = *r
	s.named, s.namedDef = Authority{}, 0
	if s.arena = s.arena[:0]; cap(s.arena) < n {
		s.arena = make([]byte, 0, n)
	}
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		from := len(s.arena)
		s.arena = append(s.arena, b...)
		return s.arena[from:len(s.arena):len(s.arena)]
	}
	if r.Path != nil {
		s.path = append(s.path[:0], r.Path...)
		dst.Path = s.path
	}
	dst.RawQuery = keep(r.RawQuery)
	for _, f := range r.Fields {
		fields = append(fields, http1.Field{Name: keep(f.Name), Value: keep(f.Value)})
	}
	for _, name := range r.Trailers {
		trailers = append(trailers, keep(name))
	}
	dst.Fields, dst.Trailers = fields, trailers
	dst.store = s
}
