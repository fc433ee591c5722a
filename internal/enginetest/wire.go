package enginetest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// This file reads HTTP/1.1 requests as an origin does. It shares no code with
// the engine and none with net/http, so that what it says the origin saw does
// not depend on what is tested. It takes only the one spelling that the engine
// writes: anything else is a fault of the engine and fails the test.

// keepBody is how much of a body is kept for a test to look at. All of it is
// counted and digested.
const keepBody = 1 << 20 // 1 MiB

// Field is one header line as it arrived.
type Field struct{ Name, Value string }

// Seen is one request as it arrived at an origin.
type Seen struct {
	Conn     int    // the connection it came on, from 0
	Head     string // as it came, up to and including the empty line; "" for HTTP/2
	Method   string
	Target   string // path and query, byte for byte
	Proto    string // "HTTP/1.1", "HTTP/2.0"
	Host     string
	Fields   []Field
	Body     []byte // without chunk framing, at most 1 MiB of it
	Trailers []Field

	BodyBytes  int64
	BodySHA256 string // lower-case hex, of the body without chunk framing
	Complete   bool   // the body's end was seen
}

// Get returns the first value of the field with the given name, "" if there is
// none.
func (s Seen) Get(name string) string {
	for _, f := range s.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Count returns how many fields have the given name.
func (s Seen) Count(name string) int {
	n := 0
	for _, f := range s.Fields {
		if strings.EqualFold(f.Name, name) {
			n++
		}
	}
	return n
}

// Path returns the target without its query.
func (s Seen) Path() string {
	path, _, _ := strings.Cut(s.Target, "?")
	return path
}

// String is the line a failing test prints.
func (s Seen) String() string {
	cut := ""
	if !s.Complete {
		cut = ", cut short"
	}
	return fmt.Sprintf("%s %s %s (Host %s, %d bytes of body%s)", s.Method, s.Target, s.Proto, s.Host, s.BodyBytes, cut)
}

// readHead reads a request's head. io.EOF means that the peer is done.
func readHead(r *bufio.Reader) (*Seen, error) {
	s := new(Seen)
	line, err := readLine(r, s)
	if err != nil {
		return nil, err
	}
	part := strings.Split(line, " ")
	if len(part) != 3 || part[0] == "" || part[1] == "" || part[2] != "HTTP/1.1" {
		return s, fmt.Errorf("request line %q is not METHOD TARGET HTTP/1.1", line)
	}
	s.Method, s.Target, s.Proto = part[0], part[1], part[2]
	for {
		line, err := readLine(r, s)
		if err != nil {
			return s, noEOF(err)
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || value != strings.Trim(value, " \t") {
			return s, fmt.Errorf("field %q is not Name: value", line)
		}
		s.Fields = append(s.Fields, Field{name, value})
	}
	s.Host = s.Get("Host")
	if s.Count("Host") != 1 {
		return s, fmt.Errorf("%d Host fields in %q", s.Count("Host"), s.Head)
	}
	return s, nil
}

func readLine(r *bufio.Reader, s *Seen) (string, error) {
	line, err := r.ReadString('\n')
	s.Head += line
	if err != nil {
		if line != "" {
			err = noEOF(err)
		}
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		return "", fmt.Errorf("line %q does not end in CR LF or holds a control character", line)
	}
	return text, nil
}

// bodyReader reads the body of the request s and fills in what was seen of it
// as it goes, so that a body that breaks off is accounted for as far as it came.
type bodyReader struct {
	r       *bufio.Reader
	s       *Seen
	seen    func(Seen) // told of s whenever it changed; may be nil
	sum     hash.Hash
	chunked bool
	left    int64 // of the body, or of the chunk
	begun   bool  // a chunk was read: a CR LF is due before the next size
	err     error
}

func newBodyReader(r *bufio.Reader, s *Seen, seen func(Seen)) (*bodyReader, error) {
	b := &bodyReader{r: r, s: s, seen: seen, sum: newSum()}
	lengths, codings := s.Count("Content-Length"), s.Count("Transfer-Encoding")
	switch {
	case lengths == 0 && codings == 0:
	case lengths == 1 && codings == 0:
		n, err := strconv.ParseInt(s.Get("Content-Length"), 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != s.Get("Content-Length") || n < 0 {
			return nil, fmt.Errorf("Content-Length %q", s.Get("Content-Length"))
		}
		b.left = n
	case lengths == 0 && codings == 1 && s.Get("Transfer-Encoding") == "chunked":
		b.chunked = true
	default:
		return nil, fmt.Errorf("framing that two readers can read in two ways: %q", s.Head)
	}
	b.account(nil)
	return b, nil
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left == 0 {
		if b.err = b.next(); b.err != nil {
			return 0, b.err
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	b.account(p[:n])
	if err != nil {
		b.err = noEOF(err)
	}
	return n, b.err
}

// next finds the next chunk. io.EOF is the body's proper end.
func (b *bodyReader) next() error {
	if !b.chunked {
		return b.end()
	}
	var framing Seen // takes the lines that are no part of the head
	if b.begun {
		if line, err := readLine(b.r, &framing); err != nil || line != "" {
			return errors.Join(noEOF(err), fmt.Errorf("chunk ends in %q", framing.Head))
		}
	}
	b.begun = true
	line, err := readLine(b.r, &framing)
	if err != nil {
		return noEOF(err)
	}
	size, err := strconv.ParseUint(line, 16, 62)
	if err != nil {
		return fmt.Errorf("chunk size %q: extensions and anything but hex digits must not be forwarded", line)
	}
	if b.left = int64(size); size > 0 {
		return nil
	}
	for {
		line, err := readLine(b.r, &framing)
		if err != nil {
			return noEOF(err)
		}
		if line == "" {
			return b.end()
		}
		name, value, _ := strings.Cut(line, ": ")
		b.s.Trailers = append(b.s.Trailers, Field{name, value})
	}
}

func (b *bodyReader) end() error {
	b.s.Complete = true
	b.account(nil)
	return io.EOF
}

func (b *bodyReader) account(p []byte) {
	b.sum.Write(p)
	b.s.BodyBytes += int64(len(p))
	b.s.BodySHA256 = hex.EncodeToString(b.sum.Sum(nil))
	if room := keepBody - len(b.s.Body); room > 0 {
		b.s.Body = append(b.s.Body, p[:min(room, len(p))]...)
	}
	if b.seen != nil {
		b.seen(*b.s)
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func newSum() hash.Hash { return sha256.New() }
