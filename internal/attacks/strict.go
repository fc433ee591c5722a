package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file reads what reached the upstream as the strictest reader there is,
// and shares no code with the engine or net/http. What it cannot read in
// exactly one way, some origin reads in another.

// request is one that arrived.
type request struct {
	method, target, host string
	fields               []field
	trailers             []field
	body                 string
	complete             bool
}

type field struct{ name, value string }

func (r request) line() string { return r.method + " " + r.target }

// get returns the values of the fields of this name, in lower case, with
// underscores taken for hyphens, as CGI does.
func (r request) get(name string) []string {
	var all []string
	for _, f := range r.fields {
		if strings.ReplaceAll(strings.ToLower(f.name), "_", "-") == name {
			all = append(all, f.value)
		}
	}
	return all
}

// strictReader is the syntax. Its zero value is not ready; use newStrictReader.
type strictReader struct {
	line, field, size, length *regexp.Regexp
}

func newStrictReader() *strictReader {
	return &strictReader{
		line:   regexp.MustCompile(`^([A-Z]+(?:-[A-Z]+)*) ([!-~]+) HTTP/1\.1$`),
		field:  regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \\t]*(.*)$"),
		size:   regexp.MustCompile(`^[0-9A-Fa-f]{1,16}$`),
		length: regexp.MustCompile(`^(0|[1-9][0-9]{0,17})$`),
	}
}

// errShort means that a request is not all there.
var errShort = errors.New("it stops short")

// all reads every request of raw. Where the last is not whole, it is among them
// with complete false. An error means bytes that two readers read in two ways.
func (s *strictReader) all(raw string) ([]request, error) {
	var found []request
	for raw != "" {
		r, rest, err := s.one(raw)
		if errors.Is(err, errShort) {
			return append(found, r), nil
		}
		if err != nil {
			return append(found, r), err
		}
		found, raw = append(found, r), rest
		if len(r.get("upgrade")) > 0 && raw != "" {
			break // what follows is the other protocol's
		}
	}
	return found, nil
}

// one reads the first request of raw.
func (s *strictReader) one(raw string) (r request, rest string, err error) {
	head, rest, ok := strings.Cut(raw, "\r\n\r\n")
	if !ok {
		if strings.ContainsAny(strings.ReplaceAll(raw, "\r\n", ""), "\n\x00") {
			return r, "", fmt.Errorf("a head with %.80q", raw)
		}
		return r, "", errShort
	}
	lines := strings.Split(head, "\r\n")
	m := s.line.FindStringSubmatch(lines[0])
	if m == nil {
		return r, "", fmt.Errorf("the request line %.80q", lines[0])
	}
	r.method, r.target = m[1], m[2]
	if r.fields, err = s.fields(lines[1:]); err != nil {
		return r, "", err
	}
	hosts := r.get("host")
	if len(hosts) != 1 {
		return r, "", fmt.Errorf("%d hosts", len(hosts))
	}
	r.host = hosts[0]
	if err := singleReading(r); err != nil {
		return r, "", err
	}
	rest, err = s.body(&r, rest)
	r.complete = err == nil
	return r, rest, err
}

func (s *strictReader) fields(lines []string) (all []field, err error) {
	for _, l := range lines {
		m := s.field.FindStringSubmatch(l)
		if m == nil || strings.ContainsFunc(l, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return all, fmt.Errorf("the field %.80q", l)
		}
		all = append(all, field{m[1], strings.Trim(m[2], " \t")})
	}
	return all, nil
}

// overrides are fields that some origin or gateway takes for the method, the
// path or the host (row A19).
func overrides() []string {
	return []string{
		"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
		"x-forwarded-host", "x-original-host", "x-host", "x-forwarded-prefix",
	}
}

