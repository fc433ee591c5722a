package checkpoint

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func TestAKeyIsOneLineThatXModReads(t *testing.T) {
	private, err := Generate("log.example/prod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(private, "PRIVATE+KEY+log.example/prod+") || strings.Index(private, "\n") != len(private)-1 {
		t.Errorf("%q", private)
	}
	for _, text := range []string{private, strings.TrimSuffix(private, "\n")} {
		s, err := NewSigner(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := note.NewVerifier(s.VerifierKey()); err != nil || s.Name() != "log.example/prod" {
			t.Errorf("%s: %v", s.VerifierKey(), err)
		}
	}
	again, err := Generate("log.example/prod")
	if err != nil || again == private {
		t.Errorf("the same key twice: %v", err)
	}
}

func TestANameMustBeReadable(t *testing.T) {
	for _, name := range []string{"", "a b", "a+b", "a\n", "é", "a\x7f", "a\xff", strings.Repeat("a", maxName+1)} {
		if _, err := Generate(name); err == nil {
			t.Errorf("%q: a key was made", name)
		}
	}
	signer(t, strings.Repeat("a", maxName))
}

func TestAMangledPrivateKeyIsRefusedAndNotShown(t *testing.T) {
	s := fixed(t)
	private, err := Generate("log.example")
	if err != nil {
		t.Fatal(err)
	}
	private = strings.TrimSuffix(private, "\n")
	parts := strings.SplitN(private, "+", 5)
	join := func(i int, part string) string {
		p := slices.Clone(parts)
		p[i] = part
		return strings.Join(p, "+")
	}
	cyrillic, _, err := note.GenerateKey(zeroes{}, "lоg.example")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":                 {"", "PRIVATE+KEY+"},
		"a PEM file":            {"-----BEGIN PRIVATE KEY-----\nAAAA\n", "one line"},
		"a word":                {"secret", "PRIVATE+KEY+"},
		"the verifier key":      {s.VerifierKey(), "verifier key"},
		"two lines":             {private + "\n" + private, "one line"},
		"two newlines":          {private + "\n\n", "one line"},
		"a carriage return":     {private + "\r\n", "one line"},
		"a space in front":      {" " + private, "one line"},
		"cut":                   {private[:len(private)-9], "damaged"},
		"no seed":               {join(4, ""), "damaged"},
		"another name":          {join(2, "log.examplf"), "damaged"},
		"another id":            {join(3, "00000000"), "damaged"},
		"another algorithm":     {join(4, base64.StdEncoding.EncodeToString(make([]byte, 33))), "damaged"},
		"a short seed":          {join(4, base64.StdEncoding.EncodeToString([]byte{1, 2, 3})), "damaged"},
		"a name that misleads":  {cyrillic, "damaged"},
		"a seed, another's one": {join(4, base64.StdEncoding.EncodeToString(append([]byte{1}, make([]byte, 32)...))), "damaged"},
	} {
		_, err := NewSigner(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), parts[4][:12]) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

// zeroes is a source of a key that tests can know.
type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestAKeyHasOneSpelling(t *testing.T) {
	// The fixed key's id has letters, and 33 bytes leave no bits over: the
	// spellings that are left to try are the id's.
	s := fixed(t)
	name, rest, _ := strings.Cut(s.VerifierKey(), "+")
	id, key, _ := strings.Cut(rest, "+")
	if strings.ToUpper(id) == id {
		t.Fatalf("id %s has no letters", id)
	}
	if _, err := NewSigner(strings.Replace(fixedPrivate(t), id, strings.ToUpper(id), 1)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("an id in capitals: %v", err)
	}
	if _, err := ParseVerifiers(name + "+" + strings.ToUpper(id) + "+" + key); err == nil || !strings.Contains(err.Error(), "canonical") {
		t.Errorf("an id in capitals: %v", err)
	}
}

func TestVerifierKeysComeOneALine(t *testing.T) {
	a, b := signer(t, "a.example"), signer(t, "b.example")
	text := "# the log's key\r\n\n  " + a.VerifierKey() + "\t\r\n#" + b.VerifierKey() + "\n" + b.VerifierKey() + "\n" + a.VerifierKey()
	v, err := ParseVerifiers(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Keys(); !slices.Equal(got, []string{a.VerifierKey(), b.VerifierKey()}) {
		t.Errorf("%q", got)
	}
	for _, s := range []*Signer{a, b} {
		if _, ok, err := Open(sign(t, s, sample()), v); err != nil || !ok {
			t.Errorf("%s: %v, %v", s.Name(), ok, err)
		}
	}
	if len(Verifiers{}.Keys()) != 0 {
		t.Error("the zero value has keys")
	}
}

func TestMangledVerifierKeysAreRefused(t *testing.T) {
	s := signer(t, "log.example")
	key := s.VerifierKey()
	private, err := Generate("log.example")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "none given"},
		"comments alone":  {"# nothing\n\n", "none given"},
		"a word":          {"key", "NAME+ID+KEY"},
		"cut":             {key[:len(key)-4], "NAME+ID+KEY"},
		"another name":    {"x" + key, "NAME+ID+KEY"},
		"the private key": {private, "private key"},
		"two on a line":   {key + " " + key, "NAME+ID+KEY"},
		"in the second":   {key + "\nkey\n", "line 2"},
		"beyond measure":  {strings.Repeat("#\n", maxKeys), "longer than"},
		"a long word":     {strings.Repeat("x", 5000), "NAME+ID+KEY"},
		"a name too long": {longKey(t), "NAME+ID+KEY"},
	} {
		v, err := ParseVerifiers(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(v.Keys()) != 0 {
			t.Errorf("%s: %v", name, err)
		} else if len(err.Error()) > 500 || strings.Contains(err.Error(), private[30:60]) {
			t.Errorf("%s: the error shows too much: %v", name, err)
		}
	}
}

func longKey(t *testing.T) string {
	_, key, err := note.GenerateKey(zeroes{}, strings.Repeat("x", maxName+1))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
