package namespaces

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	cmapiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// generation is one root of a namespace.
type generation struct {
	n    int
	cert *cmv1.Certificate

	roots []byte // PEM for clients to trust; nil until it is ready
	until time.Time
	key   string // hash of the CA's public key
	why   error  // why it is not ready
}

// lost reports that the key is another one than the pods of this generation trust.
func (g *generation) lost() bool {
	known := g.cert.Annotations[annotationKey]
	return g.key != "" && known != "" && known != g.key
}

// waiting is why a generation is not ready while nothing is wrong.
type waiting struct{ error }

// generations lists those of a namespace, the oldest first, without looking
// into their Secrets.
func (r *Reconciler) generations(ctx context.Context, namespace string) ([]*generation, error) {
	var list cmv1.CertificateList
	err := r.Live.List(ctx, &list, client.InNamespace(r.Namespace), client.MatchingLabels{labelManagedBy: managedBy, labelNamespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("listing the CAs of %s: %w", namespace, err)
	}
	var out []*generation
	for i := range list.Items {
		c := &list.Items[i]
		n, ok := inject.Generation(c.Labels[labelGeneration])
		if !ok || c.Name != Name(namespace, n) {
			r.Logger.Warn("a certificate has our labels and is none of ours; it is left alone", "certificate", c.Name)
			continue
		}
		out = append(out, &generation{n: n, cert: c})
	}
	slices.SortFunc(out, func(a, b *generation) int { return cmp.Compare(a.n, b.n) })
	return out, nil
}

// issuerRef is who signs the namespaces' CAs.
func (r *Reconciler) issuerRef() cmmeta.IssuerReference {
	if r.Issuer != nil {
		return *r.Issuer
	}
	return cmmeta.IssuerReference{Kind: cmv1.IssuerKind, Name: selfSigned, Group: cmv1.SchemeGroupVersion.Group}
}

func ownLabels(namespace string, n int) map[string]string {
	return map[string]string{labelManagedBy: managedBy, labelNamespace: namespace, labelGeneration: strconv.Itoa(n)}
}

// certificate is what a generation's Certificate must be.
func (r *Reconciler) certificate(namespace string, n int) *cmv1.Certificate {
	return &cmv1.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: Name(namespace, n), Labels: ownLabels(namespace, n)},
		Spec: cmv1.CertificateSpec{
			// The namespace may be too long for a common name, which has 64 characters at most.
			Subject:    &cmv1.X509Subject{Organizations: []string{"aegrail-engine"}, OrganizationalUnits: []string{namespace}},
			CommonName: "aegrail-engine root " + strconv.Itoa(n),
			IsCA:       true, Usages: []cmv1.KeyUsage{cmv1.UsageCertSign, cmv1.UsageCRLSign},
			Duration:    &metav1.Duration{Duration: rootLife},
			RenewBefore: &metav1.Duration{Duration: renewBefore},
			PrivateKey:  &cmv1.CertificatePrivateKey{Algorithm: cmv1.ECDSAKeyAlgorithm, Size: 256, RotationPolicy: cmv1.RotationPolicyNever},
			SecretName:  Name(namespace, n), SecretTemplate: &cmv1.CertificateSecretTemplate{Labels: ownLabels(namespace, n)},
			IssuerRef: r.issuerRef(),
		},
	}
}

// begin makes the next generation.
func (r *Reconciler) begin(ctx context.Context, ns *corev1.Namespace, n int) (*generation, error) {
	c := r.certificate(ns.Name, n)
	c.Annotations = map[string]string{AnnotationRotateRoot: ns.Annotations[AnnotationRotateRoot]}
	r.note(ns.Name, true)
	if err := r.Client.Create(ctx, c); err != nil {
		return nil, fmt.Errorf("making the certificate %s: %w", c.Name, err)
	}
	r.Events.Eventf(ns, nil, corev1.EventTypeNormal, "CARequested", "IssueCA", "generation %d of the namespace's certificate authority is being issued by %s/%s", n, c.Spec.IssuerRef.Kind, c.Spec.IssuerRef.Name)
	return &generation{n: n, cert: c}, nil
}

// keep puts a generation's Certificate and Issuer right. Who signs an older
// generation stays as it was.
func (r *Reconciler) keep(ctx context.Context, namespace string, g *generation) error {
	want := r.certificate(namespace, g.n)
	want.Spec.IssuerRef = g.cert.Spec.IssuerRef
	want.Spec.RevisionHistoryLimit = g.cert.Spec.RevisionHistoryLimit // cert-manager's business
	if !equality.Semantic.DeepEqual(g.cert.Spec, want.Spec) {
		g.cert.Spec = want.Spec
		if err := r.Client.Update(ctx, g.cert); err != nil {
			return fmt.Errorf("putting the certificate %s right: %w", want.Name, err)
		}
		r.Logger.Warn("a certificate was changed; put right", "certificate", want.Name)
	}
	return r.issuer(ctx, want.Name, want.Labels, cmv1.IssuerSpec{IssuerConfig: cmv1.IssuerConfig{CA: &cmv1.CAIssuer{SecretName: want.Name}}})
}

