package intake

import "net/netip"

// Kind says how a connection reached the engine. The zero value is no way in
// at all; nothing is judged for it.
type Kind uint8

const (
	Unknown     Kind = iota
	Connect          // a CONNECT on the forward-proxy port
	Plain            // absolute-form requests on the forward-proxy port
	Transparent      // redirected by the kernel; the original destination is known
)

// String returns the word that the audit log uses.
func (k Kind) String() string {
	switch k {
	case Connect:
		return "connect"
	case Plain:
		return "plain"
	case Transparent:
		return "transparent"
	default:
		return ""
	}
}

// Flow is what is known of a connection before anything is judged. Nothing in
// it is canonical: Target and Hello are the agent's words, byte for byte.
type Flow struct {
	Kind        Kind
	Client      netip.AddrPort // the peer
	Local       netip.AddrPort // our end of the connection
	Target      string         // CONNECT authority as it was sent; "" else
	OriginalDst netip.AddrPort // Transparent only: where the agent meant to connect
	Hello       *Hello         // nil until a ClientHello was read
	TLS         bool           // what follows is TLS

	// ProxyAuthorization is the credential of a CONNECT or an absolute-form
	// request. It is for identity alone and is never logged or forwarded.
	ProxyAuthorization string
}

// Hello is what the engine takes from a ClientHello (RFC 8446 section 4.1.2).
type Hello struct {
	ServerName string // SNI as sent; may hold any byte (crypto/tls does not validate it)
	ECH        bool   // an encrypted_client_hello extension is there
	Raw        []byte // the bytes read so far, to replay into a tunnel
}
