package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// The rules of this file are: bytes are those of Python's
// json.dumps(…, sort_keys=True, separators=(",", ":")); nothing allocates for
// an ordinary record; and every field that an agent can fill has a limit.

const (
	hexDigits  = "0123456789abcdef"
	hashLen    = 2 * sha256.Size
	timeLayout = "2006-01-02T15:04:05.000Z"
)

var noHash [hashLen]byte // room for a hash that is not known yet; never written

// chainState is where the chain stands after a record. It is a value, so that
// records that could not be committed are taken back by a copy.
type chainState struct {
	seq  uint64 // of the last record: how many there are since the log's first
	prev [hashLen]byte
	has  bool                // false before the first record, whose prev_hash is null
	tree checkpoint.Frontier // over the event_hash of every record
}

// add moves c on to the record whose event_hash is sum.
func (c *chainState) add(sum *checkpoint.Hash) {
	hex.Encode(c.prev[:], sum[:])
	c.has = true
	c.tree.Append(sum)
}

// encoder turns Records into lines. It is owned by whoever holds Log.mu.
type encoder struct {
	session  string
	identity string // stands in for an unknown agent
	hash     hash.Hash
	scratch  [512]byte
	stamp    stamp
}

// ordinary is more than a record takes whose fields are within their limits
// and need no escapes, but for the path and the list of query keys: room for it
// is made once, and not member by member.
const ordinary = 2 << 10

// appendRecord appends r as a line and moves c on to it. jump is what the wall
// clock did beside the monotonic one since the record before.
func (e *encoder) appendRecord(b []byte, c *chainState, r *Record, facts *engineFacts, at time.Time, jump time.Duration) []byte {
	b = slices.Grow(b, ordinary)
	start := len(b)
	b = append(b, `{"agent_identity":"`...)
	identityAt := len(b)
	b = e.appendIdentity(b, r.Agent)
	identityEnd := len(b)
	b = append(b, `","budget":{},"event":"`...)
	b = append(b, r.Event.String()...)
	b = append(b, '"')
	cut := len(b)
	b = append(b, `,"event_hash":"`...)
	hashAt := len(b)
	b = append(b, noHash[:]...)
	b = append(b, '"')
	resume := len(b)
	b = append(b, `,"invoking_user":`...)
	if r.Agent != nil && r.Agent.InvokingUser != "" {
		b = append(b, '"')
		b = appendPlain(b, r.Agent.InvokingUser)
		b = append(b, '"')
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"payload":{`...)
	c.seq++
	b = e.appendPayload(b, r, facts, c.seq, jump)
	b = append(b, `},"prev_hash":`...)
	if c.has {
		b = append(b, '"')
		b = append(b, c.prev[:]...)
		b = append(b, '"')
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"principal":"`...)
	b = append(b, b[identityAt:identityEnd]...)
	b = append(b, '@')
	b = append(b, e.session...)
	b = append(b, `","session_id":"`...)
	b = append(b, e.session...)
	b = append(b, `","ts":"`...)
	b = e.stamp.append(b, at)
	b = append(b, `"}`...)

	e.hash.Reset()
	e.hash.Write(b[start:cut])
	e.hash.Write(b[resume:])
	c.add((*checkpoint.Hash)(e.hash.Sum(e.scratch[:0])))
	copy(b[hashAt:], c.prev[:])
	return append(b, '\n')
}

// appendIdentity appends the agent's name without quotes: the claimed label,
// else namespace/serviceaccount, else the engine's flag.
func (e *encoder) appendIdentity(b []byte, a *Agent) []byte {
	switch {
	case a == nil:
		return appendPlain(b, e.identity)
	case a.Claimed != "":
		return appendPlain(b, a.Claimed)
	case a.Namespace != "":
		b = appendPlain(b, a.Namespace)
		b = append(b, '/')
		return appendPlain(b, a.ServiceAccount)
	case a.Identity != "":
		return appendPlain(b, a.Identity)
	default:
		return appendPlain(b, e.identity)
	}
}

