package proxy_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// h2wire is an HTTP/2 client in a test's own hands: it writes the frames that
// it is told to, well formed or not.
type h2wire struct {
	*enginetest.Conn
	t      *testing.T
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32 // the stream that open takes
	gone   error  // why no more frames come
}

// h2answer is what became of a stream.
type h2answer struct {
	Status  int
	Interim []int
	Fields  map[string]string // of the head; trailers under "trailer:name"
	Body    string
	Ended   bool          // END_STREAM came
	Reset   http2.ErrCode // where Ended is false
	Gone    bool          // the connection ended first
}

func (a h2answer) String() string {
	return fmt.Sprintf("status %d %q, ended %t, reset %v, gone %t, body %.200q", a.Status, a.Fields["x-aegrail-reason"], a.Ended, a.Reset, a.Gone, a.Body)
}

// dialH2 returns an HTTP/2 connection in a tunnel to host, its preface sent.
func dialH2(t *testing.T, e *enginetest.Engine, host string, settings ...http2.Setting) *h2wire {
	t.Helper()
	return newH2wire(t, e.RawTunnel(t, host, &enginetest.TunnelOptions{ALPN: []string{"h2"}}), settings...)
}

func newH2wire(t *testing.T, conn *enginetest.Conn, settings ...http2.Setting) *h2wire {
	t.Helper()
	if p := conn.State().NegotiatedProtocol; p != "h2" {
		t.Fatalf("the engine chose %q, want h2", p)
	}
	c := &h2wire{Conn: conn, t: t, framer: http2.NewFramer(conn.Conn, conn), next: 1}
	c.framer.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.block)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	conn.Send(http2.ClientPreface)
	if err := c.framer.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// encode makes a header block of "name: value" lines, in their order; pseudo
// fields begin with a colon as on the wire.
func (c *h2wire) encode(fields ...string) []byte {
	c.block.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		if err := c.enc.WriteField(hpack.HeaderField{Name: f[:i], Value: f[i+2:]}); err != nil {
			c.t.Fatal(err)
		}
	}
	return bytes.Clone(c.block.Bytes())
}

// open sends a HEADERS frame on a new stream.
func (c *h2wire) open(end bool, fields ...string) (stream uint32) {
	stream = c.next
	c.next += 2
	// An engine that has closed is noticed where the answer is read.
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.encode(fields...), EndStream: end, EndHeaders: true})
	return stream
}

func (c *h2wire) data(stream uint32, end bool, p string) {
	_ = c.framer.WriteData(stream, end, []byte(p))
}

// get opens a stream with an ordinary request.
func (c *h2wire) get(authority, path string) uint32 {
	return c.open(true, ":method: GET", ":scheme: https", ":authority: "+authority, ":path: "+path)
}

// answer reads frames until stream is over.
func (c *h2wire) answer(stream uint32) h2answer {
	c.t.Helper()
	a := h2answer{Fields: map[string]string{}}
	c.read(stream, &a, func() bool { return false })
	return a
}

// readAll reads frames until every one of the streams is over.
func (c *h2wire) readAll(answers map[uint32]*h2answer) {
	c.t.Helper()
	for left := len(answers); left > 0; {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		if a := answers[frame.Header().StreamID]; a != nil && !a.Ended && (a.take(frame) || a.Ended) {
			left--
		}
	}
}

// read takes frames of stream into a until enough, or the stream's end. Frames
// of other streams are dropped.
func (c *h2wire) read(stream uint32, a *h2answer, enough func() bool) {
	c.t.Helper()
	for !enough() && !a.Ended {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			c.gone, a.Gone = err, true
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.framer.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			c.gone = http2.GoAwayError{ErrCode: f.ErrCode}
		}
		if frame.Header().StreamID == stream && a.take(frame) {
			return
		}
	}
}

// take adds what a frame of the stream says, and reports a reset.
func (a *h2answer) take(frame http2.Frame) (reset bool) {
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		status, _ := strconv.Atoi(f.PseudoValue("status"))
		if status >= 100 && status < 200 {
			a.Interim = append(a.Interim, status)
		}
		prefix := ""
		if a.Status >= 200 {
			prefix = "trailer:"
		} else {
			a.Status = status
		}
		for _, field := range f.RegularFields() {
			a.Fields[prefix+field.Name] = field.Value
		}
		a.Ended = f.StreamEnded()
	case *http2.DataFrame:
		a.Body += string(f.Data())
		a.Ended = f.StreamEnded()
	case *http2.RSTStreamFrame:
		a.Reset = f.ErrCode
		return true
	}
	return false
}

