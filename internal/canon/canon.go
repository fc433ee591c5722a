// Package canon is the one reading of a request.
//
// Every parser on the way of a request (ours, a framework's, the origin's) has
// its own view of a path, a host or a repeated field, and a policy is as strong
// as the least alike two of them. So a request is read here once, into one
// canonical form. Package policy judges that form, package upstream sends it,
// the audit log names it, and nobody looks at the original again. What has two
// readings is refused with an *Error, never repaired.
//
// # Authority (RFC 3986 section 3.2, RFC 9110 section 4.2)
//
// A host name is ASCII: labels of letters, digits, '-' and '_', one to 63 bytes
// long, not beginning or ending with '-', 253 bytes in all. It becomes lower
// case and loses one trailing dot. The underscore is no host name by RFC 952,
// but it is in use, resolvers take it and crypto/x509 matches it. A label that
// begins with "xn--" must be what IDNA2008 (UTS #46, non-transitional) makes of
// its own Unicode form. Unicode itself is refused on the wire; ParseUnicodeHost
// is for what people write in files.
//
// A host whose last label is a number, decimal or 0x hexadecimal, is an IPv4
// address to inet_aton and to browsers. It must be one in the only spelling
// that everybody reads alike: four decimals without leading zeros. IPv6 must be
// in the text form of RFC 5952, in brackets, without a zone, and not an
// IPv4-mapped address.
//
// A port is one to five decimal digits without leading zeros, 1 to 65535.
//
// # Names that must agree
//
// The authority of a connection is agreed before a request exists (CONNECT
// target and SNI are one name). A Host or :authority that is another name or
// another port is answered with 421, reason name_mismatch. A default port (443
// for https, 80 for http) may be written or left out.
//
// # Path (RFC 3986 sections 3.3 and 6.2.2)
//
// The hexadecimal digits of a percent triplet become upper case, triplets of
// unreserved characters (letters, digits, "-._~") are decoded, and nothing else
// changes: that string is judged, forwarded and recorded. Refused are
//
//	a dot segment       "." or "..", also spelled %2e, also before ';' "%3B"
//	                    "%20", also next to an encoded slash
//	a backslash         \ and %5C: a separator to some
//	controls            raw and encoded: %00-%1F, %7F, U+0080-U+009F
//	high bytes          raw; encoded when they are not minimal UTF-8
//	a broken triplet    %zz, %2
//	double encoding     %25 and two digits that would decode once more to
//	                    a separator, '.', ';', '%', a control or a high byte
//	other characters    space # " < > ` { } that RFC 3986 does not allow
//
// RFC 3986 does not allow a raw [ ] ^ | in a path either, but browsers, Go and
// Python send them as they are and every parser reads them alike: forwarded
// byte for byte. Three things are legal and yet read in two ways. They set a
// bit of Quirks, which policy denies unless the rule opts in: an encoded slash,
// a ';' (or %3B, to those who decode first), and an empty segment.
//
// # Query (RFC 3986 section 3.4)
//
// Forwarded byte for byte, whatever '"<>[\]^`{|}' it holds. Refused are
// controls, space, '#', high bytes, broken triplets and %00. Whether ';' parts
// two parameters is a matter of opinion: such a query is forwarded, and
// QueryAmbiguous tells a rule that reads parameters not to.
//
// # Fields (RFC 9110)
//
// Hop-by-hop fields (RFC 9110 section 7.6.1), what Connection names, and what
// the writer makes anew (Host, Content-Length, Expect) are left out of Fields.
// Refused are: a second line of a field that has one value (Content-Type,
// Authorization, Cookie, …), a Connection that names such a field or one of
// framing, and the same names spelled with '_', since CGI reads Content_Length
// as Content-Length. The names that Trailer announces are kept; one that means
// something only before the body is refused. Fields and parameters that ask an
// origin to take another method, path or host than the one judged set the Quirk
// MethodOverride. One that asks for TRACE is refused as TRACE itself is: no rule
// can allow it.
//
// # What it does not do
//
// It reads no body, resolves nothing, keeps no clock and decides nothing: a
// Request that was parsed is unambiguous, not allowed. HTTP/1 framing is
// package http1's work, HTTP/2's is net/http's; FromHTTP2 refuses what that
// lets through. A request that net/http refuses by itself (a stream error, or
// its own 400 for a Connection field in HTTP/2) never gets here.
package canon

