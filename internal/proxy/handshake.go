package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
)

// tlsConfig is the one configuration of every client handshake: session
// tickets resume on any connection, and the names are checked on each of them,
// resumed or not, before a certificate is looked for.
//
// While the engine stops, HTTP/2 is not chosen: its servers take no more connections,
// and what a client sent on such a one would be lost.
func (s *Server) tlsConfig() *tls.Config {
	var last *tls.Config
	cfg := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"h2", "http/1.1"},
		CurvePreferences:            s.cfg.Curves,
		DynamicRecordSizingDisabled: true,
		GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			w, ok := chi.Conn.(*wire)
			if !ok {
				return nil, errors.New("a handshake on a connection that is not ours")
			}
			if why := w.owner.agree(intake.NewHello(chi)); why != nil {
				w.owner.helloRefused = why
				return nil, why
			}
			if s.draining.Load() {
				return last, nil
			}
			return nil, nil
		},
		GetCertificate: func(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
			w, ok := chi.Conn.(*wire)
			if !ok || w.owner.authority.Host == "" {
				return nil, errors.New("no name was agreed on")
			}
			leaf, err := s.cfg.Leaves.LeafFor(chi.Context(), w.owner.principalID, w.owner.authority.Host)
			if err != nil {
				w.owner.helloRefused = noLeaf(err)
			}
			return leaf, err
		},
	}
	last = cfg.Clone()
	last.NextProtos = []string{"http/1.1"}
	return cfg
}

// noLeaf is a name that policy could allow and that no certificate can be had for.
func noLeaf(err error) *refusal {
	return &refusal{status: 503, reason: "leaf_not_minted", detail: err.Error(), failed: true}
}

// agree checks that the name of a ClientHello is the name of the flow
// (promise 4), and for a transparent connection makes it so. The flow's host
// must be one that policy could allow before anything is minted for it.
func (c *conn) agree(h *intake.Hello) *refusal {
	c.flow.Hello = h
	if c.flow.Kind == intake.Transparent {
		if h.ServerName == "" {
			return &refusal{status: 421, reason: "no_sni", detail: "a redirected connection without SNI has no name"}
		}
		host, addr, err := canon.ParseHost(h.ServerName)
		if err != nil {
			return refusalOf(err)
		}
		if addr.IsValid() {
			return &refusal{status: 421, reason: "name_mismatch", detail: "the SNI is an IP address"}
		}
		c.authority = canon.Authority{Host: host, Port: c.flow.OriginalDst.Port()}
		v := c.policy().Host(c.authority)
		if !v.Possible || !v.HTTPS && !v.Passthrough {
			return &refusal{status: 403, reason: string(v.Reason), rule: v.Rule, policy: true}
		}
		return nil
	}
	if h.ServerName == "" {
		if c.policy().Host(c.authority).NoSNI {
			return nil
		}
		return &refusal{status: 421, reason: "no_sni", detail: "the ClientHello carries no server name"}
	}
	host, addr, err := canon.ParseHost(h.ServerName)
	if err != nil {
		return refusalOf(err)
	}
	if addr.IsValid() || host != c.authority.Host {
		return &refusal{status: 421, reason: "name_mismatch", detail: fmt.Sprintf("CONNECT to %q, SNI %q", c.authority.Host, h.ServerName)}
	}
	return nil
}

// terminate serves the client's handshake with a leaf for the agreed name.
func (c *conn) terminate() (*tls.Conn, *refusal) {
	tc := tls.Server(&c.wire, c.s.tls)
	deadline := c.s.now().Add(c.s.limits.Handshake)
	_ = c.tcp.SetDeadline(deadline)
	c.wire.shake = true
	err := tc.HandshakeContext(context.Background())
	c.wire.shake = false
	if err != nil {
		why := c.handshakeRefusal(c.wire.heard(err))
		if why.reason != "not_tls" { // which may be HTTP that a rule allows
			c.s.cfg.Metrics.Handshake(outcomeOf(why))
		}
		return nil, why
	}
	c.noDeadlines()
	st := tc.ConnectionState()
	outcome := metrics.HandshakeFull
	if st.DidResume {
		outcome = metrics.HandshakeResumed
	}
	c.s.cfg.Metrics.Handshake(outcome)
	c.tlsVersion, c.alpn = tls.VersionName(st.Version), st.NegotiatedProtocol
	return tc, nil
}

// handshakeRefusal gives a failed handshake one of our words. A client that
// does not trust our CA is under a name of its own: it is what a platform
// engineer looks for first.
func (c *conn) handshakeRefusal(err error) *refusal {
	if c.helloRefused != nil {
		return c.helloRefused
	}
	var op *net.OpError
	text := err.Error()
	switch {
	case errors.Is(err, errNotTLS):
		return &refusal{status: 403, reason: "not_tls", detail: "the tunnel carries no TLS"}
	case errors.As(err, &op) && op.Op == "remote error":
		if strings.Contains(text, "certificate") || strings.Contains(text, "unknown authority") {
			return &refusal{status: 502, reason: "client_rejected_certificate", detail: text, failed: true}
		}
		return &refusal{status: 502, reason: "client_alert", detail: text, failed: true}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{status: 408, reason: "handshake_timeout", detail: text}
	case strings.Contains(text, "no application protocol"), strings.Contains(text, "unsupported application protocols"):
		return &refusal{status: 400, reason: "no_application_protocol", detail: text}
	case strings.Contains(text, "unsupported versions"):
		return &refusal{status: 400, reason: "tls_version", detail: text}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &op) && op.Op != "local error":
		return &refusal{status: 400, reason: "handshake_aborted", detail: text}
	default:
		return &refusal{status: 400, reason: "bad_client_hello", detail: text}
	}
}

// outcomeOf is the counter of a handshake that failed.
func outcomeOf(why *refusal) metrics.Handshake {
	switch why.reason {
	case "client_rejected_certificate":
		return metrics.HandshakeClientRejected
	case "bad_client_hello", "no_sni", "bad_host":
		return metrics.HandshakeBadHello
	case "name_mismatch":
		return metrics.HandshakeDeniedName
	case "no_application_protocol", "tls_version":
		return metrics.HandshakeNoProtocol
	case "handshake_timeout":
		return metrics.HandshakeTimeout
	case "handshake_aborted":
		return metrics.HandshakeClosed
	case "leaf_not_minted":
		return metrics.HandshakeMint
	default:
		if why.policy {
			return metrics.HandshakeDeniedName
		}
		return metrics.HandshakeFailed
	}
}