// TestH01ToH08WhatTheStandardServerAccepts has the requests that Go's HTTP/2
// server hands to its handler and that have two readings. Each is refused on
// its own stream; the connection goes on.
func TestH01ToH08WhatTheStandardServerAccepts(t *testing.T) {
	e := enginetest.Start(t, nil)
	host := e.Authority("allowed.test")
	req := func(method, scheme, authority, path string, more ...string) []string {
		fields := []string{":method: " + method, ":scheme: " + scheme}
		if authority != "-" {
			fields = append(fields, ":authority: "+authority)
		}
		return append(append(fields, ":path: "+path), more...)
	}
	for _, row := range []struct {
		id, what string
		fields   []string
		body     bool
		status   int
		reason   string
	}{
		{"H1", ":path is a URL", req("GET", "https", host, "http://evil.test/x"), false, 400, "bad_target"},
		{"H1", ":path is a URL of the same host", req("GET", "https", host, "https://"+host+"/x"), false, 400, "bad_target"},
		{"H1", ":path is *", req("GET", "https", host, "*"), false, 400, "bad_target"},
		{"H1", ":path has no slash", req("GET", "https", host, "x:y"), false, 400, "bad_target"},
		{"H2", "a raw space in :path", req("GET", "https", host, "/a b"), false, 400, "bad_path"},
		{"H2", "a fragment in :path", req("GET", "https", host, "/a#b"), false, 400, "bad_path"},
		{"H2", "a raw space in the query", req("GET", "https", host, "/a?b c"), false, 400, "bad_query"},
		{"H3", ":authority unlike host", req("GET", "https", host, "/", "host: denied.test"), false, 421, "name_mismatch"},
		{"H3", ":authority unlike host by its port", req("GET", "https", host, "/", "host: allowed.test"), false, 421, "name_mismatch"},
		{"H3", "two host fields", req("GET", "https", host, "/", "host: "+host, "host: "+host), false, 400, "bad_host"},
		{"H3", "two host fields without :authority", req("GET", "https", "-", "/", "host: "+host, "host: denied.test"), false, 400, "bad_host"},
		{"H4", "an empty :authority", req("GET", "https", "", "/"), false, 400, "bad_host"},
		{"H4", "no :authority", req("GET", "https", "-", "/"), false, 400, "bad_host"},
		{"H5", ":authority with a path", req("GET", "https", host+"/../x", "/"), false, 400, ""},
		{"H6", ":scheme http", req("GET", "http", host, "/"), false, 400, "bad_scheme"},
		{"H7", "a method in lower case", req("get", "https", host, "/"), false, 0, ""},
		{"H8", "two unlike content-length", req("POST", "https", host, "/", "content-length: 1", "content-length: 2"), true, 400, "bad_framing"},
		{"H8", "two like content-length", req("POST", "https", host, "/", "content-length: 1", "content-length: 1"), true, 400, "bad_framing"},
		{"H8", "content-length +1", req("POST", "https", host, "/", "content-length: +1"), true, 400, "bad_framing"},
		{"H8", "content-length without a body", req("POST", "https", host, "/", "content-length: 1"), false, 400, "bad_framing"},
	} {
		t.Run(row.id+" "+row.what, func(t *testing.T) {
			c := dialH2(t, e, "allowed.test")
			before := len(e.Find(t, enginetest.Fields{"event": "egress_denied"}))
			a := c.answer(c.open(!row.body, row.fields...))
			if a.Status < 400 || a.Status > 499 || row.status != 0 && a.Status != row.status || row.reason != "" && a.Fields["x-aegrail-reason"] != row.reason {
				t.Errorf("%s; want %d %q", a, row.status, row.reason)
			}
			found := e.WantRecords(t, before+1, enginetest.Fields{"event": "egress_denied"})
			if last := found[len(found)-1]; last.Get("reason") != a.Fields["x-aegrail-reason"] || last.Get("host") != "allowed.test" || last.Get("policy_revision") == "" {
				t.Errorf("the record: %s", last.Line)
			}
			if a := c.answer(c.get(host, "/next")); a.Status != 200 {
				t.Errorf("the next stream: %s", a)
			}
		})
	}
	for _, s := range e.Origin("allowed.test").Requests() {
		if s.Target != "/next" {
			t.Errorf("a refused request arrived: %s", s)
		}
	}
	untouched(t, e, "denied.test")
}