// issuer makes an Issuer what it must be.
func (r *Reconciler) issuer(ctx context.Context, name string, labels map[string]string, spec cmv1.IssuerSpec) error {
	have := &cmv1.Issuer{}
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: name}, have)
	switch {
	case apierrors.IsNotFound(err):
		have = &cmv1.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name, Labels: labels}, Spec: spec}
		err = r.Client.Create(ctx, have)
	case err == nil && !equality.Semantic.DeepEqual(have.Spec, spec):
		have.Spec = spec
		err = r.Client.Update(ctx, have)
		r.Logger.Warn("an issuer was changed; put right", "issuer", name)
	}
	if err != nil {
		return fmt.Errorf("making the issuer %s: %w", name, err)
	}
	return nil
}

// load looks at what was issued. What is wrong with it is in g.why; an error is
// that nobody knows, and then no bundle may be made without it.
func (r *Reconciler) load(ctx context.Context, g *generation) error {
	secret, err := readSecret(ctx, r.Live, r.Namespace, g.cert.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	var ca *certs.Authority
	if err == nil {
		ca, err = parseCA(secret, r.Now())
	}
	if err != nil {
		g.why = r.stateOf(g.cert, err)
		return nil
	}
	g.roots, g.until, g.key = ca.RootsPEM(), ca.NotAfter(), keyHash(ca.Certificate())
	return nil
}

// stateOf says in cert-manager's words why there is nothing yet.
func (r *Reconciler) stateOf(c *cmv1.Certificate, err error) error {
	if !apierrors.IsNotFound(err) {
		return err
	}
	issuing := cmapiutil.GetCertificateCondition(c, cmv1.CertificateConditionIssuing)
	if issuing != nil && issuing.Status == cmmeta.ConditionFalse && issuing.Reason == "Failed" {
		return fmt.Errorf("issuer %s/%s did not sign the CA: %s", c.Spec.IssuerRef.Kind, c.Spec.IssuerRef.Name, issuing.Message)
	}
	state := "cert-manager has not looked at it; is it running?"
	if ready := cmapiutil.GetCertificateCondition(c, cmv1.CertificateConditionReady); ready != nil {
		state = ready.Message
	}
	if r.Now().Sub(c.CreationTimestamp.Time) > time.Minute {
		return fmt.Errorf("the certificate %s is not issued: %s", c.Name, state)
	}
	return waiting{fmt.Errorf("the certificate %s is being issued: %s", c.Name, state)}
}

// Roots returns what the chains of a generation must lead to.
func Roots(ctx context.Context, live client.Reader, control, namespace string, generation int, now time.Time) ([]*x509.Certificate, error) {
	secret, err := readSecret(ctx, live, control, Name(namespace, generation))
	if err != nil {
		return nil, err
	}
	ca, err := parseCA(secret, now)
	if err != nil {
		return nil, err
	}
	return ca.Roots(), nil
}

func readSecret(ctx context.Context, live client.Reader, control, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	if err := live.Get(ctx, types.NamespacedName{Namespace: control, Name: name}, secret); err != nil {
		return nil, fmt.Errorf("reading the CA %s: %w", name, err)
	}
	return secret, nil
}

// parseCA takes a CA from its Secret and checks that it can be the root of pods'
// intermediates. The key is looked at and forgotten.
func parseCA(secret *corev1.Secret, now time.Time) (*certs.Authority, error) {
	key := secret.Data[corev1.TLSPrivateKeyKey]
	defer clear(key)
	roots := secret.Data[cmmeta.TLSCAKey]
	if len(roots) == 0 {
		roots = nil // then the root is at the end of the chain, or there is none
	}
	ca, err := certs.LoadWithRoots(secret.Data[corev1.TLSCertKey], key, roots, now)
	if err != nil {
		return nil, fmt.Errorf("the CA %s: %w", secret.Name, err)
	}
	if err := checkRoot(ca, secret.Data[corev1.TLSCertKey], now); err != nil {
		return nil, fmt.Errorf("the CA %s: %w", secret.Name, err)
	}
	return ca, nil
}

// checkRoot holds a CA to what package certs does not ask of one that signs
// leaves itself: there is a self-signed root, and room for a CA below.
func checkRoot(ca *certs.Authority, chainPEM []byte, now time.Time) error {
	anchors, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range ca.Roots() {
		if root.CheckSignatureFrom(root) != nil {
			return fmt.Errorf("its issuer names no self-signed root (%q is signed by %q); have it return the root in ca.crt", root.Subject, root.Issuer)
		}
		anchors.AddCert(root)
	}
	for _, c := range certs.Certificates(chainPEM) {
		between.AddCert(c)
	}
	paths, err := ca.Certificate().Verify(x509.VerifyOptions{Roots: anchors, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("what it signs would not verify for servers: %w", err)
	}
	err = errors.New("there is no way to its root")
	for _, path := range paths {
		if err = roomBelow(path); err == nil {
			return nil
		}
	}
	return err
}

// roomBelow says why no CA can be below the first of path (RFC 5280, 4.2.1.9).
func roomBelow(path []*x509.Certificate) error {
	for i, c := range path {
		limited := c.MaxPathLen > 0 || c.MaxPathLen == 0 && c.MaxPathLenZero
		if limited && c.MaxPathLen < i+1 {
			return fmt.Errorf("the path length %d of %q leaves no room for the pods' intermediates; it must be %d or more, or none", c.MaxPathLen, c.Subject, i+1)
		}
	}
	return nil
}

func keyHash(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:16])
}
