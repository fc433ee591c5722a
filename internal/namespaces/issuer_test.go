package namespaces_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	cmapiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

func TestWhatAnIssuerReturnsForANamespaceIsChecked(t *testing.T) {
	company := newCA(t, "company root", nil, nil)
	for _, row := range []struct {
		what, want string
		data       func(*testing.T) map[string][]byte
	}{
		{"no CA", "not a CA", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"a CA that may not sign", "certSign", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"another key", "key mismatch", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company)
			return secretData(t, company, encode(c.cert), encode(company.cert))
		}},
		{"no room below", "leaves no room", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"no room above", "leaves no room", func(t *testing.T) map[string][]byte {
			tight := newCA(t, "tight root", nil, nil, func(c *x509.Certificate) { c.MaxPathLen = 1 })
			c := newCA(t, "x", nil, tight)
			return secretData(t, c, encode(c.cert), encode(tight.cert))
		}},
		{"no root", "no self-signed root", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company)
			return secretData(t, c, encode(c.cert), nil)
		}},
		{"for clients alone", "verify", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"expired", "expired", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"nothing", "", func(*testing.T) map[string][]byte { return nil }},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t, namespaces.Options{Issuer: &cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "company", Group: "cert-manager.io"}}, namespace("support", injected(), nil))
			w.reconcile("support")
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: "aegrail-ca-support-1"}, Data: row.data(t)}
			if err := w.client.Create(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			w.reconcile("support")
			w.wants("support", "False NotIssued")
			if got := w.condition("support"); !strings.Contains(got, row.want) {
				t.Errorf("condition %q, want %q", got, row.want)
			}
			if w.bundle("support") != nil {
				t.Error("and yet there is a bundle")
			}
			if _, err := namespaces.Roots(t.Context(), w.client, control, "support", 1, time.Now()); err == nil {
				t.Error("and yet it has roots")
			}
		})
	}
}

func TestAnIssuerOfTheCompanySignsTheCA(t *testing.T) {
	company := newCA(t, "company root", nil, nil)
	between := newCA(t, "company intermediate", nil, company)
	issuer := &cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "company", Group: "cert-manager.io"}
	w := newWorld(t, namespaces.Options{Issuer: issuer}, namespace("support", injected(), nil))
	w.reconcile("support")
	c := &cmv1.Certificate{}
	if !w.get(c, control, "aegrail-ca-support-1") || c.Spec.IssuerRef != *issuer || w.get(&cmv1.Issuer{}, control, "aegrail-roots") {
		t.Errorf("%+v", c.Spec.IssuerRef)
	}
	signed := newCA(t, "support", nil, between)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: c.Name}, Data: secretData(t, signed, encode(signed.cert, between.cert), encode(company.cert))}
	if err := w.client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.reconcile("support")
	w.wants("support", "True Ready")
	checkBundle(t, w, 1, company.cert)
	roots, err := namespaces.Roots(t.Context(), w.client, control, "support", 1, time.Now())
	if err != nil || len(roots) != 1 || !roots[0].Equal(company.cert) {
		t.Errorf("%v, %v", roots, err)
	}
}

func TestAnotherIssuerBeginsAGeneration(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	w.r.Issuer = &cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "company", Group: "cert-manager.io"}
	w.settle("support")
	w.wants("support", "True Ready generation 2")
	c := &cmv1.Certificate{}
	if !w.get(c, control, "aegrail-ca-support-1") || c.Spec.IssuerRef.Name != "aegrail-roots" {
		t.Errorf("the first generation has another issuer: %+v", c.Spec.IssuerRef)
	}
}

func TestAnIssuerThatFailsIsNamed(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.reconcile("support")
	c := &cmv1.Certificate{}
	w.edit(c, control, "aegrail-ca-support-1", func() {
		cmapiutil.SetCertificateCondition(c, 1, cmv1.CertificateConditionIssuing, cmmeta.ConditionFalse, "Failed", "the vault is sealed")
	})
	w.reconcile("support")
	w.wants("support", "False NotIssued issuer Issuer/aegrail-roots did not sign the CA: the vault is sealed")
}

func TestACertManagerThatDoesNothingIsNotWaitedForInSilence(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.reconcile("support")
	w.pass(2 * time.Minute)
	w.reconcile("support")
	w.wants("support", "False NotIssued the certificate aegrail-ca-support-1 is not issued: cert-manager has not looked at it")
}
