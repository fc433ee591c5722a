package resolver

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// Policies is where the policy set now in force is. Load is called for each
// query, from several goroutines; nil denies every name.
type Policies interface {
	Load() *policy.Set
}

// Config is what a Resolver needs. Policy, Agent and Log are required.
type Config struct {
	Policy Policies
	Agent  func() identity.Principal // who asks: called for each query, from several goroutines
	Log    *audit.Log                // takes the refusals

	// NoIPv6 answers AAAA with no data: for agents that have no route for IPv6,
	// and would wait for it.
	NoIPv6 bool

	Observe func(*audit.Record) // gets each refusal, for counters; nil: nobody
	Logger  *slog.Logger        // nil: slog.Default
	Now     func() time.Time    // nil: time.Now
}

// ttl is how long a client may keep an answer. The address does not change; a
// short life lets it see soon that a name is no longer allowed.
const ttl = 60 // seconds

// The reasons of a refusal.
const (
	ReasonName  = "dns_name_denied" // no rule could allow the name
	ReasonType  = "dns_type_denied" // the name has addresses, and nothing else that is told
	ReasonQuery = "dns_bad_query"   // not a question that is answered
)

// Resolver answers DNS queries. It is safe for concurrent use.
type Resolver struct {
	cfg    Config
	repeat repeats
}

// New returns a Resolver, which is to be closed.
func New(cfg Config) (*Resolver, error) {
	if cfg.Policy == nil || cfg.Agent == nil || cfg.Log == nil {
		return nil, errors.New("resolver: needs a policy to ask, somebody to ask it for, and a log to record in")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Resolver{cfg: cfg}
	r.repeat = repeats{now: cfg.Now, write: r.record}
	return r, nil
}

// Close records what was counted since it was last recorded. The log is the
// caller's to close afterwards.
func (r *Resolver) Close() error { return r.repeat.close() }

// headerSize is the fixed part of a DNS message (RFC 1035 section 4.1.1).
const headerSize = 12

// Answer returns the answer to query, a message without TCP's length, or nil
// where none is due. It never asks another server.
func (r *Resolver) Answer(query []byte, client netip.AddrPort) (answer []byte) {
	defer func() {
		if v := recover(); v != nil {
			r.cfg.Logger.Error("a DNS query ended in a panic; this is a defect", "client", client, "panic", v, "stack", string(debug.Stack()))
			answer = nil
		}
	}()
	if len(query) < headerSize || query[2]&0x80 != 0 { // QR: to answer an answer would go on for ever
		_ = r.refuse(refusal{client: client, reason: ReasonQuery, detail: "not a query"}) // there is nobody to tell
		return nil
	}
	q, code, why := read(query)
	if why != "" {
		if err := r.refuse(refusal{client: client, reason: ReasonQuery, detail: why}); err != nil {
			code = codeOf(err)
		}
		return r.pack(header(query, code))
	}
	return r.pack(r.reply(q, client))
}

// read parses a message that must hold one question and nothing else but an
// OPT record (RFC 6891) and a signature. The code and the reason are of one
// that does not.
func read(query []byte) (*dns.Msg, int, string) {
	count := func(at int) int { return int(query[at])<<8 | int(query[at+1]) }
	switch opcode := int(query[2]>>3) & 0xf; {
	case opcode != dns.OpcodeQuery:
		return nil, dns.RcodeNotImplemented, fmt.Sprintf("opcode %d", opcode)
	case count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 2:
		return nil, dns.RcodeFormatError, "not one question"
	}
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		return nil, dns.RcodeFormatError, "malformed: " + err.Error()
	}
	if len(m.Question) != 1 {
		return nil, dns.RcodeFormatError, "not one question"
	}
	for _, rr := range m.Extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && t != dns.TypeTSIG && t != dns.TypeSIG {
			return nil, dns.RcodeFormatError, "a record of type " + dns.Type(t).String() + " in a question"
		}
	}
	if q := m.Question[0]; q.Qclass != dns.ClassINET {
		return nil, dns.RcodeRefused, "class " + dns.Class(q.Qclass).String()
	}
	if opt := m.IsEdns0(); opt != nil && opt.Version() != 0 {
		return nil, dns.RcodeBadVers, fmt.Sprintf("EDNS version %d", opt.Version())
	}
	return m, dns.RcodeSuccess, ""
}

// header is an answer with nothing but a code, for a query that was not understood.
func header(query []byte, code int) *dns.Msg {
	m := new(dns.Msg)
	m.Id = uint16(query[0])<<8 | uint16(query[1])
	m.Response, m.Rcode = true, code
	m.Opcode = int(query[2]>>3) & 0xf
	m.RecursionDesired, m.RecursionAvailable = query[2]&1 != 0, true
	if code > 0xf { // an extended code has its upper bits in an OPT record
		m.SetEdns0(maxQuery, false)
	}
	return m
}

// reply judges a question and answers it.
func (r *Resolver) reply(q *dns.Msg, client netip.AddrPort) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable, m.Compress = true, true
	edns := q.IsEdns0() != nil
	if edns {
		m.SetEdns0(maxQuery, false)
	}
	question := q.Question[0]
	set := r.cfg.Policy.Load()
	no := refusal{client: client, name: question.Name, detail: dns.Type(question.Qtype).String(), revision: set.Revision()}
	host, addr, err := canon.ParseHost(question.Name)
	if err != nil || addr.IsValid() || !set.For(r.cfg.Agent()).Named(host).Possible {
		if err == nil {
			no.name = host
		}
		no.reason, m.Rcode = ReasonName, dns.RcodeNameError
		if edns {
			opt := m.IsEdns0()
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeFiltered, ExtraText: ReasonName})
		}
		return r.refused(m, no)
	}
	name := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
	switch question.Qtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: name, A: Address4(host).AsSlice()}}
	case dns.TypeAAAA:
		if !r.cfg.NoIPv6 {
			m.Answer = []dns.RR{&dns.AAAA{Hdr: name, AAAA: Address6(host).AsSlice()}}
		}
	case dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeCAA, dns.TypeDS, dns.TypeDNSKEY:
	default:
		no.name, no.reason = host, ReasonType
		return r.refused(m, no)
	}
	return m
}

// refused records a refusal, whose answer is m unless there is no recording it.
func (r *Resolver) refused(m *dns.Msg, no refusal) *dns.Msg {
	if err := r.refuse(no); err != nil {
		m.Rcode = codeOf(err)
	}
	return m
}

// codeOf is the answer to what could not be recorded.
func codeOf(err error) int {
	if errors.Is(err, audit.ErrBudget) {
		return dns.RcodeRefused
	}
	return dns.RcodeServerFailure
}

func (r *Resolver) pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		r.cfg.Logger.Error("a DNS answer could not be written; this is a defect", "err", err)
		return nil
	}
	return b
}