// appendPayload appends the members of the payload, in the order of their keys.
func (e *encoder) appendPayload(b []byte, r *Record, facts *engineFacts, seq uint64, jump time.Duration) []byte {
	complete := r.Phase == PhaseComplete
	b = e.appendAgent(b, r.Agent)
	b = appendWord(b, "alpn", r.ALPN)
	b = appendInt(b, "attempt", int64(r.Attempt), false)
	if facts != nil {
		b = appendWhole(b, "checkpoint", facts.checkpoint)
	}
	b = e.appendAddr(b, "client_addr", r.Client)
	b = appendInt(b, "clock_jump_ms", jump.Milliseconds(), false)
	b = appendInt(b, "count", r.Count, false)
	b = appendField(e, b, "detail", r.Detail, maxDetail)
	b = appendWord(b, "digest_key_id", r.DigestKeyID)
	if facts != nil {
		b = appendWord(b, "durability", facts.durability)
	}
	b = appendInt(b, "duration_ms", r.Duration.Milliseconds(), complete)
	if facts != nil {
		b = appendMap(b, "engine", facts.engine)
	}
	if !r.First.IsZero() {
		b = appendStamp(b, "first", r.First)
	}
	if facts != nil {
		b = appendHashes(b, "frontier", facts.frontier)
	}
	b = appendField(e, b, "host", afterUserinfo(r.Host), maxName)
	if r.ID != 0 {
		b = appendKey(b, "id")
		b = append(b, '"')
		for shift := 60; shift >= 0; shift -= 4 {
			b = append(b, hexDigits[r.ID>>shift&15])
		}
		b = append(b, '"')
	}
	b = appendWord(b, "kind", r.Kind)
	if !r.Last.IsZero() {
		b = appendStamp(b, "last", r.Last)
	}
	b = appendField(e, b, "method", r.Method, maxMethod)
	b = appendTrue(b, "mitm", r.Mitm)
	b = appendTrue(b, "observed", r.Observed)
	b = e.appendPath(b, r)
	b = appendWord(b, "phase", r.Phase.String())
	b = appendWord(b, "policy", r.Policy)
	b = appendWord(b, "policy_revision", r.PolicyRevision)
	b = appendInt(b, "port", int64(r.Port), false)
	b = appendQueryKeys(b, r.QueryKeys, max(len(r.QueryKeys), r.QueryKeysLen))
	b = appendWord(b, "reason", r.Reason)
	b = appendInt(b, "request_bytes", r.RequestBytes, complete)
	b = appendWord(b, "request_sha256", r.RequestSHA256)
	b = appendInt(b, "response_bytes", r.ResponseBytes, complete)
	b = appendWord(b, "response_sha256", r.ResponseSHA256)
	if facts != nil {
		b = appendTrue(b, "resumed", facts.resumed)
	}
	b = appendWord(b, "rule", r.Rule)
	b = appendWord(b, "scheme", r.Scheme)
	if facts != nil {
		b = appendWhole(b, "segment", facts.segment)
	}
	b = appendInt(b, "seq", int64(seq), true)
	b = appendField(e, b, "sni", r.SNI, maxName)
	b = appendInt(b, "status_code", int64(r.StatusCode), false)
	b = appendWord(b, "tls", r.TLSVersion)
	if facts != nil && facts.torn != nil {
		b = appendKey(b, "torn")
		b = append(b, '{')
		b = appendInt(b, "bytes", facts.torn.bytes, true)
		b = appendField(e, b, "file", facts.torn.file, maxName)
		b = appendWord(b, "sha256", facts.torn.sha256)
		b = append(b, '}')
	}
	b = appendTrue(b, "truncated", r.Truncated)
	b = e.appendAddr(b, "upstream_addr", r.Upstream)
	return appendWord(b, "upstream_proto", r.UpstreamProto)
}

