package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// members is a JSON object: the payload of a record.
type members map[string]any

// logBuilder writes a log whose bytes are the same each time, which an engine's
// are not: it draws its session ids.
type logBuilder struct {
	t       testing.TB
	out     bytes.Buffer
	prev    string // event_hash of the last record
	seq     int
	noSeq   bool // as the Python library writes
	session string
	agent   string
	user    string
	at      time.Time
}

func newLog(t testing.TB) *logBuilder {
	return &logBuilder{t: t, session: "sess_1778838131123_0123456789abcdef", agent: "aegrail-engine", at: time.Date(2026, 5, 15, 9, 42, 11, 123e6, time.UTC)}
}

// ascii is Python's json.dumps(v, sort_keys=True, separators=(",", ":")).
func ascii(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		switch {
		case r > 0xffff:
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		case r > 0x7e:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// add appends a record.
func (l *logBuilder) add(event string, payload members) {
	l.t.Helper()
	payload = maps.Clone(payload)
	if payload == nil {
		payload = members{}
	}
	if l.seq++; !l.noSeq {
		payload["seq"] = l.seq
	}
	user, prev := "null", "null"
	if l.user != "" {
		user = ascii(l.t, l.user)
	}
	if l.prev != "" {
		prev = `"` + l.prev + `"`
	}
	body := func(hash string) string {
		return `{"agent_identity":` + ascii(l.t, l.agent) + `,"budget":{},"event":` + ascii(l.t, event) + hash + `,"invoking_user":` + user +
			`,"payload":` + ascii(l.t, payload) + `,"prev_hash":` + prev + `,"principal":` + ascii(l.t, l.agent+"@"+l.session) +
			`,"session_id":` + ascii(l.t, l.session) + `,"ts":"` + l.at.Format("2006-01-02T15:04:05.000Z") + `"}`
	}
	sum := sha256.Sum256([]byte(body("")))
	l.prev = hex.EncodeToString(sum[:])
	l.out.WriteString(body(`,"event_hash":"`+l.prev+`"`) + "\n")
}

// with returns base with more members, which win.
func with(base members, more members) members {
	out := maps.Clone(base)
	maps.Copy(out, more)
	return out
}

// start begins a session of an engine.
func (l *logBuilder) start(session, revision string) {
	l.session, l.agent = session, "aegrail-engine"
	l.add("engine_start", members{"durability": "written", "engine": members{"command": "serve", "version": "v0.3.0"}, "policy_revision": revision})
}

// request adds a decision to forward and its completion.
func (l *logBuilder) request(p members, end members) {
	l.t.Helper()
	id := fmt.Sprintf("%016x", l.seq+1)
	p = with(members{"attempt": 1, "id": id, "kind": "connect", "mitm": true, "port": 443, "scheme": "https", "status_code": 0}, p)
	delete(p, "status_code")
	l.add("egress_allowed", with(p, members{"phase": "decision"}))
	l.at = l.at.Add(40 * time.Millisecond)
	event := "egress_allowed"
	if e, ok := end["event"]; ok {
		event = e.(string)
		end = maps.Clone(end)
		delete(end, "event")
	}
	l.add(event, with(with(p, members{"phase": "complete", "duration_ms": 40, "request_bytes": 0, "response_bytes": 0, "status_code": 200}), end))
}

// refuse adds a denial.
func (l *logBuilder) refuse(p members) {
	l.t.Helper()
	id := fmt.Sprintf("%016x", l.seq+1)
	l.add("egress_denied", with(members{"id": id, "kind": "connect", "mitm": true, "phase": "decision", "port": 443, "scheme": "https", "status_code": 403}, p))
}

// file writes the log to a file.
func (l *logBuilder) file() string {
	l.t.Helper()
	return write(l.t, filepath.Join(l.t.TempDir(), "audit.log"), l.out.Bytes())
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func gather(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Gather(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func markdownOf(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func htmlOf(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
}

func hasNot(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if strings.Contains(text, w) {
			t.Errorf("%q in\n%s", w, text)
		}
	}
}

// verified asserts that what a builder wrote is a log.
func verified(t *testing.T, file string) audit.Report {
	t.Helper()
	rep, err := audit.Verify([]string{file}, audit.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}
