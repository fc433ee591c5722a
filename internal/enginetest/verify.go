package enginetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// This file checks a log without package audit: it reads each line as any JSON,
// writes it again the way Python's json.dumps(sort_keys=True, separators=(",",
// ":")) does, and recomputes the chain. A fault that audit's writer and audit's
// verifier share shows here.

// eventKeys are the keys of a line: exactly these, as the aegrail library has them.
func eventKeys() []string {
	return []string{
		"agent_identity", "budget", "event", "event_hash", "invoking_user", "payload",
		"prev_hash", "principal", "session_id", "ts",
	}
}

// eventNames are the events the aegrail library knows.
func eventNames() []string {
	return []string{"engine_start", "engine_shutdown", "engine_heartbeat", "egress_allowed", "egress_denied", "egress_error"}
}

// Record is one line of the log, read without package audit. Numbers are
// json.Number.
type Record struct {
	Line    string // without the newline
	Event   string
	Top     map[string]any
	Payload map[string]any
}

// Get returns a value of the payload, or else of the line itself, as text: ""
// if there is none. A dot leads into an object: "agent.namespace".
func (r Record) Get(key string) string {
	outer, inner, nested := strings.Cut(key, ".")
	v, ok := r.Payload[outer]
	if !ok {
		v = r.Top[outer]
	}
	if nested {
		object, _ := v.(map[string]any)
		v = object[inner]
	}
	if v == nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	return string(appendJSON(nil, v))
}

// parseRecord reads one line and checks its form.
func parseRecord(line string) (Record, error) {
	dec := json.NewDecoder(strings.NewReader(markLone(line)))
	dec.UseNumber()
	var top map[string]any
	if err := dec.Decode(&top); err != nil {
		return Record{}, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("something follows the object")
	}
	if keys := slices.Sorted(maps.Keys(top)); !slices.Equal(keys, eventKeys()) {
		return Record{}, fmt.Errorf("keys are %v, want exactly %v", keys, eventKeys())
	}
	event, _ := top["event"].(string)
	if !slices.Contains(eventNames(), event) {
		return Record{}, fmt.Errorf("event %q is none of the library's", event)
	}
	payload, ok := top["payload"].(map[string]any)
	if !ok {
		return Record{}, errors.New("payload is no object")
	}
	if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(top["ts"])); err != nil {
		return Record{}, fmt.Errorf("ts: %w", err)
	}
	return Record{Line: line, Event: event, Top: top, Payload: payload}, nil
}

// VerifyChain checks every line of a log: its form, that its hash is its own,
// that it names the one before it, and that sequence numbers have no gap.
// The error names the first line that is wrong, from 1.
func VerifyChain(data []byte) ([]Record, error) {
	if len(data) > 0 && data[len(data)-1] != '\n' {
		return nil, fmt.Errorf("line %d has no newline: it was cut", bytes.Count(data, []byte("\n"))+1)
	}
	var (
		records []Record
		prev    any // nil before the first line
		seq     int64
	)
	for i, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		r, err := parseRecord(string(line))
		if err != nil {
			return records, fmt.Errorf("line %d: %w", i+1, err)
		}
		if r.Top["prev_hash"] != prev {
			return records, fmt.Errorf("line %d: prev_hash is %v, the line before has %v", i+1, r.Top["prev_hash"], prev)
		}
		if sum := eventHash(r.Top); r.Top["event_hash"] != sum {
			return records, fmt.Errorf("line %d: event_hash is %v, the line hashes to %s", i+1, r.Top["event_hash"], sum)
		}
		if canonical := appendJSON(nil, r.Top); !bytes.Equal(canonical, line) {
			return records, fmt.Errorf("line %d is not written canonically:\n%s\nshould be\n%s", i+1, line, canonical)
		}
		if text := r.Get("seq"); text != "" { // the library's own records have none
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || seq != 0 && n != seq+1 {
				return records, fmt.Errorf("line %d: seq is %q after %d", i+1, text, seq)
			}
			seq = n
		}
		prev = r.Top["event_hash"]
		records = append(records, r)
	}
	return records, nil
}

func eventHash(top map[string]any) string {
	bare := maps.Clone(top)
	delete(bare, "event_hash")
	sum := sha256.Sum256(appendJSON(nil, bare))
	return hex.EncodeToString(sum[:])
}

// appendJSON writes v as Python does with sorted keys, no spaces and ASCII
// escapes. Floats do not occur: the format has integers only.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return fmt.Appendf(dst, "%t", v)
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return append(dst, "not an integer"...)
		}
		return append(dst, v...)
	case string:
		return appendString(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, e)
		}
		return append(dst, ']')
	case map[string]any:
		dst = append(dst, '{')
		for i, key := range slices.Sorted(maps.Keys(v)) { // bytes of UTF-8 sort as Python's code points do
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, key), ':')
			dst = appendJSON(dst, v[key])
		}
		return append(dst, '}')
	default:
		return fmt.Appendf(dst, "%T is no JSON", v)
	}
}

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		case c >= 0x20 && c < utf8.RuneSelf && c != 0x7f:
			dst = append(dst, byte(c))
		case c == lone && len(s) >= i+len(loneMark)+4:
			dst = append(dst, `\u`...) // the four digits follow by themselves
		case c > 0xffff:
			hi, lo := utf16.EncodeRune(c)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, hi, lo)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(dst, '"')
}

// lone is a character that Unicode will never assign. It stands in front of the
// four digits of a surrogate that has no partner.
const (
	lone     = '\ufdd0'
	loneMark = "\ufdd0"
)

// markLone replaces escapes of surrogates without a partner, by which the
// format writes bytes that are not UTF-8. encoding/json would make U+FFFD of
// each, and they could not be written again as they were.
func markLone(line string) string {
	var b strings.Builder
	for i := 0; i < len(line); {
		n := escapeLen(line[i:])
		unit := codeUnit(line[i:])
		switch {
		case unit >= 0xd800 && unit < 0xdc00 && codeUnit(line[i+n:])&^0x3ff == 0xdc00:
			n += n
			b.WriteString(line[i : i+n])
		case unit >= 0xd800 && unit < 0xe000:
			b.WriteString(loneMark + line[i+2:i+n])
		default:
			b.WriteString(line[i : i+n])
		}
		i += n
	}
	return b.String()
}

// escapeLen returns the length of the escape or character that s begins with.
func escapeLen(s string) int {
	switch {
	case s[0] != '\\' || len(s) < 2:
		return 1
	case s[1] == 'u' && len(s) >= 6:
		return 6
	default:
		return 2
	}
}

// codeUnit returns the UTF-16 unit of the \u escape that s begins with, -1 if
// it begins with none.
func codeUnit(s string) int {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}
