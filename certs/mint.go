package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// serialSize is the number of random bytes in a serial number: 128 bits, of the 20 octets that RFC 5280, 4.1.2.2 allows.
const serialSize = 16

// newSerial is big-endian.
func newSerial() []byte {
	serial := make([]byte, serialSize)
	_, _ = rand.Read(serial) // never fails: crypto/rand ends the process instead
	return serial
}

// LeafKey is the private key of leaves: P-256, made by the process, kept for its life, never the CA's key. It is a
// crypto.Signer for crypto/tls and shows itself to nothing that prints or marshals a tls.Certificate.
type LeafKey struct {
	key  *ecdsa.PrivateKey
	spki []byte // DER SubjectPublicKeyInfo
}

// NewLeafKey makes a key.
func NewLeafKey() (*LeafKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a leaf key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("making a leaf key: %w", err)
	}
	return &LeafKey{key: key, spki: spki}, nil
}

// Public is the *ecdsa.PublicKey.
func (k *LeafKey) Public() crypto.PublicKey { return &k.key.PublicKey }

// Sign signs a digest, as crypto.Signer says.
func (k *LeafKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.key.Sign(r, digest, opts)
}

// Format writes the type and nothing else, whatever the verb.
func (*LeafKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "certs.LeafKey") }

// leafForm is a TBSCertificate (RFC 5280, 4.1) cut at what differs between two leaves of a CA:
//
//	SEQUENCE { version, SERIAL, signature issuer, VALIDITY, subject, PUBLIC KEY, [3] { SEQUENCE { extensions, SAN } } }
//
// The pieces come from a certificate that x509.CreateCertificate made, so the shape is the library's own; filling it in and
// signing costs a third of CreateCertificate, which verifies its own signature each time.
type leafForm struct {
	hash       crypto.Hash
	version    []byte // [0] { INTEGER 2 }
	issuer     []byte // AlgorithmIdentifier of the signature, then the CA's subject
	subject    []byte // an empty Name
	extensions []byte // all but the SAN
	algorithm  []byte // the outer AlgorithmIdentifier
}

// newLeafForm has x509.CreateCertificate make a leaf for host, cuts it up, and checks that the pieces put together again
// are that leaf.
func newLeafForm(ca *x509.Certificate, key crypto.Signer, host string, leafKey *LeafKey, now time.Time) (leafForm, error) {
	now = now.UTC().Truncate(time.Second)
	serial := newSerial()
	tmpl := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		NotBefore:    now,
		NotAfter:     now.Add(LeafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	addr, err := parseHost(host)
	if err != nil {
		return leafForm{}, err
	}
	if addr.IsValid() {
		tmpl.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, leafKey.Public(), key)
	if err != nil {
		return leafForm{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return leafForm{}, err
	}
	form, err := cutForm(cert)
	if err != nil {
		return leafForm{}, err
	}
	again := form.tbs(leafFields{serial: serial, notBefore: tmpl.NotBefore, notAfter: tmpl.NotAfter, spki: leafKey.spki, host: host, addr: addr})
	if !bytes.Equal(again, cert.RawTBSCertificate) {
		return leafForm{}, errors.New("the leaf template does not reproduce what crypto/x509 writes; this is a bug of the engine with this version of Go")
	}
	return form, nil
}

var errForm = errors.New("crypto/x509 wrote a certificate of an unknown shape; this is a bug of the engine with this version of Go")

func cutForm(cert *x509.Certificate) (leafForm, error) {
	form := leafForm{}
	switch cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.SHA256WithRSA:
		form.hash = crypto.SHA256
	case x509.ECDSAWithSHA384:
		form.hash = crypto.SHA384
	case x509.PureEd25519:
	default:
		return leafForm{}, fmt.Errorf("%w: signature algorithm %s", errForm, cert.SignatureAlgorithm)
	}
	outer, tbs := elements(cert.Raw), elements(cert.RawTBSCertificate)
	if len(outer) != 3 || len(tbs) != 8 {
		return leafForm{}, errForm
	}
	form.algorithm = outer[1]
	form.version, form.issuer, form.subject = tbs[0], append(bytes.Clone(tbs[2]), tbs[3]...), tbs[5]
	wrapped := elements(tbs[7])
	if len(wrapped) != 1 {
		return leafForm{}, errForm
	}
	list := elements(wrapped[0])
	if len(list) < 2 { // the SAN is the last and not the only one
		return leafForm{}, errForm
	}
	form.extensions = bytes.Join(list[:len(list)-1], nil)
	return form, nil
}

// elements returns the DER of each element inside the constructed element der; nil if der is not well formed.
func elements(der []byte) [][]byte {
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) != 0 || !outer.IsCompound {
		return nil
	}
	var out [][]byte
	for rest := outer.Bytes; len(rest) > 0; {
		var one asn1.RawValue
		next, err := asn1.Unmarshal(rest, &one)
		if err != nil {
			return nil
		}
		out, rest = append(out, one.FullBytes), next
	}
	return out
}

// leafFields is what differs between two leaves.
type leafFields struct {
	serial              []byte // big-endian
	notBefore, notAfter time.Time
	spki                []byte
	host                string
	addr                netip.Addr // valid: the SAN is this address and not host
}

