package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	enginev1 "github.com/arpitcoder/aegrail-engine/api/engine/v1"
)

var bot = Pod{Namespace: "support", Name: "bot-1", UID: "uid-1", ServiceAccount: "bot", Claimed: "helper"}

// start is a control that knows bot by the token "its token", with a policy that
// allows api.example.com.
func start(t *testing.T, o ServerOptions) (*served, Policy) {
	t.Helper()
	s := serve(t, newControl(t), o)
	p := Policy{YAML: []byte("spec: 1\n"), Revision: "rev-1", Template: permits(t, "api.example.com")}
	s.knows("its token", bot)
	s.rules(bot.UID, p)
	return s, p
}

func request(t *testing.T, tmpl Template, key crypto.Signer) []byte {
	t.Helper()
	der, err := NewRequest(tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAnEngineGetsThePolicyOfItsPodAndEachChange(t *testing.T) {
	s, first := start(t, ServerOptions{})
	stream, err := enginev1.NewLinkClient(s.dial(t)).Policy(as(t, "its token"), &enginev1.PolicyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if string(got.GetPolicyYaml()) != string(first.YAML) || got.GetRevision() != "rev-1" {
		t.Errorf("got %q in revision %q", got.GetPolicyYaml(), got.GetRevision())
	}
	if who := got.GetPrincipal(); who.GetNamespace() != "support" || who.GetServiceAccount() != "bot" || who.GetPod() != "bot-1" || who.GetClaimed() != "helper" {
		t.Errorf("it is told that it is %v", who)
	}
	if string(got.GetTemplate().GetNameConstraints()) != string(first.Template.NameConstraints) {
		t.Error("the template is another")
	}
	s.rules("uid-2", first) // another pod's, which concerns nobody here
	s.rules(bot.UID, Policy{Revision: "rev-2"})
	if got, err = stream.Recv(); err != nil || got.GetRevision() != "rev-2" || len(got.GetTemplate().GetNameConstraints()) > 0 {
		t.Errorf("after a change: %v, %v", got, err)
	}
}

func TestAnEngineGetsAnIntermediateForItsKey(t *testing.T) {
	s, p := start(t, ServerOptions{})
	key := newKey(t)
	resp, err := enginev1.NewLinkClient(s.dial(t)).SignCA(as(t, "its token"), &enginev1.SignCARequest{CsrDer: request(t, p.Template, key), Revision: "rev-1"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(resp.GetChainDer()[0])
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) || len(cert.PermittedDNSDomains) != 1 || cert.PermittedDNSDomains[0] != "api.example.com" {
		t.Errorf("it is for %v", cert.PermittedDNSDomains)
	}
	if !resp.GetRenewAfter().AsTime().After(time.Now()) {
		t.Errorf("renewal is due at %v", resp.GetRenewAfter().AsTime())
	}
	if r := s.refusals(); len(r) > 0 {
		t.Errorf("refused: %v", r)
	}
}

// wider is a request that has something of its own.
func wider(t *testing.T, tmpl *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// K8: an agent that got hold of a way to control asks for a certificate
// authority. Each attempt is refused, and recorded before it is answered.
func TestK08AnAgentAsksForACertificateAuthority(t *testing.T) {
	s, p := start(t, ServerOptions{SignEach: Rate{PerSecond: 1, Burst: 100}})
	s.knows("another pod's token", Pod{Namespace: "billing", Name: "pay-1", UID: "uid-3", ServiceAccount: "pay"})
	s.knows("token of a pod without rules", Pod{Namespace: "support", Name: "idle", UID: "uid-4", ServiceAccount: "idle"})
	s.rules("uid-4", Policy{Revision: "rev-1"})
	key := newKey(t)
	own := request(t, p.Template, key)
	constraint := pkix.Extension{Id: oidNameConstraints(), Critical: true, Value: p.Template.NameConstraints}
	more := func(edit func(*x509.CertificateRequest)) []byte {
		tmpl := &x509.CertificateRequest{RawSubject: p.Template.RawSubject, ExtraExtensions: []pkix.Extension{constraint}}
		edit(tmpl)
		return wider(t, tmpl, key)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), own...)
	forged[len(forged)-1] ^= 1
	for _, row := range []struct {
		what, token string
		csr         []byte
		want        codes.Code
		reason      string
	}{
		{"with no token", "", own, codes.Unauthenticated, "no_token"},
		{"with its own token, for the API server's audience", "the agent's token", own, codes.Unauthenticated, "bad_token"},
		{"with a token that Kubernetes did not make", "eyJhbGciOiJub25lIn0.e30.", own, codes.Unauthenticated, "bad_token"},
		{"for another pod's constraints", "another pod's token", own, codes.PermissionDenied, "not_injected"},
		{"where no host is allowed", "token of a pod without rules", own, codes.PermissionDenied, "no_allowed_host"},
		{"for a host more", "its token", request(t, permits(t, "api.example.com", "evil.example"), key), codes.InvalidArgument, "not_the_template"},
		{"for everything", "its token", request(t, permits(t), key), codes.InvalidArgument, "not_the_template"},
		{"under another subject", "its token", more(func(r *x509.CertificateRequest) { r.RawSubject = nil; r.Subject.CommonName = "root" }), codes.InvalidArgument, "not_the_template"},
		{"with a name of its own", "its token", more(func(r *x509.CertificateRequest) { r.DNSNames = []string{"api.example.com"} }), codes.InvalidArgument, "not_the_template"},
		{"with constraints twice", "its token", more(func(r *x509.CertificateRequest) { r.ExtraExtensions = append(r.ExtraExtensions, constraint) }), codes.InvalidArgument, "not_the_template"},
		{"with constraints that do not bind", "its token", more(func(r *x509.CertificateRequest) { r.ExtraExtensions[0].Critical = false }), codes.InvalidArgument, "not_the_template"},
		{"with an extension more", "its token", more(func(r *x509.CertificateRequest) {
			r.ExtraExtensions = append(r.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0}})
		}), codes.InvalidArgument, "not_the_template"},
		{"with an attribute more", "its token", more(func(r *x509.CertificateRequest) {
			//nolint:staticcheck // deprecated, and the one way to write an attribute
			r.Attributes = []pkix.AttributeTypeAndValueSET{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: [][]pkix.AttributeTypeAndValue{{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "x"}}}}}
		}), codes.InvalidArgument, "not_the_template"},
		{"for an RSA key", "its token", request(t, p.Template, rsaKey), codes.InvalidArgument, "not_the_template"},
		{"for a key on another curve", "its token", request(t, p.Template, p521), codes.InvalidArgument, "not_the_template"},
		{"for a key that is not its own", "its token", forged, codes.InvalidArgument, "not_the_template"},
		{"with something that is no request", "its token", []byte("x"), codes.InvalidArgument, "not_the_template"},
		{"with more than is read", "its token", make([]byte, maxRequest+1), codes.InvalidArgument, "request_too_long"},
	} {
		t.Run(row.what, func(t *testing.T) {
			before := len(s.refusals())
			_, err := enginev1.NewLinkClient(s.dial(t)).SignCA(as(t, row.token), &enginev1.SignCARequest{CsrDer: row.csr, Revision: "rev-1"})
			if status.Code(err) != row.want || !strings.Contains(status.Convert(err).Message(), row.reason+": ") {
				t.Fatalf("%v, want %s with %s", err, row.want, row.reason)
			}
			all := s.refusals()
			if len(all) != before+1 {
				t.Fatalf("%d refusals were recorded, want 1", len(all)-before)
			}
			var r *Refusal
			if got := all[before]; !errors.As(got.Err, &r) || r.Reason != row.reason || got.Call != "SignCA" || got.Peer.String() != "127.0.0.1" {
				t.Errorf("recorded as %+v", got)
			} else if wantPod := s.tokens[row.token]; got.Pod != wantPod {
				t.Errorf("recorded as the call of %+v, want %+v", got.Pod, wantPod)
			}
		})
	}
	if len(s.signed) > 0 {
		t.Errorf("signed: %v", s.signed)
	}
}

