package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// refusal is why a request is not answered by its origin.
type refusal struct {
	status     int
	reason     string // one of our own words
	rule       string
	detail     string // for the agent and the log; never another agent's rules
	logged     string // for the log instead of detail, where that is for the agent alone
	policy     bool   // a plain policy verdict, which keeps the connection where that is safe
	failed     bool   // allowed, and then something broke: egress_error and not egress_denied
	full       bool   // for want of room: nothing more is read of who is refused
	close      bool   // the connection cannot carry another request
	ends       bool   // … nor over HTTP/2
	retryAfter time.Duration
}

func (r *refusal) Error() string {
	if r.detail == "" {
		return r.reason
	}
	return r.reason + ": " + r.detail
}

// refusalOf gives the error of a stage its answer. What it does not know is
// an internal failure: 500, closed, recorded.
func refusalOf(err error) *refusal {
	var why *refusal
	var ambiguous *canon.Error
	var framing *http1.Error
	var in *intake.Error
	var up *upstream.Error
	switch {
	case errors.As(err, &why):
		return why
	case errors.As(err, &ambiguous):
		return &refusal{status: ambiguous.Status, reason: ambiguous.Reason, detail: ambiguous.Detail, close: true}
	case errors.As(err, &up) && up.Reason == upstream.ReasonCanceled:
		return clientGone(err) // the client's leaving is what cancels, but for a cut, which has a reason of its own
	case errors.As(err, &up):
		// Before framing: an origin's answer that cannot be read has an http1.Error
		// as its cause, and is a failure of what was allowed, no denial.
		return &refusal{status: up.Status, reason: up.Reason, detail: up.Detail, failed: up.Status != 403}
	case errors.As(err, &framing):
		return &refusal{status: framing.Status, reason: framing.Reason, detail: framing.Detail, close: true}
	case errors.As(err, &in):
		return &refusal{status: in.Status, reason: in.Reason, detail: in.Detail, close: true}
	default:
		return &refusal{status: 500, reason: "internal", detail: err.Error(), failed: true, close: true}
	}
}

func asRefusal(err error) *refusal {
	if err == nil {
		return nil
	}
	return refusalOf(err)
}

// refusalOfRead is refusalOf for an error that came from reading a head, where
// an I/O error is the client's.
func refusalOfRead(err error) *refusal {
	var framing *http1.Error
	if errors.As(err, &framing) {
		return refusalOf(err)
	}
	if errors.Is(err, http1.ErrNoRoom) {
		return tooManyHeads()
	}
	if isTimeout(err) {
		return &refusal{status: 408, reason: "head_timeout", detail: "the request's head came too slowly", close: true}
	}
	return &refusal{status: 400, reason: "client_aborted", detail: err.Error(), close: true}
}

func tooManyHeads() *refusal {
	return &refusal{
		status: 503, reason: "too_many_heads", retryAfter: time.Second, full: true, close: true,
		detail: "as many large request heads as the engine may hold are there; one below 4 KiB passes",
	}
}

// statusOf is the HTTP status of a policy verdict. Ambiguity is the request's
// fault, everything else the policy's will.
func statusOf(r policy.Reason) int {
	switch r {
	case policy.BodyTooLarge:
		return 413
	case policy.BadBody, policy.AmbiguousPath:
		return 400
	default:
		return 403
	}
}

// twoReadings reports a verdict on the request's form rather than on the agent's
// rights: whoever sends one does not get to send another on the connection.
func twoReadings(r policy.Reason) bool {
	switch r {
	case policy.AmbiguousPath, policy.MethodOverride, policy.BadBody, policy.BodyTooLarge, policy.UpgradeNotAllowed:
		return true
	default:
		return false
	}
}

// answer is a refusal in the client's terms: a status, fields and a body.
type answer struct {
	status  int
	fields  []http1.Field
	body    []byte
	trailer bool // gRPC: the fields are a trailers-only response
}

