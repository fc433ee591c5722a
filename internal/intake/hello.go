package intake

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"
)

const (
	// MaxHello bounds the bytes that may come before a ClientHello is whole.
	// Post-quantum key shares make hellos of 2 KiB; record headers around
	// 40-byte fragments add an eighth. crypto/tls itself refuses a handshake
	// message of more than 64 KiB.
	MaxHello = 80 << 10

	// extensionECH is encrypted_client_hello (RFC 9849).
	extensionECH = 0xfe0d

	recordHandshake = 22 // ContentType of RFC 8446 section 5.1
)

// ErrNotTLS is a connection whose first byte does not begin a TLS handshake
// record.
var ErrNotTLS = errors.New("the first byte is not a TLS handshake record's")

var errSeen = errors.New("the ClientHello was seen")

// NewHello takes from crypto/tls's view of a ClientHello what the engine uses.
func NewHello(chi *tls.ClientHelloInfo) *Hello {
	return &Hello{
		ServerName: chi.ServerName,
		ECH:        slices.Contains(chi.Extensions, extensionECH),
	}
}

// PeekHello reads a ClientHello from conn without answering it. Hello.Raw holds
// every byte that was read, so that the connection can be served or spliced
// from its beginning. The caller sets the deadline on conn. The error is
// ErrNotTLS, an I/O error of conn, or crypto/tls's own word on a bad hello;
// the bytes read so far are returned with it.
func PeekHello(conn net.Conn) (*Hello, error) {
	r := &recorder{conn: conn}
	var hello *Hello
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS10, // a version we do not serve is refused later, with its name
		GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			hello = NewHello(chi)
			return nil, errSeen
		},
	}
	err := tls.Server(r, cfg).Handshake()
	if hello == nil {
		switch {
		case r.seen.Len() > 0 && r.seen.Bytes()[0] != recordHandshake:
			err = ErrNotTLS
		case r.err != nil:
			err = r.err
		}
		return &Hello{Raw: r.seen.Bytes()}, err
	}
	hello.Raw = r.seen.Bytes()
	return hello, nil
}

// recorder is a connection that can be read and not written.
type recorder struct {
	conn net.Conn
	seen bytes.Buffer
	err  error
}

func (r *recorder) Read(p []byte) (int, error) {
	if r.seen.Len() >= MaxHello {
		r.err = &Error{Reason: "bad_client_hello", Detail: "a ClientHello of more than 80 KiB"}
		return 0, r.err
	}
	n, err := r.conn.Read(p)
	if r.seen.Len() == 0 && n > 0 && p[0] != recordHandshake {
		r.seen.Write(p[:n])
		r.err = ErrNotTLS
		return 0, r.err
	}
	r.seen.Write(p[:n])
	if err != nil && r.err == nil {
		r.err = err
	}
	return n, err
}

func (r *recorder) Write(p []byte) (int, error)      { return len(p), nil }
func (r *recorder) Close() error                     { return nil }
func (r *recorder) LocalAddr() net.Addr              { return r.conn.LocalAddr() }
func (r *recorder) RemoteAddr() net.Addr             { return r.conn.RemoteAddr() }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }
