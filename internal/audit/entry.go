package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf16"
)

// Entry is a record as it was read back: what Record was written from. Strings
// have their bytes again, also those that are not UTF-8.
type Entry struct {
	Line  int64     `json:"-"` // in its file, from 1
	Raw   []byte    `json:"-"` // the line without its newline; valid during the call only
	Time  time.Time `json:"-"` // TS parsed; zero if it has another form
	TS    string    `json:"ts"`
	Event string    `json:"event"`
	Hash  string    `json:"event_hash"`

	Session       string `json:"session_id"`
	AgentIdentity string `json:"agent_identity"`
	InvokingUser  string `json:"invoking_user,omitempty"`
	Principal     string `json:"principal"`

	Seq   uint64 `json:"seq,omitempty"`
	ID    string `json:"id,omitempty"`
	Phase string `json:"phase,omitempty"`

	Namespace      string `json:"namespace,omitempty"`
	ServiceAccount string `json:"service_account,omitempty"`
	Pod            string `json:"pod,omitempty"`
	Claimed        string `json:"claimed,omitempty"`
	Client         string `json:"client_addr,omitempty"`
	Kind           string `json:"kind,omitempty"`

	Scheme      string   `json:"scheme,omitempty"`
	Host        string   `json:"host,omitempty"`
	Port        uint16   `json:"port,omitempty"`
	Method      string   `json:"method,omitempty"`
	Path        string   `json:"path,omitempty"`
	PathLen     int64    `json:"path_len,omitempty"` // of the whole path, if Path is cut or left out
	PathSHA256  string   `json:"path_sha256,omitempty"`
	PathPattern string   `json:"path_pattern,omitempty"`
	QueryKeys   []string `json:"query_keys,omitempty"`
	SNI         string   `json:"sni,omitempty"`

	Rule           string `json:"rule,omitempty"`
	Policy         string `json:"policy,omitempty"`
	PolicyRevision string `json:"policy_revision,omitempty"`
	Reason         string `json:"reason,omitempty"`
	Detail         string `json:"detail,omitempty"`
	Observed       bool   `json:"observed,omitempty"`
	Attempt        int64  `json:"attempt,omitempty"`

	StatusCode     int64  `json:"status_code,omitempty"`
	RequestBytes   int64  `json:"request_bytes,omitempty"`
	ResponseBytes  int64  `json:"response_bytes,omitempty"`
	RequestSHA256  string `json:"request_sha256,omitempty"`
	ResponseSHA256 string `json:"response_sha256,omitempty"`
	DigestKeyID    string `json:"digest_key_id,omitempty"`
	Truncated      bool   `json:"truncated,omitempty"`
	DurationMS     int64  `json:"duration_ms,omitempty"`
	Upstream       string `json:"upstream_addr,omitempty"`
	UpstreamProto  string `json:"upstream_proto,omitempty"`
	TLSVersion     string `json:"tls,omitempty"`
	ALPN           string `json:"alpn,omitempty"`
	Mitm           bool   `json:"mitm,omitempty"`

	Count       int64  `json:"count,omitempty"`
	First       string `json:"first,omitempty"`
	Last        string `json:"last,omitempty"`
	ClockJumpMS int64  `json:"clock_jump_ms,omitempty"`
	Checkpoint  string `json:"checkpoint,omitempty"` // a signed note
	Segment     string `json:"segment,omitempty"`    // the file that this one continues
	Resumed     bool   `json:"resumed,omitempty"`    // the file had records before this start
	Torn        *Torn  `json:"torn,omitempty"`       // what was cut off its end
}

// Torn is the end of a file that was no whole record, and was cut off.
type Torn struct {
	Bytes  int64  `json:"bytes"`
	File   string `json:"file"` // that keeps it
	SHA256 string `json:"sha256"`
}

// Read decodes the records of r in order and hands each to fn. It checks their
// form and not their chain: that is Verify's. A last line without a newline is
// left out, as it is still being written. An error of fn ends the reading and
// is returned as it is. The Entry is reused.
func Read(r io.Reader, fn func(*Entry) error) error {
	var l line
	var e Entry
	var spell respeller
	var stopped error
	n := int64(0)
	_, err := eachLine("audit log", r, func(b []byte) error {
		n++
		if _, err := spell.parse(&l, b); err != nil {
			return err
		}
		e.decode(b, &l)
		e.Line = n
		if stopped = fn(&e); stopped != nil {
			return errStop
		}
		return nil
	})
	var damage *Damage
	switch {
	case errors.Is(err, errStop):
		return stopped
	case errors.As(err, &damage) && damage.torn:
		return nil
	}
	return err
}

// decode fills e from b, a line that l was parsed from.
func (e *Entry) decode(b []byte, l *line) {
	*e = Entry{
		Raw: b, TS: text(l.ts), Event: text(l.event), Hash: string(l.hash),
		Session: text(l.session), AgentIdentity: text(l.agent), Principal: text(l.principal),
		QueryKeys: e.QueryKeys[:0],
	}
	if at, err := time.Parse(time.RFC3339Nano, e.TS); err == nil {
		e.Time = at
	}
	if string(l.invoking) != "null" {
		e.InvokingUser = text(l.invoking[1 : len(l.invoking)-1])
	}
	eachMember(l.payload, e.set)
}

