package canon

import (
	"bytes"
	"fmt"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// The rules of fields are:
//
//   - What belongs to one connection, or is made anew by the writer, is left
//     out: policy, the log and upstream do not see it.
//   - A field that has one value has one line. Origins differ in whether the
//     first, the last or a joined value counts.
//   - '_' and '-' are one character to CGI, WSGI and PHP. A name that becomes
//     one of those above when '_' is read as '-' is refused.
//   - An error names fields, never their values.

// class says what becomes of a field.
type class uint8

const (
	endToEnd   class = iota // forwarded
	hopByHop                // left out
	framing                 // left out and made anew; Connection must not name it
	connection              // left out after its options were read
	te                      // left out; "trailers" is remembered
	trailer                 // left out; the names it announces are remembered
	upgrade                 // left out; the request's Upgrade says what it was
	single                  // forwarded, once
	override                // forwarded, with the quirk MethodOverride
	forwarded               // override if it has a host= parameter
)

// longestKnown is the length of the longest name that classify knows.
const longestKnown = len("x-http-method-override")

// The bits of the fields that have one value, to find a second line.
const (
	bitContentType uint32 = 1 << iota
	bitAuthorization
	bitContentEncoding
	bitContentRange
	bitContentLocation
	bitRange
	bitCookie
	bitUserAgent
	bitReferer
	bitOrigin
	bitFrom
	bitDate
	bitMaxForwards
	bitIfModifiedSince
	bitIfUnmodifiedSince
	bitIfRange
	bitWebSocketKey
	bitWebSocketVersion
	bitContentLength
	bitHost
	bitUpgrade
)

// classify reads a field name. The bit is not 0 where a second line is refused.
// disguised: the name has a '_' that was read as '-'.
func classify(name []byte) (c class, bit uint32, disguised bool) {
	var buf [longestKnown]byte
	if len(name) > len(buf) {
		return endToEnd, 0, false
	}
	for i, b := range name {
		switch {
		case 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
		case b == '_':
			b, disguised = '-', true
		}
		buf[i] = b
	}
	c, bit = known(buf[:len(name)])
	return c, bit, disguised
}

// known is the table of names, in lower case.
func known(name []byte) (class, uint32) {
	switch string(name) {
	case "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings":
		return hopByHop, 0
	case "trailer":
		return trailer, 0
	case "host":
		return framing, bitHost
	case "content-length":
		return framing, bitContentLength
	case "transfer-encoding", "expect":
		return framing, 0
	case "connection":
		return connection, 0
	case "te":
		return te, 0
	case "upgrade":
		return upgrade, bitUpgrade
	case "content-type":
		return single, bitContentType
	case "authorization":
		return single, bitAuthorization
	case "content-encoding":
		return single, bitContentEncoding
	case "content-range":
		return single, bitContentRange
	case "content-location":
		return single, bitContentLocation
	case "range":
		return single, bitRange
	case "cookie":
		return single, bitCookie
	case "user-agent":
		return single, bitUserAgent
	case "referer":
		return single, bitReferer
	case "origin":
		return single, bitOrigin
	case "from":
		return single, bitFrom
	case "date":
		return single, bitDate
	case "max-forwards":
		return single, bitMaxForwards
	case "if-modified-since":
		return single, bitIfModifiedSince
	case "if-unmodified-since":
		return single, bitIfUnmodifiedSince
	case "if-range":
		return single, bitIfRange
	case "sec-websocket-key":
		return single, bitWebSocketKey
	case "sec-websocket-version":
		return single, bitWebSocketVersion
	case "x-http-method-override", "x-http-method", "x-method-override", "x-original-method",
		"x-original-url", "x-original-uri", "x-original-host", "x-rewrite-url", "x-override-url",
		"x-forwarded-host", "x-forwarded-server", "x-forwarded-uri", "x-forwarded-path",
		"x-forwarded-prefix", "x-forwarded-method", "x-host", "x-http-host-override":
		return override, 0
	case "forwarded":
		return forwarded, 0
	default:
		return endToEnd, 0
	}
}

// fieldScan is what is remembered from one field to the next.
type fieldScan struct {
	seen  uint32 // bits of the single fields so far
	named bool   // a Connection field names end-to-end fields, which go too
}

// connectionOptions reads all Connection fields before any field is taken,
// since they may name fields that came earlier.
func (s *fieldScan) connectionOptions(fields []http1.Field) *Error {
	for i := range fields {
		if !http1.EqualFold(fields[i].Name, "connection") {
			continue
		}
		rest := fields[i].Value
		for more := true; more; {
			var option []byte
			option, rest, more = bytes.Cut(rest, []byte(","))
			if e := s.option(bytes.Trim(option, " \t")); e != nil {
				return e
			}
		}
	}
	return nil
}

// option reads one connection option. A sender that has its Authorization or
// Content-Type dropped on the way makes a request other than the one judged.
func (s *fieldScan) option(o []byte) *Error {
	if len(o) == 0 || http1.EqualFold(o, "close") {
		return nil
	}
	if !http1.ValidToken(o) {
		return refuse(ReasonBadHeader, 400, "Connection option %s is not a token", quoted(o))
	}
	switch c, _, disguised := classify(o); {
	case c == endToEnd:
		s.named = true
	case disguised, c == framing, c == single, c == override, c == forwarded:
		return refuse(ReasonBadHeader, 400, "Connection names %s", quoted(o))
	}
	return nil
}

// take puts one field where it belongs. all is the whole head.
func (r *Request) take(s *fieldScan, f http1.Field, all []http1.Field) *Error {
	c, bit, disguised := classify(f.Name)
	if disguised && c != endToEnd && c != override && c != forwarded {
		return refuse(ReasonBadHeader, 400, "field %s looks like another one to CGI", quoted(f.Name))
	}
	if bit != 0 {
		if s.seen&bit != 0 {
			reason := ReasonBadHeader
			if bit == bitContentLength {
				reason = ReasonBadFraming
			}
			return refuse(reason, 400, "a second %s", quoted(f.Name))
		}
		s.seen |= bit
	}
	switch c {
	case hopByHop, framing, connection, upgrade:
		return nil
	case te:
		r.TETrailers = r.TETrailers || listHas(f.Value, "trailers")
		return nil
	case trailer:
		return r.announced(f.Value)
	case override:
		if containsFold(f.Name, "method") && echoing(f.Value) {
			return refuse(ReasonBadMethod, 405, "%s asks for a method that would echo the request", quoted(f.Name))
		}
		r.Quirks |= MethodOverride
	case forwarded:
		if containsFold(f.Value, "host") {
			r.Quirks |= MethodOverride
		}
	case single:
		if bit == bitContentType {
			r.GRPC = isGRPC(f.Value)
		}
	case endToEnd:
		if s.named && http1.ConnectionNames(all, f.Name) {
			return nil
		}
	}
	r.Fields = append(r.Fields, f)
	return nil
}

// announced reads a Trailer field: a list of field names (RFC 9110 section
// 6.6.2), empty elements allowed.
func (r *Request) announced(list []byte) *Error {
	for more := true; more; {
		var name []byte
		name, list, more = bytes.Cut(list, []byte(","))
		if name = bytes.Trim(name, " \t"); len(name) == 0 {
			continue
		}
		if e := r.announce(name); e != nil {
			return e
		}
	}
	return nil
}

// announce takes the name of a trailer, unless a field of that name would change
// what was judged from the head (RFC 9110 section 6.5.1): row S18.
func (r *Request) announce(name []byte) *Error {
	switch c, _, _ := classify(name); {
	case !http1.ValidToken(name):
		return refuse(ReasonBadTrailer, 400, "Trailer lists %s, which is not a field name", quoted(name))
	case c != endToEnd, http1.ForbiddenTrailer(name):
		return refuse(ReasonBadTrailer, 400, "trailer %s", quoted(name))
	case len(r.Trailers) == http1.MaxTrailerFields:
		return refuse(ReasonBadTrailer, 400, "more than %d trailers are announced", http1.MaxTrailerFields)
	}
	r.Trailers = append(r.Trailers, name)
	return nil
}

// isGRPC reports whether a Content-Type is gRPC proper: application/grpc,
// alone or with +proto or parameters. application/grpc-web is ordinary HTTP.
func isGRPC(v []byte) bool {
	const grpc = "application/grpc"
	if len(v) < len(grpc) || !http1.EqualFold(v[:len(grpc)], grpc) {
		return false
	}
	return len(v) == len(grpc) || v[len(grpc)] == '+' || v[len(grpc)] == ';' || v[len(grpc)] == ' '
}

// listHas reports whether a comma-separated list has the token, in lower case.
func listHas(list []byte, token string) bool {
	for more := true; more; {
		var item []byte
		item, list, more = bytes.Cut(list, []byte(","))
		if http1.EqualFold(bytes.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}

// containsFold reports whether b holds s, which is lower-case ASCII.
func containsFold(b []byte, s string) bool {
	for i := 0; i+len(s) <= len(b); i++ {
		if http1.EqualFold(b[i:i+len(s)], s) {
			return true
		}
	}
	return false
}

// echoing reports that an override asks for TRACE or TRACK, which no rule can
// allow (see readMethod), alone or among others: whoever follows it may take the
// first of a list, or the last.
func echoing(method []byte) bool {
	return containsFold(method, "trace") || containsFold(method, "track")
}

// SettableField says whether a rule may set or remove the field: nil, or why
// not. Policy asks when it loads.
func SettableField(name string) error {
	if !http1.ValidToken([]byte(name)) {
		return fmt.Errorf("%q is not a field name", name)
	}
	switch c, _, _ := classify([]byte(name)); c {
	case hopByHop, framing, connection, te, trailer, upgrade:
		return fmt.Errorf("field %q belongs to the connection or to framing and cannot be edited", name)
	}
	return nil
}

// SetField makes the request have the field once, with this value, in the place
// of the first one there was. It panics for what SettableField refuses and for
// a value that is not one: policy refuses both at load. GRPC and Quirks stay
// what the agent sent.
func (r *Request) SetField(name, value string) {
	mustSettable(name)
	s := &r.store
	from := len(s.arena)
	s.arena = append(s.arena, name...)
	s.arena = append(s.arena, value...)
	kept := s.arena[from:len(s.arena):len(s.arena)]
	f := http1.Field{Name: kept[:len(name):len(name)], Value: kept[len(name):]}
	if !http1.ValidValue(f.Value) {
		panic(fmt.Sprintf("canon: the value that a rule sets for %q is not a field value", name))
	}
	n, placed := 0, false
	for _, have := range r.Fields {
		if SameField(have.Name, name) {
			if placed {
				continue
			}
			have, placed = f, true
		}
		r.Fields[n] = have
		n++
	}
	r.Fields = r.Fields[:n]
	if !placed {
		r.Fields = append(r.Fields, f)
	}
}

// RemoveField removes every field of that name. It panics as SetField does.
func (r *Request) RemoveField(name string) {
	mustSettable(name)
	n := 0
	for _, have := range r.Fields {
		if !SameField(have.Name, name) {
			r.Fields[n] = have
			n++
		}
	}
	r.Fields = r.Fields[:n]
}

func mustSettable(name string) {
	if err := SettableField(name); err != nil {
		panic("canon: " + err.Error())
	}
}

// SameField compares names as CGI does: case and '_' against '-' do not matter.
// A rule that removes X-Api-Key must not leave X_Api_Key to the origin.
func SameField(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i, x := range a {
		if foldName(x) != foldName(b[i]) {
			return false
		}
	}
	return true
}

func foldName(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_':
		return '-'
	default:
		return c
	}
}
