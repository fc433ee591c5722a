package proxy

import (
	"cmp"
	"errors"
	"os"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// fillConn puts what is known of the connection into rec.
func (c *conn) fillConn(rec *audit.Record) {
	rec.Agent = &c.agent
	rec.Client = c.flow.Client
	rec.Kind = c.flow.Kind.String()
	if rec.Scheme = c.scheme.String(); rec.Scheme == "" && c.flow.Kind == intake.Connect {
		rec.Method = "CONNECT" // there was no request in the tunnel yet
	}
	rec.Host, rec.Port = c.authority.Host, c.authority.Port
	rec.TLSVersion, rec.ALPN = c.tlsVersion, c.alpn
	rec.Mitm = c.flow.TLS && c.tlsVersion != ""
	if c.flow.Hello != nil && c.flow.Hello.ServerName != c.authority.Host {
		rec.SNI = c.flow.Hello.ServerName
	}
}

// fill puts the request into x.rec, once; later records of the exchange add
// what has come to be known.
func (x *exchange) fill() {
	rec := &x.rec
	x.c.fillConn(rec)
	rec.ID = x.req.ID()
	if x.req.Host != "" {
		rec.Scheme = x.req.Scheme.String()
		rec.Host, rec.Port = x.req.Host, x.req.Port
	}
	rec.Method = x.req.Method
	rec.Path = x.req.Path
	if x.req.HasQuery {
		x.keys, rec.QueryKeysLen = x.req.QueryKeys(x.keys[:0])
		rec.QueryKeys = x.keys
	}
	d := &x.decision
	rec.Rule, rec.Policy = d.Rule, d.Policy
	rec.Observed = d.Observed
	switch d.RecordPath {
	case policy.RecordPattern:
		rec.PathForm = audit.PathPattern
		rec.PathPattern = d.Pattern
	case policy.RecordHash:
		rec.PathForm = audit.PathHash
	}
	if x.view == nil { // refused before there was anything to judge
		x.view = x.c.policy()
	}
	rec.PolicyRevision = x.view.Revision()
	if d.Observed {
		rec.Reason = string(d.Reason)
	}
}

// recordDecision commits the allowing decision. Only then is there a Receipt,
// and only with a Receipt does upstream send.
func (x *exchange) recordDecision(attempt int) (audit.Receipt, error) {
	if attempt == 1 {
		x.fill()
	}
	x.rec.Event, x.rec.Phase = audit.EgressAllowed, audit.PhaseDecision
	x.rec.Attempt = attempt
	receipt, err := x.s.cfg.Log.Decide(&x.rec)
	if err != nil {
		return audit.Receipt{}, err
	}
	x.recorded = true
	x.decided = x.look().Sub(x.start)
	return receipt, nil
}

// recordDenial records a request that is not sent. Where the log cannot take
// even that, the answer is the log's state.
func (x *exchange) recordDenial(why *refusal) *refusal {
	x.fill()
	x.rec.Phase = audit.PhaseDecision
	x.refused(why)
	x.decided = x.look().Sub(x.start)
	x.rec.DecisionTime = x.decided
	err := x.s.cfg.Log.Refuse(&x.rec)
	x.s.cfg.Metrics.Observe(&x.rec)
	return afterRefuse(why, err)
}

// recordFailure is the end of a request that was allowed and then failed.
func (x *exchange) recordFailure(why *refusal) *refusal {
	x.fillEnd()
	answered := x.rec.StatusCode
	x.refused(why)
	if x.client.began() { // the agent has the origin's status, and gets no other
		x.rec.StatusCode = answered
	}
	// The digests are of what came: a part, if the agent or the origin left, or
	// if one of them was told to.
	x.rec.Truncated = x.rec.Truncated || x.client.began() || !x.body.done() || x.respHash.Bytes() > 0
	if err := x.s.cfg.Log.Complete(&x.rec); err != nil {
		return unrecorded(err)
	}
	x.completed = true
	x.s.cfg.Metrics.Observe(&x.rec)
	return why
}

func (x *exchange) refused(why *refusal) {
	setRefusal(&x.rec, why)
}

func setRefusal(rec *audit.Record, why *refusal) {
	rec.Event = audit.EgressDenied
	if why.failed {
		rec.Event = audit.EgressError
	}
	rec.Reason, rec.Detail = why.reason, why.detail
	if why.logged != "" {
		rec.Detail = why.logged
	}
	if why.policy {
		rec.Detail = "" // what else the agent may do is for the agent, the log has the revision
	}
	if why.rule != "" {
		rec.Rule = why.rule
	}
	rec.StatusCode = why.status
}

// fillEnd adds what the exchange came to. The upload has ended.
func (x *exchange) fillEnd() {
	rec := &x.rec
	rec.Phase = audit.PhaseComplete
	rec.RequestBytes = x.reqHash.Bytes()
	rec.ResponseBytes = x.respHash.Bytes()
	rec.RequestSHA256 = x.reqHash.Sum(x.reqSum[:0])
	rec.ResponseSHA256 = x.respHash.Sum(x.respSum[:0])
	rec.DigestKeyID = x.s.cfg.DigestKey.KeyID
	rec.Duration = x.look().Sub(x.start)
	rec.DecisionTime = x.decided
	rec.UpstreamTime = x.sent
	rec.AddedTime = x.decided
}

// afterRefuse is the answer to why when its record had the result err.
func afterRefuse(why *refusal, err error) *refusal {
	if err == nil {
		return why
	}
	return unrecorded(err)
}

// unrecorded is the answer to what the log did not take: a principal whose
// budget of refusals is out, or a log that cannot be written. Why, with the names
// of files, is in the engine's own log and no matter of the agent's.
func unrecorded(err error) *refusal {
	if errors.Is(err, audit.ErrBudget) {
		return &refusal{status: 429, reason: "refusal_budget", detail: "too many refused requests; this principal is refused for now", close: true}
	}
	return &refusal{status: 503, reason: "audit_unavailable", detail: "the audit log takes no records now", failed: true, close: true}
}

// refuseHead answers and records what never became a request: framing that
// cannot be read, a caller who is nobody.
func (c *conn) refuseHead(w writer, why *refusal) {
	why = c.recordRefusal(why)
	if why.reason == "client_aborted" {
		return // there is nobody to answer
	}
	cl := h1client{c: c, w: w, head: &c.head}
	x := c.exchange()
	x.reset(c, &cl, c.s.now())
	x.req = canon.Request{}
	cl.refuse(x, why)
}

// refuseQuietly records a connection that ends before HTTP can be spoken.
func (c *conn) refuseQuietly(why *refusal) {
	why = c.recordRefusal(why)
	c.s.cfg.Logger.Debug("a connection ended before its first request", "client", c.flow.Client, "reason", why.reason, "detail", cmp.Or(why.logged, why.detail))
}

// unrecognizedName is the fatal alert of RFC 6066 section 3, in a record of TLS 1.2's version.
var unrecognizedName = [...]byte{21, 3, 3, 0, 2, 2, 112}

// refuseHello records a ClientHello that is refused and answers with an alert.
func (c *conn) refuseHello(why *refusal) {
	c.refuseQuietly(why)
	_ = c.tcp.SetWriteDeadline(c.s.now().Add(c.s.limits.WriteStall))
	_, _ = c.tcp.Write(unrecognizedName[:])
}

func (c *conn) recordRefusal(why *refusal) *refusal {
	var rec audit.Record
	c.fillConn(&rec)
	rec.ID = c.s.ids.Add(1)
	rec.Phase = audit.PhaseDecision
	rec.PolicyRevision = c.policy().Revision()
	setRefusal(&rec, why)
	err := c.s.cfg.Log.Refuse(&rec)
	c.s.cfg.Metrics.Observe(&rec)
	return afterRefuse(why, err)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// appendRaw appends fields as they are.
func appendRaw(dst []byte, fields []http1.Field) []byte {
	for _, f := range fields {
		dst = http1.AppendField(dst, f.Name, f.Value)
	}
	return dst
}
