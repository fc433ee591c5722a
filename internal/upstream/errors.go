package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// Reasons. They are words of the audit log and of metric labels, so they name
// what went wrong and never hold anything that a peer chose.
const (
	ReasonNotPermitted   = "upstream_not_permitted" // no Permit, no Receipt, or for another request
	ReasonUnsendable     = "upstream_unsendable"    // the request has no faithful form in the upstream's protocol
	ReasonClosed         = "upstream_client_closed" // this Client was closed
	ReasonCanceled       = "canceled"               // our caller gave up
	ReasonRequestAborted = "request_aborted"        // the request's body broke off or was not as declared
	ReasonInternal       = "internal"               // a defect of ours

	ReasonResolveFailed  = "resolve_failed"
	ReasonAddressDenied  = "address_denied"
	ReasonDialFailed     = "dial_failed"
	ReasonTimeout        = "upstream_timeout"
	ReasonUpstreamClosed = "upstream_closed"    // closed before it answered
	ReasonTruncated      = "upstream_truncated" // closed inside an answer
	ReasonBadResponse    = "bad_response"
	ReasonReset          = "upstream_reset"   // HTTP/2: the stream or the connection was reset
	ReasonRefused        = "upstream_refused" // HTTP/2: REFUSED_STREAM or GOAWAY, not processed
	ReasonProxyRefused   = "upstream_proxy_refused"
	ReasonProxyFailed    = "upstream_proxy_failed"

	ReasonTLS               = "upstream_tls"
	ReasonTLSVersion        = "upstream_tls_version"
	ReasonClientCertWanted  = "upstream_client_cert_wanted"
	ReasonCertExpired       = "upstream_cert_expired"
	ReasonCertNotYetValid   = "upstream_cert_not_yet_valid"
	ReasonCertName          = "upstream_cert_name"
	ReasonCertNoSAN         = "upstream_cert_no_san"
	ReasonCertSelfSigned    = "upstream_cert_self_signed"
	ReasonCertUnknownRoot   = "upstream_cert_unknown_root"
	ReasonCertIncomplete    = "upstream_cert_incomplete"
	ReasonCertWeakSignature = "upstream_cert_weak_signature"
	ReasonCertWeakKey       = "upstream_cert_weak_key"
	ReasonCertUsage         = "upstream_cert_usage"
	ReasonCertTooLarge      = "upstream_cert_too_large"
	ReasonCertPin           = "upstream_cert_pin"
	ReasonCertInvalid       = "upstream_cert_invalid"
	ReasonNoRoom            = "too_many_heads"
)

// maxDetail caps what of a peer's or the system's words goes into Detail.
const maxDetail = 256

// Error is why a request did not get its answer.
type Error struct {
	Reason string // one of our own words, see the Reason constants, or an http1.Error's
	Status int    // what to answer the client: 502, 504, 403 for address_denied, 400 and kin for its own broken body
	Detail string // for the log and the refusal's text; escaped and capped

	// Retry says that provably no byte of the request was processed and that
	// its body is untouched, so that it may be sent once more (with a Receipt
	// of its own).
	Retry bool

	Err error // the cause, may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Detail == "" {
		return "upstream: " + e.Reason
	}
	return "upstream: " + e.Reason + ": " + e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(reason string, status int, detail string, err error) *Error {
	return &Error{Reason: reason, Status: status, Detail: printable(detail), Err: err}
}

// gateway is the usual failure: 502, the cause's text as detail.
func gateway(reason string, err error) *Error {
	return fail(reason, http.StatusBadGateway, err.Error(), err)
}

// recovered makes an error of what recover returned, nil of nil. It is for the
// goroutines that handle bytes of a peer beside the one that called us: a panic
// there would end the engine for everybody, and is to end its exchange alone.
func (c *Client) recovered(v any) *Error {
	if v == nil {
		return nil
	}
	c.conf.Logger.Error("an exchange was ended by a panic; this is a defect", "panic", v, "stack", string(debug.Stack()))
	return fail(ReasonInternal, http.StatusInternalServerError, "the engine failed", nil)
}

// printable escapes what would break a line or a terminal and caps the length.
func printable(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			q := strconv.QuoteToASCII(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
}

// dialError names a failure to connect.
func dialError(ctx context.Context, err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(ctx.Err(), context.Canceled):
		return gateway(ReasonCanceled, ctx.Err())
	case timedOut(err):
		return fail(ReasonTimeout, http.StatusGatewayTimeout, "connecting: "+err.Error(), err)
	default:
		return gateway(ReasonDialFailed, err)
	}
}