import (
	"errors"
	"fmt"
	"strconv"
)

// Scheme says what kind of connection a request goes out on. The zero value is
// none: nothing is sent for it.
type Scheme uint8

const (
	NoScheme Scheme = iota
	HTTPS
	HTTP
	Tunnel // a passthrough connection, judged by its host only
)

// String returns the word that rules and the audit log use.
func (s Scheme) String() string {
	switch s {
	case HTTPS:
		return "https"
	case HTTP:
		return "http"
	case Tunnel:
		return "tunnel"
	default:
		return ""
	}
}

// DefaultPort returns the port that an authority without one means, 0 if it
// must have one.
func (s Scheme) DefaultPort() uint16 {
	switch s {
	case HTTPS:
		return 443
	case HTTP:
		return 80
	default:
		return 0
	}
}

// Quirks are the legal things in a request that two servers may read in two
// ways. Policy denies a request that has one unless the rule opts in to it.
type Quirks uint16

const (
	EncodedSlash   Quirks = 1 << iota // %2F in the path
	Semicolon                         // ';' or %3B in the path
	DoubleSlash                       // an empty segment in the path
	MethodOverride                    // a field or parameter that replaces method, path or host
)

// String names the quirks as the policy file spells the opt-ins.
func (q Quirks) String() string {
	s := ""
	for _, n := range [...]struct {
		q    Quirks
		name string
	}{
		{EncodedSlash, "encodedSlash"}, {Semicolon, "semicolon"},
		{DoubleSlash, "doubleSlash"}, {MethodOverride, "methodOverride"},
	} {
		if q&n.q != 0 {
			if s != "" {
				s += ","
			}
			s += n.name
		}
	}
	return s
}

// The reasons of an Error: what the audit log and the metrics call it.
const (
	ReasonBadHost       = "bad_host"       // a host that is not a canonical name or address
	ReasonBadPort       = "bad_port"       // a port that is not 1-65535 without leading zeros
	ReasonNameMismatch  = "name_mismatch"  // Host or :authority is not the connection's name
	ReasonBadTarget     = "bad_target"     // a form of request target that does not belong here
	ReasonBadPath       = "bad_path"       // characters that a path must not have
	ReasonAmbiguousPath = "ambiguous_path" // dot segments, backslashes, double encoding
	ReasonBadQuery      = "bad_query"      // characters that a query must not have
	ReasonBadMethod     = "bad_method"     // not an upper-case token; TRACE
	ReasonNestedConnect = "nested_connect" // CONNECT or :protocol inside a tunnel
	ReasonBadScheme     = "bad_scheme"     // :scheme unlike the connection
	ReasonBadHeader     = "bad_header"     // repeated, disguised or misplaced fields
	ReasonBadFraming    = "bad_framing"    // content-length that contradicts itself
	ReasonBadTrailer    = "bad_trailer"    // an announced trailer that may not be one
	ReasonBadExpect     = "bad_expect"     // an expectation other than 100-continue
	ReasonTooManyFields = "too_many_fields"
	ReasonHeadTooLarge  = "head_too_large"
)

// ErrAmbiguous is what every *Error is, for errors.Is: the input has no single
// reading.
var ErrAmbiguous = errors.New("the request has no single reading")

// Error is a refusal of what the agent sent.
type Error struct {
	Reason string // one of our own words, for the audit log and metrics
	Status int    // what to answer: 400, 405, 417, 421, 431
	Detail string // for the log: the agent's bytes in it are quoted, ASCII and capped
}

func (e *Error) Error() string { return e.Reason + ": " + e.Detail }

// Is reports that an *Error is an ErrAmbiguous.
func (e *Error) Is(target error) bool { return target == ErrAmbiguous }

func refuse(reason string, status int, format string, args ...any) *Error {
	return &Error{Reason: reason, Status: status, Detail: fmt.Sprintf(format, args...)}
}

// maxQuoted caps how many of the agent's bytes an Error repeats.
const maxQuoted = 96

// quoted makes bytes of the agent fit for a log line: ASCII, escaped, capped.
func quoted[T ~string | ~[]byte](b T) string {
	if len(b) > maxQuoted {
		return strconv.QuoteToASCII(string(b[:maxQuoted])) + "... (" + strconv.Itoa(len(b)) + " bytes)"
	}
	return strconv.QuoteToASCII(string(b))
}
