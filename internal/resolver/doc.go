// Package resolver is the DNS that redirected agents get. It answers the names
// that policy could allow, records the others, and asks nobody: a lookup is a
// message, and what a denied name says must not leave (ATTACKS D10).
//
// It needs to ask nobody, because the engine ignores the address that an agent
// dials: it takes the name from the ClientHello or the Host header and resolves
// it itself, once policy has allowed the request. So an answer is an address
// that means nothing, derived from the name alone:
//
//	A      198.19.0.0/16, by the name's hash (from 198.18.0.0/15, which is set
//	       aside for benchmarks and routed nowhere, RFC 2544)
//	AAAA   fdae:6a11:5e9::/64, by the name's hash (a unique local prefix, RFC 4193)
//
// There is no table that a flood could fill, and a name has the same address in
// every engine and after every restart. Two names may share one, which harms
// nothing. An address that outlives the policy that gave it is judged again
// when it is dialled. What cannot be judged by a name fails there: TLS without
// SNI, a Host that is the address, anything that is neither TLS nor HTTP.
//
// The answers, for one question of class IN:
//
//	a name that a rule could allow, on any port
//	    A, AAAA                        the address, TTL 60 s
//	    HTTPS, SVCB, CNAME, NS, SOA,
//	    CAA, DS, DNSKEY                no data: clients ask for them as a matter of course
//	    anything else (TXT, MX, ANY)   no data, and recorded: dns_type_denied
//	any other name                     NXDOMAIN, and recorded: dns_name_denied
//	what is no such question           FORMERR, NOTIMP, REFUSED or BADVERS, and recorded: dns_bad_query
//	what is no query (too short for a header, or an answer)
//	                                   nothing, and recorded: dns_bad_query
//
// NXDOMAIN is what makes clients go on to the next name of a search list and
// fail at once after the last. A client that speaks EDNS also gets the extended
// error "Filtered" (RFC 8914) with the reason.
//
// A name is judged in its canonical form, as canon has it, and answered in the
// spelling of the question, since some clients vary its case to see it again.
//
// Records are egress_denied of kind "dns", with the name as host and the type
// as detail. The same name is recorded once in ten seconds and counted in
// between, so that the names of a search list do not use up an agent's budget
// of refusals (audit.Refuse). Where that budget is out the answer is REFUSED;
// where the log cannot be written, SERVFAIL.
package resolver
