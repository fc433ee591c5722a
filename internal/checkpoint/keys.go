package checkpoint

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	// privatePrefix begins a signer's key.
	privatePrefix = "PRIVATE+KEY+"
	// maxKeys is the longest text of verifier keys, in bytes.
	maxKeys = 64 << 10
)

// Generate makes a new Ed25519 key for the log of that name and returns the
// private half as the line, with its newline, that NewSigner takes. It is a
// secret: keep it with mode 0600.
func Generate(name string) (private string, err error) {
	if !isName(name) {
		return "", fmt.Errorf("making a checkpoint key: %q is not a name: use 1 to %d characters of ASCII without spaces and +, like audit.example.com/prod", name, maxName)
	}
	private, _, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", fmt.Errorf("making a checkpoint key: %w", err)
	}
	return private + "\n", nil
}

// Signer signs checkpoints with one key. It may be used by several goroutines
// at once. The zero value signs nothing: NewSigner makes one.
type Signer struct {
	key      note.Signer
	verifier string
}

// NewSigner takes a private key as Generate returned it; the newline at its end
// may be missing. Errors never show the key.
func NewSigner(private string) (*Signer, error) {
	line := strings.TrimSuffix(private, "\n")
	switch ours := strings.HasPrefix(line, privatePrefix); {
	case strings.ContainsAny(line, "\r\n "):
		return nil, errors.New("checkpoint key: more than one line, or spaces: the file holds one line that begins with " + privatePrefix)
	case !ours && strings.Count(line, "+") >= 2:
		return nil, errors.New("checkpoint key: this is a verifier key; signing takes the private one, which begins with " + privatePrefix)
	case !ours:
		return nil, errors.New("checkpoint key: want a line that begins with " + privatePrefix)
	}
	errDamaged := errors.New("checkpoint key: damaged or incomplete: restore the file, or move it away to have a new key made")
	key, err := note.NewSigner(line)
	if err != nil || !isName(key.Name()) {
		return nil, errDamaged
	}
	parts := strings.SplitN(line, "+", 5) // PRIVATE, KEY, name, id, seed: NewSigner has found them whole
	seed, err := base64.StdEncoding.Strict().DecodeString(parts[4])
	if err != nil || parts[3] != fmt.Sprintf("%08x", key.KeyHash()) {
		return nil, errDamaged
	}
	public := ed25519.NewKeyFromSeed(seed[1:])[ed25519.SeedSize:]
	verifier, err := note.NewEd25519VerifierKey(key.Name(), ed25519.PublicKey(public))
	if err != nil {
		return nil, errDamaged
	}
	return &Signer{key: key, verifier: verifier}, nil
}

// Name is the key's, and the origin of what it signs.
func (s *Signer) Name() string { return s.key.Name() }

// VerifierKey is the public half: what auditors check signatures with. They
// must get it by a way that whoever can change the log cannot change.
func (s *Signer) VerifierKey() string { return s.verifier }

// Sign returns the note for c, whose Origin is the key's name whatever c says,
// and whose Time is cut to milliseconds in UTC.
func (s *Signer) Sign(c Checkpoint) ([]byte, error) {
	c.Origin = s.key.Name()
	c.Time = c.Time.UTC().Truncate(time.Millisecond)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	msg, err := note.Sign(&note.Note{Text: c.text()}, s.key)
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	return msg, nil
}

// Verifiers are the public keys that somebody trusts. The zero value is none:
// then no note is authenticated.
type Verifiers struct {
	list note.Verifiers
	keys []string
}

// ParseVerifiers reads verifier keys, one a line. Empty lines and lines that
// begin with # are left out, as is space around a key.
func ParseVerifiers(text string) (Verifiers, error) {
	if len(text) > maxKeys {
		return Verifiers{}, fmt.Errorf("verifier keys: longer than %d bytes: give a file of keys, one a line", maxKeys)
	}
	var v Verifiers
	var list []note.Verifier
	seen := map[string]string{} // :: name+id → key
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := parseVerifier(line)
		if err != nil {
			return Verifiers{}, fmt.Errorf("verifier key in line %d: %w", n, err)
		}
		id := fmt.Sprintf("%s+%08x", key.Name(), key.KeyHash())
		switch seen[id] {
		case line:
			continue
		case "":
		default:
			return Verifiers{}, fmt.Errorf("verifier key in line %d: a second key with the name and id %s: one of them is an impostor's", n, id)
		}
		seen[id] = line
		list = append(list, key)
		v.keys = append(v.keys, line)
	}
	if len(list) == 0 {
		return Verifiers{}, errors.New("verifier keys: none given: want a line like NAME+ID+KEY, as the engine prints it at its start")
	}
	v.list = note.VerifierList(list...)
	return v, nil
}

func parseVerifier(line string) (note.Verifier, error) {
	if strings.HasPrefix(line, privatePrefix) {
		return nil, errors.New("this is a private key, which must stay with the engine; give the verifier key, which the engine prints at its start")
	}
	key, err := note.NewVerifier(line)
	if err != nil || !isName(key.Name()) {
		return nil, fmt.Errorf("%.200q is not one: want NAME+ID+KEY, as the engine prints it at its start", line)
	}
	parts := strings.SplitN(line, "+", 3)
	if _, err := base64.StdEncoding.Strict().DecodeString(parts[2]); err != nil || parts[1] != fmt.Sprintf("%08x", key.KeyHash()) {
		return nil, fmt.Errorf("%.200q is not in its canonical form: copy it again from where the engine printed it", line)
	}
	return key, nil
}

// Keys returns the keys as they were given, in order and without repetitions.
func (v Verifiers) Keys() []string { return append([]string(nil), v.keys...) }
