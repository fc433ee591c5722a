package enginetest

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func sumOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// record makes a record of the given payload fields: "method=GET path=/x".
func record(event, fields string) Record {
	r := Record{Event: event, Payload: map[string]any{}, Line: event + " " + fields}
	for _, f := range strings.Fields(fields) {
		key, value, _ := strings.Cut(f, "=")
		r.Payload[key] = value
	}
	return r
}

func arrived(method, target, body string) Seen {
	return Seen{Method: method, Target: target, Proto: "HTTP/1.1", BodyBytes: int64(len(body)), BodySHA256: sumOf(body), Complete: true}
}

// What arrived and what the log says, in rows that read as sentences.
func TestWhatArrivedIsComparedWithTheLog(t *testing.T) {
	decision := record("egress_allowed", "phase=decision method=POST path=/a")
	end := record("egress_allowed", "phase=complete method=POST path=/a status_code=200 request_bytes=2 request_sha256="+sumOf("hi"))
	hashed := record("egress_allowed", "phase=decision method=POST path_len=2 path_sha256=x")
	failed := record("egress_error", "phase=complete method=POST path=/a request_bytes=2 request_sha256="+sumOf("hi"))
	for _, row := range []struct {
		what      string
		seen      []Seen
		decisions []Record
		ends      []Record
		ok        bool
	}{
		{"nothing happened", nil, nil, nil, true},
		{"one request, recorded", []Seen{arrived("POST", "/a?q=1", "hi")}, []Record{decision}, []Record{end}, true},
		{"allowed and never sent", nil, []Record{decision}, nil, true},
		{"a path the rule keeps out of the log", []Seen{arrived("POST", "/a", "hi")}, []Record{hashed}, []Record{end}, true},
		{"a request the log does not know", []Seen{arrived("POST", "/a", "hi")}, nil, nil, false},
		{"a second request that the log does not know", []Seen{arrived("POST", "/a", "hi"), arrived("POST", "/a", "hi")}, []Record{decision}, []Record{end}, false},
		{"another method", []Seen{arrived("PUT", "/a", "hi")}, []Record{decision}, []Record{end}, false},
		{"another path", []Seen{arrived("POST", "/b", "hi")}, []Record{decision}, []Record{end}, false},
		{"another body", []Seen{arrived("POST", "/a", "ho")}, []Record{decision}, []Record{end}, false},
		{"a completion of nothing", nil, []Record{decision}, []Record{end}, false},
		{"no completion", []Seen{arrived("POST", "/a", "hi")}, []Record{decision}, nil, false},
		{"a body cut short, and its error", []Seen{{Method: "POST", Target: "/a"}}, []Record{decision},
			[]Record{record("egress_error", "phase=complete method=POST path=/a request_bytes=1")}, true},
		{"one of two alike that failed before it arrived", []Seen{arrived("POST", "/a", "hi")}, []Record{decision, decision}, []Record{failed, end}, true},
		{"two of three alike that failed, one of them on the way", []Seen{arrived("POST", "/a", "hi"), arrived("POST", "/a", "hi")},
			[]Record{decision, decision, decision}, []Record{failed, failed, end}, true},
		{"a completion too many beside one that failed", []Seen{arrived("POST", "/a", "hi")}, []Record{decision, decision, decision}, []Record{failed, end, end}, false},
		{"an error that may be of one cut short, and no completion of the other", []Seen{{Method: "POST", Target: "/a"}, arrived("POST", "/a", "hi")},
			[]Record{decision, decision}, []Record{failed, end}, true},
		{"a decision without its path that must not be taken for another", []Seen{arrived("POST", "/a", "hi"), arrived("POST", "/b", "hi")},
			[]Record{hashed, decision}, []Record{end, record("egress_allowed", strings.Replace(end.Line, "path=/a", "path=/b", 1))}, true},
	} {
		o := &Origin{Name: "a.test", seen: row.seen}
		if wrong := compare(o, row.decisions, row.ends); (len(wrong) == 0) != row.ok {
			t.Errorf("%s: %q, want ok=%v", row.what, wrong, row.ok)
		}
	}
}