// readError names a failure to read an answer. started: part of it was read.
func readError(ctx context.Context, err error, started, certWanted bool) *Error {
	var (
		e  *Error
		he *http1.Error
	)
	switch {
	case errors.As(err, &e):
		return e
	case ctx.Err() != nil:
		return gateway(ReasonCanceled, ctx.Err())
	case errors.Is(err, http1.ErrNoRoom):
		return fail(ReasonNoRoom, http.StatusServiceUnavailable, "as many large heads of answers as may be held are there", err)
	case errors.As(err, &he):
		return fail(he.Reason, http.StatusBadGateway, he.Detail, err)
	case timedOut(err):
		return fail(ReasonTimeout, http.StatusGatewayTimeout, "waiting for the answer: "+err.Error(), err)
	case isRemoteAlert(err):
		return tlsError(err, certWanted, time.Time{})
	case started:
		return gateway(ReasonTruncated, err)
	case errors.Is(err, io.EOF):
		return fail(ReasonUpstreamClosed, http.StatusBadGateway, "closed before it answered", err)
	default:
		return gateway(ReasonUpstreamClosed, err)
	}
}

// bodyError names a failure to read the request's body from our own client.
func bodyError(err error) *Error {
	var (
		e  *Error
		he *http1.Error
	)
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &he):
		return fail(he.Reason, he.Status, he.Detail, err)
	default:
		return fail(ReasonRequestAborted, http.StatusBadRequest, err.Error(), err)
	}
}

// isRemoteAlert reports whether the peer ended TLS with an alert. crypto/tls
// wraps it in a net.OpError with this Op and an unexported error type.
func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// tlsError gives each way in which a handshake fails its own reason (rows T1
// to T15). now is the clock that the certificate was judged by.
func tlsError(err error, certWanted bool, now time.Time) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var cv *tls.CertificateVerificationError
	if errors.As(err, &cv) {
		return gateway(certReason(cv, now), err)
	}
	if timedOut(err) {
		return fail(ReasonTimeout, http.StatusGatewayTimeout, "TLS handshake: "+err.Error(), err)
	}
	text := err.Error()
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("protocol version"):
		return gateway(ReasonTLSVersion, err)
	case has("certificate required"), certWanted && isRemoteAlert(err):
		return gateway(ReasonClientCertWanted, err)
	case has("handshake message of length"):
		return gateway(ReasonCertTooLarge, err)
	case has("failed to parse certificate"), has("unsupported type of public key"), has("certificate containing RSA key larger"):
		return gateway(ReasonCertInvalid, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fail(ReasonTruncated, http.StatusBadGateway, "closed inside the TLS handshake", err)
	default:
		return gateway(ReasonTLS, err)
	}
}

// certReason says what is wrong with a chain that did not verify.
func certReason(cv *tls.CertificateVerificationError, now time.Time) string {
	certs := cv.UnverifiedCertificates
	leaf := certs[0]
	if len(certs) > maxChain {
		return ReasonCertTooLarge
	}
	var (
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
	)
	switch {
	case errors.As(cv.Err, &invalid) && invalid.Reason == x509.Expired:
		if invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
			return ReasonCertNotYetValid
		}
		return ReasonCertExpired
	case errors.As(cv.Err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return ReasonCertUsage
	case errors.As(cv.Err, &name):
		if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
			return ReasonCertNoSAN
		}
		return ReasonCertName
	case errors.As(cv.Err, &authority):
		return unknownAuthority(certs)
	default:
		return ReasonCertInvalid
	}
}

// unknownAuthority tells the ways apart in which a chain ends nowhere. crypto
// does not: a weak signature and a missing intermediate look alike to it.
func unknownAuthority(certs []*x509.Certificate) string {
	leaf := certs[0]
	if len(certs) == 1 && string(leaf.RawIssuer) == string(leaf.RawSubject) {
		return ReasonCertSelfSigned
	}
	for _, c := range certs {
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			if string(c.RawIssuer) != string(c.RawSubject) {
				return ReasonCertWeakSignature
			}
		}
	}
	// A leaf that says where its issuer's certificate is to be had was issued
	// by an intermediate; alone, its server forgot to send that.
	if len(certs) == 1 && len(leaf.IssuingCertificateURL) > 0 {
		return ReasonCertIncomplete
	}
	return ReasonCertUnknownRoot
}
