package policy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

const (
	// defaultBodyLimit is how much of a body a condition reads where its rule
	// has no requestBytes.
	defaultBodyLimit = 1 << 20 // 1 MiB

	// maxRatio is how many times its size a compressed body may grow, beyond
	// freeGrowth. JSON of people's text compresses to a tenth at best.
	maxRatio   = 100
	freeGrowth = 64 << 10 // 64 KiB
)

// errBody is a body that cannot be read in one way only.
type errBody struct{ problem string }

func (e *errBody) Error() string { return e.problem }

// readBody decodes and parses what a condition reads. Wire is the body as it
// was sent; limit bounds what it decodes to. A request without a body gives nil
// and false.
func readBody(req *canon.Request, wire []byte, limit int64) (value any, present bool, err error) {
	if len(wire) == 0 && !hasBody(req) {
		return nil, false, nil
	}
	if err := checkContentType(req); err != nil {
		return nil, false, err
	}
	text, err := decodeBody(req, wire, limit)
	if err != nil {
		return nil, false, err
	}
	value, err = StrictJSON(text)
	return value, true, err
}

// hasBody reports that the request is framed with a body that is not empty.
func hasBody(req *canon.Request) bool { return req.Framing != 0 && req.Length != 0 }

// single returns the one value of a header. Two fields of a name, or a list in
// one, are an error: receivers differ in which they take.
func single(req *canon.Request, name string) (string, error) {
	value, found := "", false
	for _, f := range req.Fields {
		if len(f.Name) != len(name) || !strings.EqualFold(string(f.Name), name) {
			continue
		}
		if found || bytes.IndexByte(f.Value, ',') >= 0 {
			return "", &errBody{"there are two values of " + name}
		}
		value, found = string(f.Value), true
	}
	return value, nil
}

// checkContentType accepts application/json and application/*+json, with no
// charset or UTF-8.
func checkContentType(req *canon.Request) error {
	value, err := single(req, "content-type")
	if err != nil {
		return err
	}
	kind, params, more := strings.Cut(strings.ToLower(value), ";")
	kind = strings.TrimRight(kind, " \t")
	sub, ok := strings.CutPrefix(kind, "application/")
	if !ok || sub != "json" && (!strings.HasSuffix(sub, "+json") || !mediaToken(sub)) {
		return &errBody{fmt.Sprintf("the content-type is %.80q and the rule reads JSON", value)}
	}
	seen := map[string]bool{}
	for more {
		var param string
		param, params, more = strings.Cut(params, ";")
		name, v, _ := strings.Cut(strings.Trim(param, " \t"), "=")
		if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
		}
		if seen[name] || !mediaToken(name) || !mediaToken(v) || name == "charset" && v != "utf-8" {
			return &errBody{fmt.Sprintf("the content-type %.80q has a charset other than UTF-8 or a parameter that is not plain", value)}
		}
		seen[name] = true
	}
	return nil
}

// mediaToken is RFC 9110's token, in lower case and without the rarer signs.
func mediaToken(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-+._") == ""
}

// decodeBody undoes the one content encoding there may be.
func decodeBody(req *canon.Request, wire []byte, limit int64) ([]byte, error) {
	encoding, err := single(req, "content-encoding")
	if err != nil {
		return nil, err
	}
	src := bytes.NewReader(wire)
	var dec io.Reader
	switch strings.ToLower(encoding) {
	case "", "identity":
		return wire, nil
	case "gzip", "x-gzip":
		gz, err := gzip.NewReader(src)
		if err != nil {
			return nil, &errBody{"the body is not gzip: " + err.Error()}
		}
		gz.Multistream(false) // some receivers read the first member only
		dec = gz
	case "deflate":
		if dec, err = zlib.NewReader(src); err != nil {
			return nil, &errBody{"the body is not deflate (RFC 1950): " + err.Error()}
		}
	default:
		return nil, &errBody{fmt.Sprintf("the content-encoding is %.40q; gzip, deflate and identity can be read", encoding)}
	}
	most := min(limit, int64(len(wire))*maxRatio+freeGrowth)
	text, err := io.ReadAll(io.LimitReader(dec, most+1))
	switch {
	case err != nil:
		return nil, &errBody{"the compressed body is broken: " + err.Error()}
	case int64(len(text)) > limit:
		return nil, errTooLarge
	case int64(len(text)) > most:
		return nil, &errBody{fmt.Sprintf("the compressed body grows more than %d times", maxRatio)}
	case src.Len() > 0:
		return nil, &errBody{"there is data after the compressed body"}
	}
	return text, nil
}

// errTooLarge is a body that decodes to more than the rule reads.
var errTooLarge = errors.New("the body decodes to more than the rule reads")