func TestWhatThePolicyNoLongerSaysIsStale(t *testing.T) {
	s, p := start(t, ServerOptions{})
	old := request(t, p.Template, newKey(t))
	s.rules(bot.UID, Policy{Revision: "rev-2", Template: permits(t, "other.example")})
	_, err := enginev1.NewLinkClient(s.dial(t)).SignCA(as(t, "its token"), &enginev1.SignCARequest{CsrDer: old, Revision: "rev-1"})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
}

func TestADefectOfTheBackendIsNotToldButRecorded(t *testing.T) {
	s, p := start(t, ServerOptions{})
	s.fault = errors.New("secret words of the API server")
	_, err := enginev1.NewLinkClient(s.dial(t)).SignCA(as(t, "its token"), &enginev1.SignCARequest{CsrDer: request(t, p.Template, newKey(t)), Revision: "rev-1"})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "secret") {
		t.Errorf("told: %v", err)
	}
	if r := s.refusals(); len(r) != 1 || !strings.Contains(r[0].Err.Error(), "secret") || r[0].Pod != bot {
		t.Errorf("recorded: %+v", r)
	}
}

func TestANewerStreamOfAPodEndsTheOneBefore(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	open := func() interface {
		Recv() (*enginev1.PolicyUpdate, error)
	} {
		stream, err := enginev1.NewLinkClient(s.dial(t)).Policy(as(t, "its token"), &enginev1.PolicyRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	first, second := open(), open()
	if _, err := first.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the first goes on: %v", err)
	}
	s.rules(bot.UID, Policy{Revision: "rev-2"})
	if got, err := second.Recv(); err != nil || got.GetRevision() != "rev-2" {
		t.Errorf("the second: %v, %v", got, err)
	}
}

func TestAStreamEndsByPlanAndIsNoRefusal(t *testing.T) {
	s, _ := start(t, ServerOptions{StreamLife: time.Millisecond})
	stream, err := enginev1.NewLinkClient(s.dial(t)).Policy(as(t, "its token"), &enginev1.PolicyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) || status.Code(err) != codes.Unavailable || !strings.HasPrefix(status.Convert(err).Message(), again+": ") {
		t.Errorf("%v", err)
	}
	if r := s.refusals(); len(r) > 0 {
		t.Errorf("recorded: %v", r)
	}
}

func TestAFloodCostsThePodThatMakesIt(t *testing.T) {
	s, p := start(t, ServerOptions{SignEach: Rate{PerSecond: 1e-6, Burst: 2}})
	s.knows("another's", Pod{Namespace: "support", Name: "bot-2", UID: "uid-2", ServiceAccount: "bot"})
	s.rules("uid-2", p)
	conn := s.dial(t)
	call := func(token string) codes.Code {
		_, err := enginev1.NewLinkClient(conn).SignCA(as(t, token), &enginev1.SignCARequest{CsrDer: request(t, p.Template, newKey(t)), Revision: "rev-1"})
		return status.Code(err)
	}
	for i, want := range []codes.Code{codes.OK, codes.OK, codes.ResourceExhausted, codes.ResourceExhausted} {
		if got := call("its token"); got != want {
			t.Errorf("call %d: %s, want %s", i+1, got, want)
		}
	}
	if got := call("another's"); got != codes.OK {
		t.Errorf("another pod's call: %s", got)
	}
	if r := s.refusals(); len(r) != 1 {
		t.Errorf("a flood is recorded once, got %v", r)
	}
}

func TestWhoIsNotKnownIsBoundedByAddress(t *testing.T) {
	s, p := start(t, ServerOptions{CallsEach: Rate{PerSecond: 1e-6, Burst: badToken + 3}})
	conn := s.dial(t)
	for i, row := range []struct {
		token string
		want  codes.Code
	}{
		{"its token", codes.OK},
		{"guessed", codes.Unauthenticated}, // counts as ten
		{"its token", codes.OK},
		{"guessed", codes.Unauthenticated},
		{"its token", codes.ResourceExhausted},
		{"guessed", codes.ResourceExhausted},
	} {
		_, err := enginev1.NewLinkClient(conn).SignCA(as(t, row.token), &enginev1.SignCARequest{CsrDer: request(t, p.Template, newKey(t)), Revision: "rev-1"})
		if status.Code(err) != row.want {
			t.Errorf("call %d: %v, want %s", i+1, err, row.want)
		}
	}
	if n := s.asked(); n != 4 {
		t.Errorf("%d tokens were looked at", n)
	}
}

func TestAServerIsNotMadeWithoutWhatMakesItSafe(t *testing.T) {
	if _, err := NewServer(nil, ServerOptions{}); err == nil {
		t.Error("without a backend")
	}
	if _, err := NewServer(newControl(t), ServerOptions{Refused: func(Refused) {}}); err == nil {
		t.Error("without a certificate")
	}
}
