package main

import (
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Names that the origins have. What is below denied has an address too, at which
// nobody must arrive.
const (
	goodHost  = "good.soak.test"  // HTTP/2 and HTTP/1
	plainHost = "h1.soak.test"    // HTTP/1
	grpcHost  = "grpc.soak.test"  // gRPC
	faultHost = "fault.soak.test" // HTTP/1, with faults
	falseHost = "false.soak.test" // a certificate of nobody
	slowHost  = "slow.soak.test"  // found late
	goneHost  = "gone.soak.test"  // not found
	denied    = ".no.soak.test"   // no rule

	dnsAddr   = "127.0.0.53"
	goodAddr  = "127.0.0.10"
	plainAddr = "127.0.0.11"
	grpcAddr  = "127.0.0.12"
	falseAddr = "127.0.0.13"
	trapAddr  = "127.0.0.99"

	slowAnswer = 1200 * time.Millisecond
)

// serveNames is the world's DNS.
func serveNames() (*dns.Server, error) {
	pc, err := net.ListenPacket("udp4", net.JoinHostPort(dnsAddr, "53"))
	if err != nil {
		return nil, err
	}
	addrs := map[string]string{
		goodHost: goodAddr, plainHost: plainAddr, grpcHost: grpcAddr, faultHost: plainAddr, falseHost: falseAddr, slowHost: plainAddr,
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := strings.TrimSuffix(strings.ToLower(q.Question[0].Name), ".")
		addr := addrs[name]
		if strings.HasSuffix(name, denied) {
			addr = trapAddr
		}
		switch {
		case addr == "":
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr)}}
		}
		answer := func() { _ = w.WriteMsg(m) } // who asked may have left
		if name == slowHost {
			time.AfterFunc(slowAnswer, answer)
			return
		}
		answer()
	})}
	go func() { _ = srv.ActivateAndServe() }()
	return srv, nil
}