// problem is RFC 9457, with what an agent's developer needs to go on.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Reason   string `json:"reason"`
	Request  string `json:"request_id,omitempty"`
	Revision string `json:"policy_revision,omitempty"`
	Ask      string `json:"ask,omitempty"`
}

// askFor says how to get what was refused. The words name the record, so that
// whoever is asked can find it.
const askFor = "ask the owner of the agent's egress policy to allow it, and name the request_id"

func (x *exchange) problem(why *refusal) problem {
	p := problem{
		Type: "about:blank", Title: "refused by the egress policy", Status: why.status, Detail: why.detail,
		Reason: why.reason, Request: requestID(x.req.ID()), Revision: x.c.policy().Revision(), Ask: askFor,
	}
	if why.failed {
		p.Title, p.Ask = "allowed by the egress policy, and failed", ""
	}
	return p
}

// refusalAnswer puts why in the terms of the protocol that the request speaks:
// gRPC, JSON-RPC, or HTTP.
func (x *exchange) refusalAnswer(why *refusal) answer {
	p := x.problem(why)
	a := answer{status: why.status}
	a.add("X-Aegrail-Decision", decisionWord(why))
	a.add("X-Aegrail-Reason", why.reason)
	if p.Request != "" {
		a.add("X-Aegrail-Request-Id", p.Request)
	}
	if why.status == 407 {
		a.add("Proxy-Authenticate", `Basic realm="aegrail-engine"`) // RFC 9110 section 15.5.8; what most clients can answer
	}
	if why.retryAfter > 0 {
		a.add("Retry-After", strconv.Itoa(int((why.retryAfter+time.Second-1)/time.Second)))
	}
	switch {
	case x.req.GRPC && x.req.HTTP2:
		a.status, a.trailer = 200, true
		a.add("Content-Type", "application/grpc")
		a.add("Grpc-Status", strconv.Itoa(grpcStatus(why.status)))
		a.add("Grpc-Message", grpcMessage("aegrail: "+why.Error()))
	case x.isJSONRPC():
		if why.policy {
			a.status = 403
		}
		a.add("Content-Type", "application/json")
		a.body = x.jsonRPC(p)
	default:
		a.add("Content-Type", "application/problem+json")
		a.body = mustJSON(p)
	}
	return a
}

func (a *answer) add(name, value string) {
	a.fields = append(a.fields, http1.Field{Name: []byte(name), Value: []byte(value)})
}

func decisionWord(why *refusal) string {
	if why.failed {
		return "error"
	}
	return "denied"
}

func requestID(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", id)
}

// grpcStatus maps an HTTP status to a gRPC code
// (grpc.io/docs/guides/status-codes).
func grpcStatus(status int) int {
	switch status {
	case 408, 504:
		return 4 // DEADLINE_EXCEEDED
	case 413, 429:
		return 8 // RESOURCE_EXHAUSTED
	case 400, 417, 431:
		return 3 // INVALID_ARGUMENT
	case 502, 503:
		return 14 // UNAVAILABLE
	case 500:
		return 13 // INTERNAL
	default:
		return 7 // PERMISSION_DENIED
	}
}

// grpcMessage percent-encodes what is not printable ASCII (gRPC over HTTP/2,
// Responses, Percent-Encoded).
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// isJSONRPC reports a request whose sender reads JSON-RPC errors: by its media
// type, by MCP's header fields, or by the body where a rule has read it.
func (x *exchange) isJSONRPC() bool {
	for _, f := range x.req.Fields {
		switch {
		case http1.EqualFold(f.Name, "mcp-session-id"), http1.EqualFold(f.Name, "mcp-protocol-version"):
			return true
		case http1.EqualFold(f.Name, "content-type"):
			media, _, _ := bytes.Cut(f.Value, []byte(";"))
			media = bytes.TrimSpace(media)
			if http1.EqualFold(media, "application/json-rpc") || http1.EqualFold(media, "application/jsonrequest") {
				return true
			}
		}
	}
	_, ok := x.jsonRPCID()
	return ok
}

