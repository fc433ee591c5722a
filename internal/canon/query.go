package canon

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// Limits of what QueryKeys returns for the log.
const (
	maxQueryKeys = 64
	maxQueryKey  = 256 // bytes of one key
)

// CheckQuery refuses a query (without its '?') that parsers read differently;
// see the package comment. What it accepts is forwarded byte for byte.
func CheckQuery(q []byte) error {
	if e := judgeQuery(q); e != nil {
		return e
	}
	return nil
}

func judgeQuery(q []byte) *Error {
	for i := 0; i < len(q); i++ {
		switch c := q[i]; {
		case c == '%':
			v, ok := triplet(q[i:])
			if !ok {
				return refuse(ReasonBadQuery, 400, "broken percent-encoding in the query, %d bytes in", i)
			}
			if v == 0 {
				return refuse(ReasonBadQuery, 400, "encoded NUL in the query, %d bytes in", i)
			}
			i += 2
		case c <= ' ' || c >= 0x7f || c == '#':
			return refuse(ReasonBadQuery, 400, "byte %#02x in the query, %d bytes in", c, i)
		}
	}
	return nil
}

// QueryAmbiguous reports whether the parameters of the query have more than one
// reading: a ';', which separates parameters for some and is data for others,
// or a name or value that is not UTF-8 once decoded. A rule with a condition on
// parameters must not allow such a request.
func (r *Request) QueryAmbiguous() bool {
	if bytes.IndexByte(r.RawQuery, ';') >= 0 {
		return true
	}
	if bytes.IndexByte(r.RawQuery, '%') < 0 {
		return false // judged: ASCII
	}
	// Decoded as a whole: '&' and '=' cannot be part of a character, so the
	// query is UTF-8 if and only if all of its parts are.
	r.store.query = AppendDecoded(r.store.query[:0], r.RawQuery)
	return !utf8.Valid(r.store.query)
}

// QueryKeys appends the decoded names of the query's parameters to dst, each
// once, in order: at most 64, each cut to 256 bytes. all is how many there are, where
// those beyond 64 count each time. Never a value: a piece without '=' may be a flag or
// all of a secret, which nothing tells apart, and is "", unless it is a word that is
// known to be an operation of its own. It is for the log and allocates.
func (r *Request) QueryKeys(dst []string) (keys []string, all int) {
	n := len(dst)
	var buf []byte
	for key, value := range r.parameters {
		if len(dst)-n == maxQueryKeys {
			all++
			continue
		}
		if value == nil && !subresource(string(key)) {
			key = nil
		}
		buf = appendFormDecoded(buf[:0], key)
		if len(buf) > maxQueryKey {
			buf = buf[:maxQueryKey]
		}
		if k := string(buf); !slices.Contains(dst[n:], k) {
			dst = append(dst, k)
			all++
		}
	}
	return dst, all
}

// subresource reports a word that stands alone in a query of S3's API, and of those
// that are like it, and makes another operation of the request: PUT ?acl may publish
// what PUT stores, and DELETE ?policy deletes no object (Amazon S3 API Reference). A
// record that hid them would not say what was done, and one that has them says no more
// than which of these words it was.
func subresource(word string) bool {
	switch word {
	case "accelerate", "acl", "analytics", "attributes", "cors", "delete", "encryption", "intelligent-tiering", "inventory",
		"legal-hold", "lifecycle", "location", "logging", "metrics", "notification", "object-lock", "ownershipControls",
		"policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "restore", "retention", "select",
		"session", "tagging", "torrent", "uploads", "versioning", "versions", "website":
		return true
	default:
		return false
	}
}

// parameters yields the parameters that have a name, raw, parted by '&' and by
// ';', whatever an origin may think of the latter. The value of one without '=' is nil.
func (r *Request) parameters(yield func(key, value []byte) bool) {
	q := r.RawQuery
	for len(q) > 0 {
		pair := q
		if i := bytes.IndexAny(q, "&;"); i >= 0 {
			pair, q = q[:i], q[i+1:]
		} else {
			q = nil
		}
		key, value, _ := bytes.Cut(pair, []byte("="))
		if len(key) > 0 && !yield(key, value) {
			return
		}
	}
}

// appendFormDecoded decodes as application/x-www-form-urlencoded: '+' is a space.
func appendFormDecoded(dst, p []byte) []byte {
	n := len(dst)
	for _, c := range p {
		if c == '+' {
			c = ' '
		}
		dst = append(dst, c)
	}
	// Triplets hold no '+', and decoding makes the text shorter: in place.
	return AppendDecoded(dst[:n], dst[n:])
}

// overrideInQuery sets the quirk of a parameter that asks for another method:
// _method (Rails, Symfony, Laravel, Express) and the field names that Google's
// and other gateways take as parameters.
func (r *Request) overrideInQuery() *Error {
	for key, value := range r.parameters {
		if !overrideParameter(key) {
			continue
		}
		r.Quirks |= MethodOverride
		r.store.query = appendFormDecoded(r.store.query[:0], value)
		if echoing(r.store.query) {
			return refuse(ReasonBadMethod, 405, "a parameter of the query asks for a method that would echo the request")
		}
	}
	return nil
}

// overrideParameter compares a raw name as the most generous origin would: PHP
// drops leading spaces, turns '.' and space into '_' and takes name[] for name.
func overrideParameter(raw []byte) bool {
	for len(raw) > 0 {
		if raw[0] == '+' {
			raw = raw[1:]
		} else if bytes.HasPrefix(raw, []byte("%20")) {
			raw = raw[3:]
		} else {
			break
		}
	}
	if len(raw) < len("_method") {
		return false
	}
	var buf [72]byte // holds x-http-method-override and '[', all of it encoded
	key := appendFormDecoded(buf[:0], raw[:min(len(raw), len(buf))])
	if i := bytes.IndexByte(key, '['); i > 0 {
		key = key[:i]
	}
	for i, c := range key {
		switch {
		case c == '.' || c == ' ' || c == '-':
			key[i] = '_'
		case 'A' <= c && c <= 'Z':
			key[i] = c + 'a' - 'A'
		}
	}
	switch string(key) {
	case "_method", "x_http_method_override", "x_http_method", "x_method_override", "$httpmethod":
		return true
	default:
		return false
	}
}
