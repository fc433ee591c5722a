package upstream

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"

	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const (
	maxChain    = 16       // certificates that a server may send (row T12); real chains have two to four
	maxNames    = 1000     // names in a leaf (row T11); public CAs issue up to 250
	maxGreeting = 64 << 10 // bytes of a handshake, which crypto/tls holds for as long as there is the connection; real chains have 3 to 8 KiB
	minRSABits  = 2048     // row T9: crypto/tls accepts 1024

	sessionCache = 1024 // TLS sessions remembered for resumption
)

// sessions is one principal's, port's and egress's view of the shared session
// cache. crypto/tls keys sessions by server name alone; a session that was
// verified against other roots must not be resumed, nor one agent's ticket
// shown for another.
type sessions struct {
	cache  tls.ClientSessionCache
	prefix string
}

func (s sessions) Get(key string) (*tls.ClientSessionState, bool) { return s.cache.Get(s.prefix + key) }
func (s sessions) Put(key string, st *tls.ClientSessionState)     { s.cache.Put(s.prefix+key, st) }

// secured is a finished handshake.
type secured struct {
	conn       *tls.Conn
	version    uint16
	h2         bool
	certWanted bool // the server asked for a client certificate; it was answered with none
}

// handshake speaks TLS to t over raw, which it closes on failure. The standard
// library's own verification stays on; inspect adds to it.
func (c *Client) handshake(ctx context.Context, raw net.Conn, t target, principal string, alpn []string) (*secured, error) {
	s := new(secured)
	roots := c.conf.Roots
	if t.egress.Roots != nil {
		roots = t.egress.Roots
	}
	now := c.conf.Now()
	conf := &tls.Config{
		ServerName:       t.host,
		RootCAs:          roots,
		MinVersion:       tls.VersionTLS12,
		NextProtos:       alpn,
		Time:             c.conf.Now,
		CurvePreferences: c.conf.KeyExchange,
		ClientSessionCache: sessions{c.sessions, principal + "\x00" + t.egress.Key + "\x00" +
			strconv.Itoa(int(t.port)) + "\x00"},
		DynamicRecordSizingDisabled: true,
		VerifyConnection:            func(cs tls.ConnectionState) error { return inspect(cs, t.egress) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s.certWanted = true
			return new(tls.Certificate), nil
		},
	}
	ctx, cancel := context.WithTimeout(ctx, c.conf.HandshakeTimeout)
	defer cancel()
	if w, ok := raw.(*wire); ok {
		w.greeted = 0
		defer func() { w.greeted = -1 }()
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, gateway(ReasonCanceled, ctx.Err())
		}
		return nil, tlsError(err, s.certWanted, now)
	}
	st := conn.ConnectionState()
	s.conn, s.version, s.h2 = conn, st.Version, st.NegotiatedProtocol == "h2"
	return s, nil
}

// inspect holds a verified connection to more than crypto/x509 does: size of
// chain and leaf, RSA key lengths, and the rule's pins. It runs for resumed
// sessions too.
func inspect(cs tls.ConnectionState, eg *policy.Egress) error {
	if n := len(cs.PeerCertificates); n > maxChain {
		return fail(ReasonCertTooLarge, http.StatusBadGateway, fmt.Sprintf("a chain of %d certificates; %d are accepted", n, maxChain), nil)
	}
	leaf := cs.PeerCertificates[0]
	if n := len(leaf.DNSNames) + len(leaf.IPAddresses); n > maxNames {
		return fail(ReasonCertTooLarge, http.StatusBadGateway, fmt.Sprintf("a certificate for %d names; %d are accepted", n, maxNames), nil)
	}
	if !slices.ContainsFunc(cs.VerifiedChains, strongKeys) {
		return fail(ReasonCertWeakKey, http.StatusBadGateway, fmt.Sprintf("an RSA key of less than %d bits", minRSABits), nil)
	}
	if len(eg.SPKIPins) > 0 && !pinned(cs.VerifiedChains, eg.SPKIPins) {
		return fail(ReasonCertPin, http.StatusBadGateway, "no key of the chain is one of the rule's spkiPins", nil)
	}
	return nil
}

// strongKeys looks at all of chain but its root, which is trusted as it is.
func strongKeys(chain []*x509.Certificate) bool {
	for i, c := range chain {
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits && (i == 0 || i < len(chain)-1) {
			return false
		}
	}
	return true
}

func pinned(chains [][]*x509.Certificate, pins [][32]byte) bool {
	for _, chain := range chains {
		for _, c := range chain {
			if slices.Contains(pins, sha256.Sum256(c.RawSubjectPublicKeyInfo)) {
				return true
			}
		}
	}
	return false
}