// appendAgent appends payload.agent. The identities that stand in the
// top-level keys are repeated here only when they could not be written there
// whole.
func (e *encoder) appendAgent(b []byte, a *Agent) []byte {
	if a == nil {
		return b
	}
	before := len(b)
	b = appendKey(b, "agent")
	b = append(b, '{')
	open := len(b)
	b = appendField(e, b, "claimed", a.Claimed, maxName)
	if !plain(a.Identity) {
		b = appendField(e, b, "identity", a.Identity, maxName)
	}
	if !plain(a.InvokingUser) {
		b = appendField(e, b, "invoking_user", a.InvokingUser, maxName)
	}
	b = appendField(e, b, "namespace", a.Namespace, maxName)
	b = appendField(e, b, "pod", a.Pod, maxName)
	b = appendField(e, b, "service_account", a.ServiceAccount, maxName)
	if len(b) == open {
		return b[:before]
	}
	return append(b, '}')
}

// appendPath appends what the rule lets a record keep of the path.
func (e *encoder) appendPath(b []byte, r *Record) []byte {
	path := r.Path
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if i := bytes.IndexByte(path, '#'); i >= 0 {
		path = path[:i]
	}
	switch r.PathForm {
	case PathFull:
		return appendField(e, b, "path", path, maxPath)
	case PathPattern:
		return appendField(e, b, "path_pattern", r.PathPattern, maxPath)
	default: // PathHash, and whatever is not known: the least
		if len(path) == 0 {
			return b
		}
		return appendSum(e, b, "path", path)
	}
}

// afterUserinfo returns host without a user and password in front.
func afterUserinfo(host string) string {
	return host[strings.LastIndexByte(host, '@')+1:]
}

// appendKey appends a key, with a comma unless it is the object's first.
func appendKey(b []byte, key string) []byte { return appendKeyOf(b, key, "") }

// appendKeyOf appends the key made of name and suffix.
func appendKeyOf(b []byte, name, suffix string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, suffix...)
	return append(b, '"', ':')
}

// appendField appends a field that an agent can fill: cut at limit, and then
// with key_len and key_sha256 of the whole. Empty ones are left out.
func appendField[T string | []byte](e *encoder, b []byte, key string, v T, limit int) []byte {
	if len(v) == 0 {
		return b
	}
	b = appendKey(b, key)
	b = appendText(append(b, '"'), v[:cutAt(v, limit)])
	b = append(b, '"')
	if len(v) > limit {
		b = appendSum(e, b, key, v)
	}
	return b
}

// appendAddr appends an address and port that is valid.
func (e *encoder) appendAddr(b []byte, key string, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	b = append(appendKey(b, key), '"')
	if a.Addr().Zone() != "" { // which is text
		return append(appendText(b, a.AppendTo(e.scratch[:0])), '"')
	}
	return append(a.AppendTo(b), '"')
}

// appendSum appends key_len and key_sha256 of v.
func appendSum[T string | []byte](e *encoder, b []byte, key string, v T) []byte {
	b = appendKeyOf(b, key, "_len")
	b = strconv.AppendInt(b, int64(len(v)), 10)
	e.hash.Reset()
	for rest := v; len(rest) > 0; {
		n := copy(e.scratch[:], rest)
		e.hash.Write(e.scratch[:n])
		rest = rest[n:]
	}
	b = append(appendKeyOf(b, key, "_sha256"), '"')
	b = hex.AppendEncode(b, e.hash.Sum(e.scratch[:0]))
	return append(b, '"')
}

// appendWord appends one of our own words. The limit is only there so that no
// configuration can make a record of any size.
func appendWord[T string | []byte](b []byte, key string, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = appendText(append(appendKey(b, key), '"'), v[:cutAt(v, maxWord)])
	return append(b, '"')
}

// appendWhole appends text of the log's own that must not be cut.
func appendWhole(b []byte, key, v string) []byte {
	if v == "" {
		return b
	}
	b = append(appendKey(b, key), '"')
	b = appendEscaped(b, v)
	return append(b, '"')
}