// TestH09WhatTheStandardServerRefuses has what never becomes a request: the
// server answers by itself, resets the stream or ends the connection. Each leaves
// a record, of a connection that goes by what the server answered.
func TestH09WhatTheStandardServerRefuses(t *testing.T) {
	e := enginetest.Start(t, nil)
	host := e.Authority("allowed.test")
	base := []string{":method: GET", ":scheme: https", ":authority: " + host, ":path: /"}
	for what, fields := range map[string][]string{
		"a field name in upper case":      append(base[:4:4], "X-Upper: 1"),
		"a line feed in a value":          append(base[:4:4], "x: a\nb"),
		"a pseudo field behind the rest":  append([]string{"x: y"}, base...),
		"an unknown pseudo field":         append(base[:4:4], ":unknown: 1"),
		"two :path":                       append(base[:4:4], ":path: /b"),
		"an empty :path":                  {base[0], base[1], base[2], ":path: "},
		"no :method":                      base[1:],
		"transfer-encoding":               append(base[:4:4], "transfer-encoding: chunked"),
		"connection":                      append(base[:4:4], "connection: close"),
		"an extended CONNECT":             {":method: CONNECT", ":scheme: https", ":authority: " + host, ":path: /", ":protocol: websocket"},
		"a CONNECT":                       {":method: CONNECT", ":authority: denied.test:443"},
		"te other than trailers":          append(base[:4:4], "te: gzip"),
		"an :authority with userinfo":     {base[0], base[1], ":authority: user@" + host, base[3]},
		"a trailer that is a credential":  append(base[:4:4], "trailer: cookie"),
		"a control character in :path":    {base[0], base[1], base[2], ":path: /a\x01"},
		"an :authority with a line break": {base[0], base[1], ":authority: " + host + "\r\nx: y", base[3]},
	} {
		c := dialH2(t, e, "allowed.test")
		before := len(e.Find(t, enginetest.Fields{"event": "egress_denied"}))
		a := c.answer(c.open(true, fields...))
		if a.Status < 400 && a.Ended || a.Status > 499 {
			t.Errorf("%s: %s", what, a)
		}
		want := "h2_protocol_error"
		if a.Status != 0 {
			if want = a.Fields["x-aegrail-reason"]; want == "" {
				want = "h2_bad_request"
			}
		}
		found := e.WantRecords(t, before+1, enginetest.Fields{"event": "egress_denied"})
		if last := found[len(found)-1]; last.Get("reason") != want || last.Get("host") != "allowed.test" {
			t.Errorf("%s: %s; the record is %s", what, a, last.Line)
		}
		_ = c.Close()
	}
	untouched(t, e, "allowed.test", "denied.test")
}

// TestH09ARefusalAmongOtherStreams has one stream that the server answers by
// itself while others wait for the origin.
func TestH09ARefusalAmongOtherStreams(t *testing.T) {
	release := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{
		"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
			<-release
			c.Printf("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			c.Printf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
		}},
	}})
	host := e.Authority("allowed.test")
	c := dialH2(t, e, "allowed.test")
	held := []uint32{c.get(host, "/a"), c.get(host, "/b")}
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_allowed", "phase": "decision"})
	bad := c.open(true, ":method: GET", ":scheme: https", ":authority: "+host, ":path: /bad", "connection: close")
	if a := c.answer(bad); a.Status != 400 {
		t.Errorf("%s", a)
	}
	close(release)
	answers := map[uint32]*h2answer{}
	for _, stream := range held {
		answers[stream] = &h2answer{Fields: map[string]string{}}
	}
	c.readAll(answers)
	for _, a := range answers {
		if a.Status != 200 || a.Body != "ok" || len(a.Interim) != 1 || a.Fields["trailer:x-sum"] != "1" {
			t.Errorf("a stream beside it: %s", a)
		}
	}
	if a := c.answer(c.get(host, "/c")); a.Status != 200 {
		t.Errorf("the next stream: %s", a)
	}
	e.WantRecords(t, 3, enginetest.Fields{"event": "egress_allowed", "phase": "complete"})
	e.WantRecords(t, 1, enginetest.Fields{"event": "egress_denied"})
	e.WantRecords(t, 1, enginetest.Fields{"reason": "h2_bad_request", "host": "allowed.test", "alpn": "h2"})
}

// TestH09WhatIsNoHTTP2 agrees on HTTP/2 and speaks something else.
func TestH09WhatIsNoHTTP2(t *testing.T) {
	e := enginetest.Start(t, nil)
	h2 := &enginetest.TunnelOptions{ALPN: []string{"h2"}}
	c := e.RawTunnel(t, "allowed.test", h2)
	c.Send("GET / HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\n\r\n")
	c.WantClosed()
	c = e.RawTunnel(t, "allowed.test", h2)
	c.Send("PRI * HTTP/2.0\r\n")
	_ = c.Close()
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied", "reason": "h2_protocol_error", "host": "allowed.test"})
	_ = e.RawTunnel(t, "allowed.test", h2).Close() // says nothing, and leaves: nothing to record
	if r := e.Do(t, e.ClientH2(t), "GET", "allowed.test", "/", ""); r.Status != 200 {
		t.Errorf("the next connection: %d", r.Status)
	}
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied"})
}