// singleReading refuses fields that contradict each other or the request line.
func singleReading(r request) error {
	for _, name := range []string{"content-length", "transfer-encoding", "content-type", "content-encoding", "authorization", "expect", "upgrade"} {
		if n := len(r.get(name)); n > 1 {
			return fmt.Errorf("%d fields %s", n, name)
		}
	}
	for _, f := range r.fields {
		if strings.Contains(f.name, "_") && slices.Contains([]string{"content-length", "transfer-encoding", "host", "content-type"}, strings.ReplaceAll(strings.ToLower(f.name), "_", "-")) {
			return fmt.Errorf("the field %s", f.name)
		}
	}
	if e := r.get("expect"); len(e) > 0 && !strings.EqualFold(e[0], "100-continue") {
		return fmt.Errorf("the expectation %q", e[0])
	}
	if u := r.get("upgrade"); len(u) > 0 && (!strings.EqualFold(u[0], "websocket") || r.method != "GET" || len(r.get("sec-websocket-key")) != 1) {
		return fmt.Errorf("an upgrade to %q by %s", u[0], r.method)
	}
	if len(r.get("content-length")) > 0 && len(r.get("transfer-encoding")) > 0 {
		return errors.New("a length and chunks")
	}
	return nil
}

func (s *strictReader) body(r *request, rest string) (string, error) {
	if lengths := r.get("content-length"); len(lengths) > 0 {
		if !s.length.MatchString(lengths[0]) {
			return "", fmt.Errorf("the length %q", lengths[0])
		}
		n, _ := strconv.Atoi(lengths[0])
		r.body = rest[:min(n, len(rest))]
		if len(rest) < n {
			return "", errShort
		}
		return rest[n:], nil
	}
	codings := r.get("transfer-encoding")
	if len(codings) == 0 {
		return rest, nil
	}
	if !strings.EqualFold(codings[0], "chunked") {
		return "", fmt.Errorf("the coding %q", codings[0])
	}
	return s.chunks(r, rest)
}

func (s *strictReader) chunks(r *request, rest string) (string, error) {
	for {
		line, after, ok := strings.Cut(rest, "\r\n")
		if !ok {
			return "", errShort
		}
		if !s.size.MatchString(line) {
			return "", fmt.Errorf("the chunk size %.40q", line)
		}
		n, err := strconv.ParseInt(line, 16, 63)
		if err != nil {
			return "", fmt.Errorf("the chunk size %.40q", line)
		}
		if n == 0 {
			return s.trailers(r, after)
		}
		if int64(len(after)) < n+2 {
			r.body += after[:min(int64(len(after)), n)]
			return "", errShort
		}
		if after[n:n+2] != "\r\n" {
			return "", fmt.Errorf("a chunk that ends in %q", after[n:n+2])
		}
		r.body += after[:n]
		rest = after[n+2:]
	}
}

// trailers reads those of r, which may be these two alone: any that frames, routes
// or authenticates means something else to whoever merges trailers into the head.
func (s *strictReader) trailers(r *request, rest string) (string, error) {
	for {
		line, after, ok := strings.Cut(rest, "\r\n")
		if !ok {
			return "", errShort
		}
		rest = after
		if line == "" {
			return rest, nil
		}
		all, err := s.fields([]string{line})
		if err != nil {
			return "", err
		}
		name := strings.ReplaceAll(strings.ToLower(all[0].name), "_", "-")
		if name != "x-checksum" && name != "server-timing" {
			return "", fmt.Errorf("the trailer %s", all[0].name)
		}
		r.trailers = append(r.trailers, all[0])
	}
}

// onePath reports why a path has more readings than one.
func onePath(path string) error {
	lower := strings.ToLower(path)
	for _, mark := range []string{"//", ";", "\\", "#", "%2f", "%5c", "%2e", "%3b", "%25", "%7f", "%00"} {
		if strings.Contains(lower, mark) {
			return fmt.Errorf("%q in the path %.80q", mark, path)
		}
	}
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("the target %.80q", path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("a dot segment in the path %.80q", path)
		}
	}
	var decoded []byte
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			v, err := strconv.ParseUint(path[min(i+1, len(path)):min(i+3, len(path))], 16, 8)
			if err != nil || i+3 > len(path) {
				return fmt.Errorf("a broken triplet in the path %.80q", path)
			}
			c, i = byte(v), i+2
		}
		if c < ' ' {
			return fmt.Errorf("a control byte in the path %.80q", path)
		}
		decoded = append(decoded, c)
	}
	if !utf8.Valid(decoded) {
		return fmt.Errorf("bytes that are no UTF-8 in the path %.80q", path)
	}
	return nil
}