// appendHashes appends a list of hashes in hex.
func appendHashes(b []byte, key string, hashes []checkpoint.Hash) []byte {
	if len(hashes) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i := range hashes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = hex.AppendEncode(b, hashes[i][:])
		b = append(b, '"')
	}
	return append(b, ']')
}

// appendInt appends an integer, a zero only when always is set.
func appendInt(b []byte, key string, v int64, always bool) []byte {
	if v == 0 && !always {
		return b
	}
	return strconv.AppendInt(appendKey(b, key), v, 10)
}

func appendTrue(b []byte, key string, v bool) []byte {
	if !v {
		return b
	}
	return append(appendKey(b, key), "true"...)
}

func appendStamp(b []byte, key string, t time.Time) []byte {
	b = append(appendKey(b, key), '"')
	b = appendTime(b, t)
	return append(b, '"')
}

func appendQueryKeys(b []byte, keys []string, all int) []byte {
	if len(keys) == 0 {
		return b
	}
	b = append(appendKey(b, "query_keys"), '[')
	for i, k := range keys[:min(len(keys), maxQueryKeys)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, '"'), k[:cutAt(k, maxQueryKey)])
		b = append(b, '"')
	}
	b = append(b, ']')
	if all > min(len(keys), maxQueryKeys) {
		b = appendInt(b, "query_keys_len", int64(all), true)
	}
	return b
}

// appendMap appends an object of strings. Keys are sorted as Python sorts
// them: by code point, which for UTF-8 is the order of the bytes.
func appendMap(b []byte, key string, m map[string]string) []byte {
	if len(m) == 0 {
		return b
	}
	b = append(appendKey(b, key), '{')
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = appendPlain(b, k)
		b = append(b, `":"`...)
		b = appendEscaped(b, m[k][:cutAt(m[k], maxDetail)])
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendTime appends t in UTC with milliseconds: timeLayout, without the cost of
// reading the layout each time. A year that four digits cannot hold is written
// as the nearest that they can.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	switch {
	case year > 9999:
		return append(b, "9999-12-31T23:59:59.999Z"...)
	case year < 1:
		return append(b, "0001-01-01T00:00:00.000Z"...)
	}
	hour, minute, sec := t.Clock()
	ms := t.Nanosecond() / 1e6
	b = appendTwo(b, year/100)
	b = appendTwo(b, year%100)
	b = appendTwo(append(b, '-'), int(month))
	b = appendTwo(append(b, '-'), day)
	b = appendTwo(append(b, 'T'), hour)
	b = appendTwo(append(b, ':'), minute)
	b = appendTwo(append(b, ':'), sec)
	b = append(b, '.', byte('0'+ms/100))
	return append(appendTwo(b, ms%100), 'Z')
}

// stamp appends times that mostly are of one second: what was written of it is
// kept.
type stamp struct {
	unix int64 // the second
	text [len(timeLayout)]byte
	set  bool
}

func (s *stamp) append(b []byte, t time.Time) []byte {
	if unix := t.Unix(); !s.set || unix != s.unix {
		appendTime(s.text[:0], t)
		s.unix, s.set = unix, true
	}
	if y := s.text[0]; y == '9' || y == '0' { // maybe cut to what four digits hold
		return appendTime(b, t)
	}
	ms := t.Nanosecond() / 1e6
	b = append(b, s.text[:len("2006-01-02T15:04:05.")]...)
	b = append(b, byte('0'+ms/100))
	return append(appendTwo(b, ms%100), 'Z')
}

func appendTwo(b []byte, v int) []byte { return append(b, byte('0'+v/10), byte('0'+v%10)) }

// cutAt returns how much of v to keep: at most limit bytes and no part of a
// character.
func cutAt[T string | []byte](v T, limit int) int {
	if len(v) <= limit {
		return len(v)
	}
	for i := limit; i > limit-utf8.UTFMax; i-- {
		if utf8.RuneStart(v[i]) {
			return i
		}
	}
	return limit
}