// set takes one member of the payload. What has another type than the engine
// writes, as in records that are not the engine's, is left alone.
func (e *Entry) set(key string, v []byte) {
	if dst := e.stringField(key); dst != nil {
		if v[0] == '"' {
			*dst = text(v[1 : len(v)-1])
		}
		return
	}
	switch key {
	case "agent":
		if v[0] == '{' {
			eachMember(v, e.setAgent)
		}
	case "query_keys":
		if v[0] == '[' {
			eachItem(v, func(v []byte) {
				if v[0] == '"' {
					e.QueryKeys = append(e.QueryKeys, text(v[1:len(v)-1]))
				}
			})
		}
	case "observed":
		e.Observed = string(v) == "true"
	case "mitm":
		e.Mitm = string(v) == "true"
	case "truncated":
		e.Truncated = string(v) == "true"
	case "resumed":
		e.Resumed = string(v) == "true"
	case "torn":
		if v[0] == '{' {
			e.Torn = new(Torn)
			eachMember(v, e.Torn.set)
		}
	default:
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err == nil {
			e.setInt(key, n)
		}
	}
}

func (t *Torn) set(key string, v []byte) {
	switch {
	case key == "bytes":
		t.Bytes, _ = strconv.ParseInt(string(v), 10, 64) // 0: not the engine's
	case v[0] != '"':
	case key == "file":
		t.File = text(v[1 : len(v)-1])
	case key == "sha256":
		t.SHA256 = text(v[1 : len(v)-1])
	}
}

func (e *Entry) stringField(key string) *string {
	switch key {
	case "alpn":
		return &e.ALPN
	case "checkpoint":
		return &e.Checkpoint
	case "client_addr":
		return &e.Client
	case "detail":
		return &e.Detail
	case "digest_key_id":
		return &e.DigestKeyID
	case "first":
		return &e.First
	case "host":
		return &e.Host
	case "id":
		return &e.ID
	case "kind":
		return &e.Kind
	case "last":
		return &e.Last
	case "method":
		return &e.Method
	case "path":
		return &e.Path
	case "path_pattern":
		return &e.PathPattern
	case "path_sha256":
		return &e.PathSHA256
	case "phase":
		return &e.Phase
	case "policy":
		return &e.Policy
	case "policy_revision":
		return &e.PolicyRevision
	case "reason":
		return &e.Reason
	case "request_sha256":
		return &e.RequestSHA256
	case "response_sha256":
		return &e.ResponseSHA256
	case "rule":
		return &e.Rule
	case "scheme":
		return &e.Scheme
	case "segment":
		return &e.Segment
	case "sni":
		return &e.SNI
	case "tls":
		return &e.TLSVersion
	case "upstream_addr":
		return &e.Upstream
	case "upstream_proto":
		return &e.UpstreamProto
	default:
		return nil
	}
}

func (e *Entry) setInt(key string, n int64) {
	switch key {
	case "attempt":
		e.Attempt = n
	case "clock_jump_ms":
		e.ClockJumpMS = n
	case "count":
		e.Count = n
	case "duration_ms":
		e.DurationMS = n
	case "path_len":
		e.PathLen = n
	case "port":
		if n >= 0 && n <= math.MaxUint16 {
			e.Port = uint16(n)
		}
	case "request_bytes":
		e.RequestBytes = n
	case "response_bytes":
		e.ResponseBytes = n
	case "seq":
		e.Seq = uint64(n)
	case "status_code":
		e.StatusCode = n
	}
}

func (e *Entry) setAgent(key string, v []byte) {
	if v[0] != '"' {
		return
	}
	s := text(v[1 : len(v)-1])
	switch key {
	case "claimed":
		e.Claimed = s
	case "namespace":
		e.Namespace = s
	case "pod":
		e.Pod = s
	case "service_account":
		e.ServiceAccount = s
	}
}

// JSON returns the entry as one flat JSON object, for programs that want no
// payload in a payload, in ASCII: a terminal takes some characters that are no
// ASCII for commands. It is not the record: that is Raw.
func (e *Entry) JSON() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", e.Seq, err)
	}
	out := make([]byte, 0, len(b))
	for _, r := range string(b) { // json.Marshal has made it UTF-8, and non-ASCII stands in strings alone
		if r < 0x7f {
			out = append(out, byte(r))
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			out = appendUnit(out, u)
		}
	}
	return out, nil
}

// text returns what a string's contents say.
func text(s []byte) string { return string(unescape(nil, s, true)) }

// eachMember calls fn with the members of a canonical object.
func eachMember(object []byte, fn func(key string, value []byte)) {
	s := scanner{b: object, i: 1}
	for s.peek() == '"' {
		key, err := s.text()
		s.i++ // the colon
		start := s.i
		if err != nil || s.value(1) != nil {
			return
		}
		fn(text(key), object[start:s.i])
		s.i++ // the comma or the end
	}
}

// eachItem calls fn with the items of a canonical list.
func eachItem(list []byte, fn func(value []byte)) {
	s := scanner{b: list, i: 1}
	for s.i < len(list)-1 {
		start := s.i
		if s.value(1) != nil {
			return
		}
		fn(list[start:s.i])
		s.i++
	}
}
