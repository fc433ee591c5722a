package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// The differential: what the engine sent upstream is read by the parsers that
// origins really have. A stream that two of them read in two ways is what
// request smuggling is made of.

// reading is one request as an origin's parser read it.
type reading struct {
	Method string `json:"method"`
	Path   []byte `json:"path"` // decoded, without the query
	Body   []byte `json:"body"`
}

// originResult is what one origin made of all streams.
type originResult struct {
	name, version string
	streams       int
	requests      int
	missing       string // why it was not asked
	disagree      []string
}

func (o originResult) said() string {
	if o.missing != "" {
		return "not asked: " + o.missing
	}
	return fmt.Sprintf("%d streams, %d requests, %d disagreements", o.streams, o.requests, len(o.disagree))
}

// stream is what one connection carried, with what the strict reader makes of it.
type stream struct {
	raw  string
	want []request
}

// streams are the distinct ones that the upstream holds, each of whole requests
// alone. The number of a case and of the port is no difference.
func (l *lab) streams() []stream {
	strict, seen := newStrictReader(), map[string]bool{}
	host := regexp.MustCompile(`c\d+\.`)
	var all []stream
	for n, conns := range l.up.seen() {
		for _, c := range conns {
			raw := string(c.raw)
			key := host.ReplaceAllString(raw, "")
			if n < 0 || !c.tls || raw == "" || seen[key] {
				continue
			}
			seen[key] = true
			found, err := strict.all(raw)
			if err == nil && found[len(found)-1].complete {
				all = append(all, stream{raw, found})
			}
		}
	}
	return all
}

// differential asks every origin. An origin that cannot be had is named.
func (l *lab) differential(ctx context.Context) ([]originResult, error) {
	all := l.streams()
	var results []originResult
	for _, o := range origins() {
		res := originResult{name: o.name}
		addr, version, stop, err := o.start(ctx, l)
		if err != nil {
			res.missing = err.Error()
			results = append(results, res)
			continue
		}
		res.version = version
		for _, s := range all {
			got, err := replay(addr, s)
			if err == nil {
				err = s.compare(got)
			}
			if err != nil {
				res.disagree = append(res.disagree, fmt.Sprintf("%s reads %.300q otherwise: %v", o.name, s.raw, err))
			}
			res.streams, res.requests = res.streams+1, res.requests+len(got)
		}
		stop()
		results = append(results, res)
		if err := ctx.Err(); err != nil {
			return results, err
		}
	}
	return results, nil
}

// last is the request behind every stream: an origin that swallowed it, or that
// saw another before it, has read the stream otherwise.
const last = "GET /files/last HTTP/1.1\r\nHost: last.test\r\nConnection: close\r\n\r\n"

// replay sends a stream and returns what the origin read, without the last.
func replay(addr string, s stream) ([]reading, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(conn, s.raw+last); err != nil {
		return nil, err
	}
	var all []reading
	r := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(r, nil)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return all, err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return all, err
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		var one reading
		if err := json.Unmarshal(body, &one); err != nil {
			return all, fmt.Errorf("it answers %d %.60q", resp.StatusCode, body)
		}
		all = append(all, one)
	}
	if n := len(all); n == 0 || string(all[n-1].Path) != "/files/last" {
		return all, fmt.Errorf("the request behind it was not read: %d requests", n)
	}
	return all[:len(all)-1], nil
}

// compare says where an origin's reading differs from the strict reader's.
func (s stream) compare(got []reading) error {
	if len(got) != len(s.want) {
		return fmt.Errorf("%d requests, not %d", len(got), len(s.want))
	}
	for i, w := range s.want {
		path, _, _ := strings.Cut(w.target, "?")
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return err
		}
		g := got[i]
		if g.Method != w.method || string(g.Path) != decoded || !bytes.Equal(g.Body, []byte(w.body)) {
			return fmt.Errorf("%s %q with %.60q, not %s %q with %.60q", g.Method, g.Path, g.Body, w.method, decoded, w.body)
		}
	}
	return nil
}