// DER tags (X.690) of what is written by hand.
const (
	tagBoolean     = 0x01
	tagInteger     = 0x02
	tagBitString   = 0x03
	tagOctetString = 0x04
	tagUTCTime     = 0x17
	tagTime        = 0x18 // GeneralizedTime
	tagSequence    = 0x30
	tagDNSName     = 0x82 // GeneralName [2]
	tagIPAddress   = 0x87 // GeneralName [7]
	tagExtensions  = 0xa3 // TBSCertificate [3]
)

// tbs writes the TBSCertificate.
func (f *leafForm) tbs(l leafFields) []byte {
	san := appendSAN(nil, l.host, l.addr)
	validity := appendTime(appendTime(nil, l.notBefore), l.notAfter)
	exts := append(header(tagSequence, len(f.extensions)+len(san)), f.extensions...)
	exts = append(exts, san...)

	body := make([]byte, 0, 1024) // grows for a long issuer alone
	body = append(body, f.version...)
	body = appendInteger(body, l.serial)
	body = append(body, f.issuer...)
	body = append(append(body, header(tagSequence, len(validity))...), validity...)
	body = append(body, f.subject...)
	body = append(body, l.spki...)
	body = append(append(body, header(tagExtensions, len(exts))...), exts...)
	return append(header(tagSequence, len(body)), body...)
}

// appendSAN writes the subject alternative name extension (RFC 5280, 4.2.1.6), critical because the subject is empty.
func appendSAN(dst []byte, host string, addr netip.Addr) []byte {
	tag, value := byte(tagDNSName), []byte(host)
	if addr.IsValid() {
		tag, value = tagIPAddress, addr.AsSlice()
	}
	name := append(header(tag, len(value)), value...)
	names := append(header(tagSequence, len(name)), name...)
	ext := []byte{
		0x06, 3, 0x55, 0x1d, 0x11, // OBJECT IDENTIFIER 2.5.29.17
		tagBoolean, 1, 0xff,
	}
	ext = append(append(ext, header(tagOctetString, len(names))...), names...)
	return append(append(dst, header(tagSequence, len(ext))...), ext...)
}

// appendTime writes UTCTime through 2049 and GeneralizedTime from 2050 (RFC 5280, 4.1.2.5).
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 2050 {
		return t.AppendFormat(append(dst, tagUTCTime, 13), "060102150405Z")
	}
	return t.AppendFormat(append(dst, tagTime, 15), "20060102150405Z")
}

// appendInteger writes a positive INTEGER: no leading zero bytes but the one that keeps it positive.
func appendInteger(dst, big []byte) []byte {
	big = bytes.TrimLeft(big, "\x00")
	if len(big) == 0 || big[0] >= 0x80 {
		dst = append(append(dst, header(tagInteger, len(big)+1)...), 0)
	} else {
		dst = append(dst, header(tagInteger, len(big))...)
	}
	return append(dst, big...)
}

// header is the tag and length of an element, with room behind it for a small one.
func header(tag byte, length int) []byte {
	out := make([]byte, 0, 32)
	switch {
	case length < 0x80:
		return append(out, tag, byte(length))
	case length < 0x100:
		return append(out, tag, 0x81, byte(length))
	default: // a certificate of 64 KiB fits no handshake: newLeafForm would have failed
		return append(out, tag, 0x82, byte(length>>8), byte(length))
	}
}

// Mint signs a leaf for host, a canonical DNS name or IP address that policy approved, valid at now. The result has Leaf set,
// and carries the intermediates but not the root. Errors wrap ErrHost, ErrNotPermitted or ErrExpired.
func (a *Authority) Mint(host string, key *LeafKey, now time.Time) (*tls.Certificate, error) {
	if a == nil || a.sign == nil || key == nil {
		return nil, errors.New("minting a leaf: no CA or no leaf key")
	}
	addr, err := parseHost(host)
	if err != nil {
		return nil, err
	}
	if !a.permits(host, addr) {
		return nil, fmt.Errorf("%w: %s, CA %q", ErrNotPermitted, host, a.cert.Subject)
	}
	l := leafFields{serial: newSerial(), spki: key.spki, host: host, addr: addr}
	if l.notBefore, l.notAfter, err = a.validity(now); err != nil {
		return nil, err
	}
	tbs := a.form.tbs(l)
	sig, err := a.sign(tbs)
	if err != nil {
		return nil, fmt.Errorf("minting a leaf for %s: %w", host, err)
	}
	body := append(tbs, a.form.algorithm...)
	body = append(append(body, header(tagBitString, len(sig)+1)...), 0) // no unused bits
	body = append(body, sig...)
	der := append(header(tagSequence, len(body)), body...)
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("minting a leaf for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.sent...), PrivateKey: key, Leaf: leaf}, nil
}

// validity is Backdate before now to LeafLife after that, within what the CA and everything above it has left.
func (a *Authority) validity(now time.Time) (notBefore, notAfter time.Time, err error) {
	if now.Before(a.notBefore) || now.After(a.notAfter) {
		return now, now, fmt.Errorf("%w: CA %q is valid from %s to %s and the clock says %s",
			ErrExpired, a.cert.Subject, stamp(a.notBefore), stamp(a.notAfter), stamp(now))
	}
	notBefore = now.UTC().Truncate(time.Second).Add(-Backdate)
	if notBefore.Before(a.notBefore) {
		notBefore = a.notBefore
	}
	notAfter = notBefore.Add(LeafLife)
	if notAfter.After(a.notAfter) {
		notAfter = a.notAfter
	}
	return notBefore, notAfter, nil
}