// jsonRPCID is the id of a judged JSON-RPC 2.0 request, as it was written.
func (x *exchange) jsonRPCID() (json.RawMessage, bool) {
	if len(x.judged) == 0 {
		return nil, false
	}
	var call struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
	}
	if json.Unmarshal(x.judged, &call) != nil || call.Version != "2.0" {
		return nil, false
	}
	switch {
	case len(call.ID) == 0, call.ID[0] == '{', call.ID[0] == '[', call.ID[0] == 't', call.ID[0] == 'f':
		return json.RawMessage("null"), true
	default:
		return call.ID, true
	}
}

// jsonRPCServerError is the first of the codes that JSON-RPC 2.0 section 5.1
// leaves to servers.
const jsonRPCServerError = -32000

func (x *exchange) jsonRPC(p problem) []byte {
	id, ok := x.jsonRPCID()
	if !ok {
		id = json.RawMessage("null")
	}
	type rpcError struct {
		Code    int     `json:"code"`
		Message string  `json:"message"`
		Data    problem `json:"data"`
	}
	return mustJSON(struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcError        `json:"error"`
	}{"2.0", id, rpcError{jsonRPCServerError, p.Title + ": " + p.Reason, p}})
}

// mustJSON encodes values of our own types, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"title":"refused","reason":"internal"}`)
	}
	return append(b, '\n')
}

// refuseConnect records and answers a CONNECT that gets no tunnel. The reason
// is in the status line, since that is what clients print.
func (c *conn) refuseConnect(why *refusal) {
	why = c.recordRefusal(why)
	x := c.exchange()
	x.reset(c, nil, c.s.now())
	x.req = canon.Request{}
	a := x.refusalAnswer(why)
	out := append([]byte("HTTP/1.1 "), strconv.Itoa(a.status)...)
	out = append(append(out, " aegrail: "...), why.reason...)
	out = appendRaw(append(out, "\r\n"...), a.fields)
	out = http1.AppendContentLength(out, int64(len(a.body)))
	out = append(append(out, "Connection: close\r\n\r\n"...), a.body...)
	_ = c.tcp.SetWriteDeadline(c.s.now().Add(c.s.limits.WriteStall))
	if _, err := c.tcp.Write(out); err == nil {
		c.lingers(c.tcp)
	}
}

// What is read of a client that is still sending when it is refused: for
// lingerWait, as long as it does not pause for lingerStall, and lingerBytes at
// most. Closing at once would send a reset, and a reset can overtake the answer
// (RFC 9112 section 9.6); many clients read nothing before they have sent all.
//
// A pause over HTTP/2 is shorter. Go's client stops to send when it sees a refusal,
// says nothing, and waits for the end of the stream, as long as we do; a client that
// waits for its window goes on as soon as what it sent was read.
const (
	lingerWait    = 10 * time.Second
	lingerStall   = time.Second
	lingerStallH2 = 250 * time.Millisecond
	lingerBytes   = 64 << 20
)

// scraps are what is read into to be thrown away. They are small, since who is refused
// for what it holds must not hold more then.
var scraps = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

func (c *conn) lingers(w writer) {
	if tc, ok := w.(*tls.Conn); ok {
		_ = tc.CloseWrite()
	}
	if tc, ok := c.tcp.(*tls.Conn); ok {
		_ = tc.CloseWrite() // --listen-tls
	}
	tcp, ok := rawOf(c.tcp).(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil {
		return
	}
	piece, _ := scraps.Get().(*[]byte)
	defer scraps.Put(piece)
	lingerRead(tcp, tcp.SetReadDeadline, lingerStall, *piece, c.s.now)
}

// lingerRead returns as soon as r ends.
func lingerRead(r io.Reader, deadline func(time.Time) error, stall time.Duration, piece []byte, now func() time.Time) {
	end := now().Add(lingerWait)
	for n := 0; n < lingerBytes && now().Before(end); {
		_ = deadline(now().Add(stall))
		m, err := r.Read(piece)
		if err != nil {
			return
		}
		n += m
	}
}
