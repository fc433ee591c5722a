// Package digest hashes bodies as they stream past.
//
// The audit log names every body by a digest of its bytes as they crossed the
// wire: no decompression, no chunk framing. A Hash is written to while a body
// is forwarded, and read once when the body ended or broke off; a body that
// was cut has the digest of what came.
//
// # Two kinds
//
// Without a key the digest is SHA-256 (FIPS 180-4), which anyone who holds the
// body can check with sha256sum. That is also its weakness: the hash of a body
// that can be guessed (a yes, a customer number) can be looked up. With a key
// it is HMAC-SHA-256 (RFC 2104) of the same bytes, which only a holder of the
// key can check or guess at. The log then carries the key's name beside the
// digest (digest_key_id), never the key.
//
// Both are written as 64 lower-case hexadecimal digits.
//
// # What it does not do
//
// It stores nothing of a body, it does not frame or separate several bodies
// (one Hash is for one body; Reset before the next), and it is not safe for
// concurrent use.
package digest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
)

// Size is the length in bytes of what Sum appends: SHA-256 in hexadecimal.
const Size = 2 * sha256.Size

// MinKey is the shortest key that Check accepts, in bytes. A key shorter than
// the hash is allowed by RFC 2104 section 3 and "strongly discouraged".
const MinKey = sha256.Size

// Keyed selects the kind of digest. The zero value is plain SHA-256.
type Keyed struct {
	KeyID string // what the log calls the key; "" without a key
	Key   []byte // secret; empty: plain SHA-256
}

// Check says what is wrong with k. Half a key is an error: a KeyID without a
// key would label plain, guessable hashes as keyed ones, and a key without an
// id leaves an auditor with digests that nobody can check.
func (k Keyed) Check() error {
	switch {
	case k.KeyID == "" && len(k.Key) == 0:
		return nil
	case len(k.Key) == 0:
		return fmt.Errorf("digest key %q is empty; give its key or leave its id out", k.KeyID)
	case k.KeyID == "":
		return errors.New("digest key has no id; name it, the log must say which key it used")
	case len(k.Key) < MinKey:
		return fmt.Errorf("digest key %q has %d bytes; give at least %d", k.KeyID, len(k.Key), MinKey)
	default:
		return nil
	}
}

// Hash is the digest of one body. Make one with New; the zero value panics on
// use, it would be no digest at all.
type Hash struct {
	h   hash.Hash
	n   int64
	sum [sha256.Size]byte // scratch, so that Sum does not allocate
}

// New returns an empty Hash. It panics if k does not pass Check: the caller
// checks what it loaded, and no request can bring this about.
func New(k Keyed) *Hash {
	if err := k.Check(); err != nil {
		panic("digest: " + err.Error())
	}
	if len(k.Key) == 0 {
		return &Hash{h: sha256.New()}
	}
	return &Hash{h: hmac.New(sha256.New, k.Key)}
}

// Reset makes h the digest of a new, empty body. The key stays.
func (h *Hash) Reset() {
	h.h.Reset()
	h.n = 0
}

// Write adds p to the body. It takes all of it and never fails; the error is
// there for io.Writer.
func (h *Hash) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.h.Write(p)
}

// Bytes returns how many bytes were written since Reset.
func (h *Hash) Bytes() int64 { return h.n }

// Sum appends the digest of what was written so far to dst, as Size
// hexadecimal digits. It changes nothing: more may be written after it.
func (h *Hash) Sum(dst []byte) []byte {
	return hex.AppendEncode(dst, h.h.Sum(h.sum[:0]))
}
