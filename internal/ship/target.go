package ship

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// Kind is what kind of place something is shipped to.
type Kind string

// The kinds.
const (
	File    Kind = "file"    // an anchor
	HTTP    Kind = "http"    // an anchor
	OTLP    Kind = "otlp"    // a sink
	Webhook Kind = "webhook" // a sink
)

// otlpPort is where collectors listen for OTLP over HTTP.
const otlpPort = "4318"

// Target is where something is shipped. Only ParseAnchor and ParseSink make one.
type Target struct {
	kind   Kind
	file   string  // of a file anchor
	url    url.URL // of the others; http or https, without userinfo
	header string  // value of Authorization, "" for none
	secret []string
}

// Kind returns what kind of place it is.
func (t *Target) Kind() Kind { return t.kind }

// String names the target for people: a file, or scheme, host and port. What
// else is in a URL may be a secret.
func (t *Target) String() string {
	if t.kind == File {
		return t.file
	}
	return t.url.Scheme + "://" + t.url.Host
}

// id names the target in file names, the same in each run.
func (t *Target) id() string {
	sum := sha256.Sum256([]byte(t.url.Scheme + "://" + t.url.Host + t.url.EscapedPath()))
	return string(t.kind) + "-" + hex.EncodeToString(sum[:4])
}

// ParseAnchor reads the value of --audit-anchor: a file, or the URL of an HTTP
// endpoint. Errors do not repeat a URL, which may hold a password.
func ParseAnchor(s string) (Target, error) {
	if !strings.Contains(s, "://") {
		if s == "" || strings.HasSuffix(s, "/") {
			return Target{}, errors.New("want a FILE, or a URL like https://anchor.example/log")
		}
		return Target{kind: File, file: s}, nil
	}
	t, err := parseURL(s)
	if err != nil {
		return Target{}, err
	}
	if t.url.Scheme != "http" && t.url.Scheme != "https" {
		return Target{}, fmt.Errorf("%.20q is no scheme of an anchor: want a FILE, or a URL like https://anchor.example/log", t.url.Scheme)
	}
	t.kind = HTTP
	return t, nil
}

// ParseSink reads the value of --audit-sink.
func ParseSink(s string) (Target, error) {
	t, err := parseURL(s)
	if err != nil {
		return Target{}, err
	}
	switch t.url.Scheme {
	case "http", "https":
		t.kind = Webhook
		return t, nil
	case "otlp":
		t.url.Scheme = "http"
	case "otlps":
		t.url.Scheme = "https"
	default:
		return Target{}, fmt.Errorf("%.20q is no scheme of a sink: want otlp://host:4318, otlps://host:4318 or https://host/path", t.url.Scheme)
	}
	t.kind = OTLP
	if t.url.RawQuery != "" {
		return Target{}, errors.New("an OTLP address has no query: want otlp://host:4318")
	}
	switch t.url.Port() {
	case "":
		t.url.Host = net.JoinHostPort(t.url.Hostname(), otlpPort)
	case "4317":
		return Target{}, errors.New("port 4317 is where collectors take OTLP over gRPC, and this engine sends OTLP over HTTP: use port 4318")
	}
	if t.url.Path == "" || t.url.Path == "/" {
		t.url.Path, t.url.RawPath = "/v1/logs", ""
	}
	return t, nil
}

func parseURL(s string) (Target, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" || u.Fragment != "" {
		return Target{}, errors.New("want a URL like https://host:port/path; in user and password, write what is not a letter or a digit as %XX")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return Target{}, errors.New("want a URL with a port from 1 to 65535, or without one")
		}
	}
	t := Target{url: *u}
	t.url.User = nil
	if u.User != nil {
		user := u.User.Username()
		if password, basic := u.User.Password(); basic {
			code := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
			t.header, t.secret = "Basic "+code, []string{password, code}
		} else {
			t.header, t.secret = "Bearer "+user, []string{user}
		}
		if strings.ContainsFunc(t.header, func(r rune) bool { return r < ' ' || r > '~' }) {
			return Target{}, errors.New("a token has a character that no header can carry")
		}
	}
	if u.RawQuery != "" {
		t.secret = append(t.secret, u.RawQuery)
	}
	return t, nil
}

// inClear reports whether credentials would cross a network unencrypted.
func (t *Target) inClear() bool {
	if t.header == "" || t.url.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(t.url.Hostname())
	return t.url.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// maxSaid is how much of an error's text is kept.
const maxSaid = 300

// scrub returns an error's text in one line, without credentials: a server may
// have sent them back.
func (t *Target) scrub(text string) string {
	for _, s := range t.secret {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	return text
}
