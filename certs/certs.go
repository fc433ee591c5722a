// Package certs is the engine's certificate authority: it loads or makes a CA, mints a leaf certificate for each host
// that an agent may reach, keeps the leaves in a bounded cache, and builds the trust bundle that the agent's runtimes need.
//
// # The CA
//
// An [Authority] is one signing CA: its certificate, its key, the intermediates that are sent behind a leaf, and the
// roots that clients are told to trust. It comes from PEM ([Load], [LoadWithRoots]), from files ([LoadFiles]), from a mounted
// Secret ([LoadDir]: tls.crt, tls.key, ca.crt), from parts in memory ([New], the per-pod CA whose key never was in a file), or is
// made for one process ([NewEphemeral]). ECDSA P-256 and P-384, RSA from 2048 bits, and Ed25519 are taken. A CA that
// cannot sign is refused when it is loaded, with the reason; nothing is ever generated in place of a CA that does not load.
//
// Loading ends with a rehearsal: one leaf is minted for a name the CA's constraints permit, compared byte for byte with
// what [x509.CreateCertificate] would have signed, and verified against the roots. So a path length, an extended key usage or
// an unknown critical extension that would fail every handshake fails the load instead.
//
// # The leaf
//
// A leaf has a P-256 key of the process (never the CA's key), a random serial of 128 bits, exactly one subject alternative
// name (a DNS name or an IP address) and no common name; key usage digitalSignature, extended key usage serverAuth, the
// authority key identifier is the CA's subject key identifier. It is valid from [Backdate] before now for at most [LeafLife], and
// never outside the validity of the chain above it. The serial comes from the system's random source, so replicas that share
// a CA need no coordination.
//
// # The store
//
// A [Store] holds the current Authority and a least-recently-used cache of leaves. A cached leaf is minted anew after two
// thirds of its life, concurrent handshakes for one name share one mint, a token bucket of each principal bounds how
// fast names that were never seen are minted for it, and [Store.Swap] replaces the Authority together with the cache in one pointer store. Get and Set have
// the signatures of gomitmproxy's CertsStorage interface. A store may be without an Authority ([NewStore] with nil, [Store.Withdraw]):
// then it mints nothing, which is the state of a pod whose policy allows no host.
//
// # Trust
//
// The CA key is trusted: whoever has it can impersonate every name that its constraints permit to every client that
// trusts its root. It is held by a closure inside the Authority and by nothing that can be printed, logged or marshalled. The
// host names are not trusted: crypto/tls hands whatever the client sent to GetCertificate (NUL, newline, comma, asterisk,
// invalid UTF-8), so a name that is not canonical is refused here even though canon and policy ought to have refused it.
//
// What this package does not do: it decides no policy (a caller asks for a leaf only where policy could allow the host), it
// watches no files (the caller does, and calls [Store.Reload]), and it opens no connection.
package certs

import (
	"errors"
	"time"
)

const (
	// LeafLife is the longest validity of a leaf, Backdate included.
	LeafLife = 24 * time.Hour
	// Backdate is how far before now a leaf begins, for clients whose clock is behind.
	Backdate = 5 * time.Minute
	// InitLife is the validity of what Init writes. Clients read their trust once at start and the root is distributed by
	// hand, so it is long; whoever needs rotation lets cert-manager issue the CA.
	InitLife = 5 * 365 * 24 * time.Hour
	// EphemeralLife is the validity of NewEphemeral's CA: longer than a session, since a Java or Node process that read its
	// trust at start cannot take a second root.
	EphemeralLife = 30 * 24 * time.Hour
)

// What a caller may branch on, for the reason in its record. The error's text names host and CA.
var (
	// ErrHost: the name is not canonical, so there is no certificate that could be right for it.
	ErrHost = errors.New("not a canonical host name")
	// ErrNotPermitted: the CA's name constraints exclude the name; every client would refuse the leaf.
	ErrNotPermitted = errors.New("the CA's name constraints do not permit this name")
	// ErrNoAuthority: there is no CA, as no name is to be signed for.
	ErrNoAuthority = errors.New("there is no certificate authority")
	// ErrExpired: the CA's chain is outside its validity.
	ErrExpired = errors.New("the CA is outside its validity")
	// ErrThrottled: more new names in a short time than StoreOptions allows.
	ErrThrottled = errors.New("too many new names, try again shortly")
)
