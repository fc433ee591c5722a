package podca_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

func TestK08ATokenThatDoesNotNameALivingInjectedPodIsRefused(t *testing.T) {
	const denied = link.Denied
	for _, row := range []struct {
		what   string
		token  string
		review authenticationv1.TokenReviewStatus
		edit   func(*corev1.Pod)
		kind   link.Kind
		reason string
		event  bool // there is a pod to tell
	}{
		{what: "no token", token: "", kind: link.Unauthenticated, reason: "not_authenticated"},
		{what: "a token with a space in it", token: "a b", kind: link.Unauthenticated, reason: "not_authenticated"},
		{what: "a token of many bytes", token: string(make([]byte, 20<<10)), kind: link.Unauthenticated, reason: "not_authenticated"},
		{what: "its own token, which is for the API server", token: "t", review: authenticationv1.TokenReviewStatus{Error: "invalid audience"}, kind: link.Unauthenticated, reason: "not_authenticated"},
		{what: "its own token, before an authenticator that knows no audiences", token: "t",
			review: func() authenticationv1.TokenReviewStatus {
				s := tokenOf("", "support-bot", "bot-1", uid)
				s.Audiences = nil
				return s
			}(), kind: link.Unauthenticated, reason: "wrong_audience"},
		{what: "a stolen audience", token: "t", review: tokenOf("vault", "support-bot", "bot-1", uid), kind: link.Unauthenticated, reason: "wrong_audience"},
		{what: "a token that is bound to no pod", token: "t", review: tokenOf(podca.Audience, "support-bot", "", ""), kind: link.Unauthenticated, reason: "not_a_pod"},
		{what: "a token of two pods", token: "t",
			review: func() authenticationv1.TokenReviewStatus {
				s := tokenOf(podca.Audience, "support-bot", "bot-1", uid)
				s.User.Extra["authentication.kubernetes.io/pod-uid"] = authenticationv1.ExtraValue{uid, "other"}
				return s
			}(), kind: link.Unauthenticated, reason: "not_a_pod"},
		{what: "a user", token: "t", review: authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{podca.Audience}, User: authenticationv1.UserInfo{Username: "admin"}}, kind: link.Unauthenticated, reason: "not_a_pod"},
		{what: "another pod's UID", token: "t", review: tokenOf(podca.Audience, "support-bot", "bot-1", "other"), kind: denied, reason: "pod_uid", event: true},
		{what: "a pod that is gone", token: "t", review: tokenOf(podca.Audience, "support-bot", "bot-0", uid), kind: denied, reason: "pod_gone"},
		{what: "another service account", token: "t", review: tokenOf(podca.Audience, "admin-bot", "bot-1", uid), kind: denied, reason: "service_account", event: true},
		{what: "a pod that has ended", token: "good", edit: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, kind: denied, reason: "pod_ending", event: true},
		{what: "a pod that was not injected", token: "good", edit: func(p *corev1.Pod) { delete(p.Labels, "aegrail.io/injected") }, kind: denied, reason: "not_injected", event: true},
		{what: "a pod that is not as it was injected", token: "good", edit: func(p *corev1.Pod) { p.Annotations["tampered"] = "yes" }, kind: denied, reason: "not_injected", event: true},
		{what: "a pod that names no root", token: "good", edit: func(p *corev1.Pod) { p.Annotations["aegrail.io/ca-generation"] = "-1" }, kind: denied, reason: "not_injected", event: true},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t)
			if row.token != "good" {
				w.reviews[row.token] = row.review
			}
			if row.edit != nil {
				w.editPod(row.edit)
			}
			pod, err := w.signer.Authenticate(t.Context(), row.token)
			w.refused(link.Refused{Call: "Policy", Err: err}, row.kind, row.reason, row.event)
			if pod != (link.Pod{}) {
				t.Errorf("and yet it is %+v", pod)
			}
		})
	}
}

func TestK08APodThatIsBeingDeletedIsRefused(t *testing.T) {
	ending := injectedPod()
	ending.Name, ending.UID = "ending", "ending-uid"
	ending.Finalizers = []string{"example.com/hold"}
	now := metav1.Now()
	ending.DeletionTimestamp = &now
	w := newWorld(t, ending)
	w.reviews["t"] = tokenOf(podca.Audience, "support-bot", "ending", "ending-uid")
	_, err := w.signer.Authenticate(t.Context(), "t")
	w.refused(link.Refused{Call: "Policy", Err: err}, link.Denied, "pod_ending", true)
}

