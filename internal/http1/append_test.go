package http1

import (
	"net/http"
	"strings"
	"testing"
)

func TestWriters(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	for _, row := range []struct {
		got  []byte
		want string
	}{
		{AppendRequestLine(b("x"), b("GET"), b("/a?b")), "xGET /a?b HTTP/1.1\r\n"},
		{AppendStatusLine(nil, 200), "HTTP/1.1 200 OK\r\n"},
		{AppendStatusLine(nil, 599), "HTTP/1.1 599 \r\n"},
		{AppendStatusLine(nil, 42), "HTTP/1.1 500 Internal Server Error\r\n"},
		{AppendStatusLine(nil, 1000), "HTTP/1.1 500 Internal Server Error\r\n"},
		{AppendField(nil, b("A"), b("b c")), "A: b c\r\n"},
		{AppendField(nil, b("A"), nil), "A: \r\n"},
		{AppendContentLength(nil, 0), "Content-Length: 0\r\n"},
		{AppendContentLength(nil, 1<<63-1), "Content-Length: 9223372036854775807\r\n"},
		{AppendChunkHead(nil, 65536), "10000\r\n"},
		{AppendChunkHead(b("x"), 0), "x"},
		{AppendLastChunk(nil, nil), "0\r\n\r\n"},
		{AppendLastChunk(nil, []Field{{b("A"), b("b")}, {b("C"), b("d")}}), "0\r\nA: b\r\nC: d\r\n\r\n"},
	} {
		if string(row.got) != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}

// The standard library keeps older names for three of them.
func TestReasonPhrases(t *testing.T) {
	renamed := map[int]string{413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
	for status := 100; status < 600; status++ {
		want := http.StatusText(status)
		if name, ok := renamed[status]; ok {
			want = name
		}
		if got := reasons[status-100]; got != want {
			t.Errorf("%d is %q, want %q", status, got, want)
		}
		var h ResponseHead
		r := NewReader(strings.NewReader(string(AppendStatusLine(nil, status)) + "\r\n"))
		if err := r.ReadResponse(&h, nil); err != nil || h.Status != status || string(h.Reason) != want {
			t.Errorf("%d is read back as %d %q, %v", status, h.Status, h.Reason, err)
		}
	}
}

func TestHopByHop(t *testing.T) {
	names := []string{"Connection", "Proxy-Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate", "Proxy-Authorization", "HTTP2-Settings"}
	for _, name := range names {
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if !HopByHop([]byte(spelled)) {
				t.Errorf("%s is forwarded", spelled)
			}
		}
		if HopByHop([]byte("x"+name)) || HopByHop([]byte(strings.Repeat("x", len(name)))) {
			t.Errorf("a field like %s is not forwarded", name)
		}
	}
	if HopByHop(nil) || HopByHop([]byte("Content-Length")) {
		t.Error("not hop-by-hop")
	}
}

func TestConnectionNames(t *testing.T) {
	fields := []Field{{[]byte("A"), []byte("x-not")}, {[]byte("Connection"), []byte("close, X-One ,,\tx-two")}, {[]byte("connection"), []byte("x-three")}}
	for name, want := range map[string]bool{"x-one": true, "X-TWO": true, "X-Three": true, "close": true, "x-not": false, "x-on": false, "": false, "x-one ,": false} {
		if got := ConnectionNames(fields, []byte(name)); name != "" && got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for s, want := range map[string]bool{"": false, "GET": true, "a b": false, "a:": false, "é": false, "!#$%&'*+-.^_`|~": true} {
		if ValidToken([]byte(s)) != want {
			t.Errorf("token %q: want %v", s, want)
		}
	}
	for s, want := range map[string]bool{"": true, "a": true, "a b\tc": true, " a": false, "a ": false, "\ta": false, "\t": false, "a\r\nb": false, "12345678\x00": false, "é": true, "1234567\x7f": false} {
		if ValidValue([]byte(s)) != want {
			t.Errorf("value %q: want %v", s, want)
		}
	}
	if !EqualFold([]byte("Host"), "host") || EqualFold([]byte("Hos"), "host") || EqualFold([]byte("H@st"), "h`st") || !EqualFold(nil, "") {
		t.Error("EqualFold")
	}
}

// The scans that look at eight bytes at once agree with one byte at a time, at
// every offset and beside every neighbour.
func TestWordScans(t *testing.T) {
	slow := func(b []byte, bad func(byte) bool) int {
		for i, c := range b {
			if bad(c) {
				return i
			}
		}
		return -1
	}
	control := func(c byte) bool { return c < 0x20 && c != '\t' || c == 0x7f }
	invisible := func(c byte) bool { return c <= 0x20 || c >= 0x7f }
	for size := range 20 {
		for at := range size {
			for c := range 256 {
				for _, next := range []byte{'a', '\t', ' ', '!', 0, 0x7f, 0x80, 0xff} {
					b := []byte(strings.Repeat("z", size))
					b[at] = byte(c)
					if at+1 < size {
						b[at+1] = next
					}
					if got, want := indexControl(b), slow(b, control); got != want {
						t.Fatalf("indexControl(%q) is %d, want %d", b, got, want)
					}
					if got, want := indexInvisible(b), slow(b, invisible); got != want {
						t.Fatalf("indexInvisible(%q) is %d, want %d", b, got, want)
					}
				}
			}
		}
	}
}
