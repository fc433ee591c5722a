package main

import "encoding/binary"

// ClientHellos that crypto/tls's client has no way to send.

// with16 puts a length of two bytes before p, with8 one of one.
func with16(p []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...) }
func with8(p []byte) []byte  { return append([]byte{byte(len(p))}, p...) }

func extension(id uint16, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), with16(content)...)
}

// sni is a server_name extension (RFC 6066 section 3) with these names, whatever
// is in them.
func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0), with16([]byte(n))...)
	}
	return extension(0, with16(list))
}

// ech is an encrypted_client_hello extension (RFC 9849) with nothing in it that
// anybody could open.
func ech() []byte {
	return extension(0xfe0d, append(append([]byte{0, 0, 1, 0, 1, 7}, with16(make([]byte, 32))...), with16(make([]byte, 160))...))
}

// clientHello is a record with the least ClientHello that a TLS 1.2 server
// answers, and these extensions.
func clientHello(extensions ...[]byte) string {
	body := append([]byte{3, 3}, make([]byte, 32)...)              // legacy_version, random
	body = append(body, 0)                                         // session ID
	body = append(body, with16([]byte{0xc0, 0x2b, 0xc0, 0x2f})...) // ECDHE with ECDSA and RSA, AES-128-GCM
	body = append(body, 1, 0)                                      // no compression
	all := extension(10, with16([]byte{0, 23}))                    // P-256
	all = append(all, extension(13, with16([]byte{4, 3, 8, 4, 4, 1}))...)
	all = append(all, extension(11, with8([]byte{0}))...)
	for _, e := range extensions {
		all = append(all, e...)
	}
	body = append(body, with16(all)...)
	message := append([]byte{1, 0}, with16(body)...) // a length of three bytes
	return string(append([]byte{22, 3, 1}, with16(message)...))
}