// TestK08ARequestThatIsNotTheTemplateIsRefused changes one thing of a request
// that is granted, and nothing of it reaches cert-manager.
func TestK08ARequestThatIsNotTheTemplateIsRefused(t *testing.T) {
	wider, err := podca.Constraints(compile(t, "api.example.com,evil.example"), bot)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ext := func(csr *x509.CertificateRequest) *pkix.Extension { return &csr.ExtraExtensions[0] }
	add := func(id asn1.ObjectIdentifier, value []byte) func(*x509.CertificateRequest) {
		return func(csr *x509.CertificateRequest) {
			csr.ExtraExtensions = append(csr.ExtraExtensions, pkix.Extension{Id: id, Value: value})
		}
	}
	p256 := newKey(t, elliptic.P256())
	for _, row := range []struct {
		what string
		key  crypto.Signer
		edit func(*x509.CertificateRequest)
		der  func([]byte) []byte
	}{
		{what: "wider constraints", edit: func(csr *x509.CertificateRequest) { ext(csr).Value = wider.DER }},
		{what: "no constraints", edit: func(csr *x509.CertificateRequest) { csr.ExtraExtensions = nil }},
		{what: "constraints that are not critical", edit: func(csr *x509.CertificateRequest) { ext(csr).Critical = false }},
		{what: "constraints twice", edit: func(csr *x509.CertificateRequest) { csr.ExtraExtensions = append(csr.ExtraExtensions, *ext(csr)) }},
		{what: "basic constraints", edit: add(asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 0x03, 0x01, 0x01, 0xff})},
		{what: "an extension nobody knows", edit: add(asn1.ObjectIdentifier{1, 2, 3, 4}, []byte{5, 0})},
		{what: "a DNS name", edit: func(csr *x509.CertificateRequest) { csr.DNSNames = []string{"evil.example"} }},
		{what: "an address", edit: func(csr *x509.CertificateRequest) { csr.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }},
		{what: "a URI", edit: func(csr *x509.CertificateRequest) { csr.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }},
		{what: "a password", edit: func(csr *x509.CertificateRequest) {
			//nolint:staticcheck // deprecated, and the one way to write an attribute of another kind
			csr.Attributes = []pkix.AttributeTypeAndValueSET{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, Value: [][]pkix.AttributeTypeAndValue{{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "x"}}}}}
		}},
		{what: "another subject", edit: func(csr *x509.CertificateRequest) {
			csr.RawSubject, csr.Subject = nil, pkix.Name{CommonName: "aegrail-engine pod other"}
		}},
		{what: "no subject", edit: func(csr *x509.CertificateRequest) { csr.RawSubject = []byte{0x30, 0} }},
		{what: "an RSA key", key: rsaKey},
		{what: "a P-224 key", key: newKey(t, elliptic.P224())},
		{what: "a P-521 key", key: newKey(t, elliptic.P521())},
		{what: "a bad signature", der: func(der []byte) []byte { der[len(der)-1] ^= 1; return der }},
		{what: "bytes behind it", der: func(der []byte) []byte { return append(der, 0) }},
		{what: "nothing", der: func([]byte) []byte { return nil }},
		{what: "more than is read", der: func([]byte) []byte { return make([]byte, 1<<20) }},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t)
			key, edit := row.key, row.edit
			if key == nil {
				key = p256
			}
			if edit == nil {
				edit = func(*x509.CertificateRequest) {}
			}
			tmpl := w.template("api.example.com")
			der := newCSR(t, key, tmpl, edit)
			if row.der != nil {
				der = row.der(der)
			}
			_, err := w.signer.Sign(t.Context(), w.pod, tmpl, der)
			reason := "not_the_template"
			if row.what == "more than is read" {
				reason = "request_too_long"
			}
			w.refusedSign(err, link.Invalid, reason)
			if len(w.created) > 0 {
				t.Errorf("cert-manager was asked: %s", <-w.created)
			}
		})
	}
}

func TestK08TheTemplateOfAnotherPodOrPolicyIsRefused(t *testing.T) {
	w := newWorld(t)
	own := w.template("api.example.com")
	other := w.pod
	other.UID = "99999999-2222-3333-4444-555555555555"
	foreign, err := podca.NewTemplate(other, constraint(t, "api.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, elliptic.P256())
	_, err = w.signer.Sign(t.Context(), w.pod, own, newCSR(t, key, foreign))
	w.refusedSign(err, link.Invalid, "not_the_template")
	_, err = w.signer.Sign(t.Context(), w.pod, own, newCSR(t, key, w.template("evil.example")))
	w.refusedSign(err, link.Invalid, "not_the_template")
	_, err = w.signer.Sign(t.Context(), w.pod, own, newCSR(t, key, w.template("*")))
	w.refusedSign(err, link.Invalid, "not_the_template")
	_, err = w.signer.Sign(t.Context(), w.pod, w.template("*"), newCSR(t, key, own))
	w.refusedSign(err, link.Invalid, "not_the_template")
	_, err = w.signer.Sign(t.Context(), w.pod, link.Template{}, newCSR(t, key, own))
	w.refusedSign(err, link.Denied, "no_allowed_host")
	_, err = w.signer.Sign(t.Context(), other, foreign, newCSR(t, key, foreign))
	w.refusedSign(err, link.Denied, "pod_uid")
	if len(w.created) > 0 {
		t.Errorf("cert-manager was asked: %s", <-w.created)
	}
}