// TestR02RapidReset opens and resets streams without end: the server ends the
// connection, or serves it; others are served meanwhile.
func TestR02RapidReset(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{Streams: 10}})
	host := e.Authority("allowed.test")
	c := dialH2(t, e, "allowed.test")
	for i := range 500 {
		stream := c.get(host, fmt.Sprintf("/flood/%d", i))
		if c.framer.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
			break
		}
	}
	if r := e.Do(t, e.ClientH2(t), "GET", "allowed.test", "/other", ""); r.Status != 200 {
		t.Errorf("another connection: %d %s", r.Status, r.Reason())
	}
	_ = c.Close()
	if !enginetest.Eventually(func() bool {
		return len(e.Find(t, enginetest.Fields{"event": "egress_allowed", "phase": "decision"})) == len(e.Find(t, enginetest.Fields{"phase": "complete"}))
	}) {
		t.Errorf("requests that were reset have no end in the log:\n%s", e.Dump(t))
	}
}

// TestR02StreamsOfAConnection opens more streams than the limit.
func TestR02StreamsOfAConnection(t *testing.T) {
	release := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{Streams: 3},
		Policy: readPolicy,
		Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
			<-release
			c.Reply(200, "")
		}}},
	})
	c := dialH2(t, e, "allowed.test")
	host := e.Authority("allowed.test")
	for i := range 3 {
		c.get(host, fmt.Sprintf("/held-%d", i))
	}
	e.WantRecords(t, 3, enginetest.Fields{"phase": "decision"})
	if a := c.answer(c.get(host, "/fourth")); a.Status != 0 || a.Reset != http2.ErrCodeRefusedStream && !a.Gone {
		t.Errorf("the fourth stream of three: %s", a)
	}
	close(release)
	e.WantRecords(t, 3, enginetest.Fields{"phase": "complete", "status_code": 200})
	e.NoRecord(t, enginetest.Fields{"path": "/fourth"})
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "h2_protocol_error", "host": "allowed.test"})
}

// TestR03HeaderBombs sends header blocks that are larger than they look.
func TestR03HeaderBombs(t *testing.T) {
	e := enginetest.Start(t, nil)
	host := e.Authority("allowed.test")
	base := []string{":method: GET", ":scheme: https", ":authority: " + host, ":path: /bomb"}
	t.Run("a CONTINUATION flood", func(t *testing.T) {
		c := dialH2(t, e, "allowed.test")
		_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(base...), EndStream: true})
		piece := c.encode("x: " + strings.Repeat("y", 16_000))
		for range 1000 {
			if c.framer.WriteContinuation(1, false, piece) != nil {
				break
			}
		}
		if a := c.answer(1); a.Status != 0 && a.Status != 431 {
			t.Errorf("%s", a)
		}
	})
	t.Run("an HPACK bomb", func(t *testing.T) {
		c := dialH2(t, e, "allowed.test")
		fields := append(base[:4:4], "bomb: "+strings.Repeat("b", 3000))
		for range 2000 { // each but the first is one byte: an index
			fields = append(fields, fields[4])
		}
		if a := c.answer(c.open(true, fields...)); a.Status != 431 && a.Status != 0 {
			t.Errorf("%s", a)
		}
	})
	t.Run("tiny fields", func(t *testing.T) {
		c := dialH2(t, e, "allowed.test")
		fields := base[:4:4]
		for range 250 {
			fields = append(fields, "a: b")
		}
		if a := c.answer(c.open(true, fields...)); a.Status != 431 {
			t.Errorf("%s", a)
		}
	})
	untouched(t, e, "allowed.test")
	e.WantRecords(t, 3, enginetest.Fields{"event": "egress_denied", "host": "allowed.test"})
	if a := dialH2(t, e, "allowed.test"); a.answer(a.get(host, "/after")).Status != 200 {
		t.Error("the next connection does not work")
	}
}

// TestR08WindowsAreCapped reads what the engine lets a client send ahead.
func TestR08WindowsAreCapped(t *testing.T) {
	e := enginetest.Start(t, nil)
	c := dialH2(t, e, "allowed.test")
	stream, connection, frameSize := uint32(65535), uint32(65535), uint32(16384)
	_ = c.framer.WritePing(false, [8]byte{1})
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				stream = v
			}
			if v, ok := f.Value(http2.SettingMaxFrameSize); ok {
				frameSize = v
			}
			if v, ok := f.Value(http2.SettingMaxConcurrentStreams); ok && v > 100 {
				t.Errorf("%d streams", v)
			}
		case *http2.WindowUpdateFrame:
			connection += f.Increment
		case *http2.PingFrame:
			if stream > 1<<20 || connection > 4<<20 {
				t.Errorf("windows of %d bytes a stream and %d a connection", stream, connection)
			}
			if frameSize > stream {
				t.Errorf("frames of %d bytes are allowed where the window has %d", frameSize, stream)
			}
			return
		}
	}
}
