// Package namespaces gives each labelled namespace of agents a certificate
// authority, and takes it back when the last pod that needs it is gone.
//
// A namespace has one if it is labelled aegrail.io/inject=enabled, which injects
// its pods, or aegrail.io/ca=enabled, where pods ask for injection themselves.
//
// # What is made
//
// In control's own namespace, for the namespace NS and generation n:
//
//	Certificate  aegrail-ca-NS-n   a CA on P-256, five years, renewed a year before with the same key
//	Secret       aegrail-ca-NS-n   what cert-manager makes of it; the key is nowhere else
//	Issuer       aegrail-ca-NS-n   signs the pods' intermediates with it
//	Issuer       aegrail-roots     self-signed, for all of them, unless another issuer is named
//
// In NS itself, with nothing secret in it:
//
//	ConfigMap    aegrail-ca-bundle   public roots and the roots of NS, as PEM and PKCS #12, and what engines verify control with
//
// The namespace's condition aegrail.io/CAReady and Events on it say how it is.
// A change by somebody else is put right.
//
// # Generations
//
// Node, Go and Java read what they trust once, when they start. So a root is
// renewed with its key, and a change of the key is an operation of its own: an
// annotation on the namespace,
//
//	aegrail.io/rotate-root: "<anything that was not there before>"
//
// has the next generation issued and added to the bundle, whose annotation
// aegrail.io/ca-generation names the newest in it. Pods that are injected from
// then on carry its number, and their engines' intermediates come from it.
// Those from before go on with theirs. A generation is removed when no pod
// carries its number any more.
//
// A gateway's agents are not injected and carry no number. They are the pods that
// have the bundle as a volume or a variable, and what they trust is told by when
// they were made: the generations that were in the bundle a minute before. What
// is newest of that for each is kept, and gateways sign with the oldest of these,
// which the bundle's annotation aegrail.io/gateway-ca-generation names. As they
// have an authority for a day, a generation that one of them has yet is kept
// too. Who copies the bundle is not seen.
//
// Another issuer begins a generation, and so does
// a key that was lost or replaced: then the pods before it have to be restarted.
//
// # A label that is taken off
//
// The CA stays for the pods that were injected before. As long as one of them
// lives that had not asked for injection itself, the namespace is reported as
// released, in an Event too: whoever took the label off has pods start there
// that nothing holds.
//
// # What an issuer returns is checked
//
// Whatever kind it is, what it signs must be a CA that may sign, with the key
// that is in the Secret, room in its path lengths for the pods' intermediates,
// and a self-signed root, without which OpenSSL verifies nothing. Else the
// condition says what is missing and nothing is published.
//
// # Rights
//
// What the API server must allow, and for what:
//
//	namespaces                    get list watch    cluster   which are labelled
//	namespaces/status             patch             cluster   the condition
//	pods                          list watch        cluster   those labelled aegrail.io/injected, and while there are two generations or the last is to go
//	                                                          those that have the bundle: which generations are in use
//	configmaps                    create            cluster   the bundle; RBAC cannot limit a create to a name
//	configmaps aegrail-ca-bundle  get list watch update delete   cluster   the same; the watch is limited to the name
//	events (events.k8s.io)        create patch      cluster   on namespaces
//	issuers, certificates (cert-manager.io)   get list create update delete   control's namespace
//	certificaterequests (cert-manager.io)     list                            control's namespace   by which generation gateways' authorities are signed
//	secrets                       get list delete   control's namespace   is the CA that was issued one; cert-manager leaves Secrets behind, which are found by label
//
// cert-manager's objects are read live and not watched, so that control starts
// and says what is missing where its kinds are not installed.
package namespaces

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Labels and annotations of namespaces and of what is made for them. Those that
// injection reads too are in package inject.
const (
	// LabelCA with the value "enabled" gives a namespace a CA without injecting
	// its pods: they ask for it themselves.
	LabelCA = "aegrail.io/ca"

	// AnnotationRotateRoot asks for the next generation when its value changes.
	AnnotationRotateRoot = "aegrail.io/rotate-root"

	labelNamespace  = "aegrail.io/namespace"
	labelGeneration = "aegrail.io/ca-generation"
	labelManagedBy  = "app.kubernetes.io/managed-by"
	managedBy       = "aegrail-control"

	// annotationKey is the hash of a generation's public key, from when it was
	// first seen.
	annotationKey = "aegrail.io/ca-key"
)

const (
	namePrefix = "aegrail-ca-"
	selfSigned = "aegrail-roots"

	rootLife    = 5 * 365 * 24 * time.Hour
	renewBefore = 365 * 24 * time.Hour
)

// When a namespace is looked at again without an event.
const (
	resync      = 5 * time.Minute  // what is not watched: issuers, certificates, files
	pollIssuing = time.Second      // cert-manager takes a fraction of one
	pollMissing = 15 * time.Second // for cert-manager to be installed
)

// RetireAfter is how long a generation is kept after it was first seen that no
// pod uses it: one may be on its way through admission.
const RetireAfter = time.Minute

// Name is the name of a generation's Certificate, Secret and Issuer.
func Name(namespace string, generation int) string {
	return namePrefix + namespace + "-" + strconv.Itoa(generation)
}

// Options are what a Reconciler works with. All are required but Issuer, Report
// and Now.
type Options struct {
	// Namespace is control's own.
	Namespace string

	// Client writes, and reads namespaces, injected pods and bundles from a cache.
	Client client.Client

	// Live reads control's own namespace from the API server.
	Live client.Reader

	// Issuer signs the namespaces' CAs. Nil: they are self-signed roots.
	Issuer *cmmeta.IssuerReference

	// PublicRoots returns the roots that a client trusts anyway, as PEM.
	PublicRoots func() ([]byte, error)

	// ControlCA returns what engines verify control with, as PEM.
	ControlCA func() ([]byte, error)

	Events events.EventRecorder
	Logger *slog.Logger

	// Report is told of each namespace that has or wants a CA whether it is
	// ready, and of one that no longer does that it is gone.
	Report func(namespace string, s State)

	Now func() time.Time // nil: time.Now
}

// State of a namespace's CA.
type State string

// States.
const (
	Ready    State = "ready"
	NotReady State = "not_ready"
	Gone     State = "gone"

	// Released is ready or not, and without the label by which living pods of it
	// were injected: what starts there runs without an engine.
	Released State = "released"
)

// Reconciler makes namespaces what their labels say. One replica at a time runs it.
type Reconciler struct {
	Options

	mu   sync.Mutex
	idle map[string]time.Time // :: object's name → since when nobody uses it; guarded by mu
	made map[string]bool      // :: namespace → something was made for it; guarded by mu
	free map[string]bool      // :: namespaces that were said to be released; guarded by mu
}

// New refuses options with which a namespace would be left in the dark.
func New(o Options) (*Reconciler, error) {
	switch {
	case o.Namespace == "":
		return nil, errors.New("namespaces: which namespace is control's own must be given")
	case o.Client == nil || o.Live == nil:
		return nil, errors.New("namespaces: a client and a reader without a cache must be given")
	case o.PublicRoots == nil || o.ControlCA == nil:
		return nil, errors.New("namespaces: where the public roots and control's CA are read must be given")
	case o.Events == nil || o.Logger == nil:
		return nil, errors.New("namespaces: an event recorder and a logger must be given")
	}
	if o.Report == nil {
		o.Report = func(string, State) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Reconciler{Options: o, idle: map[string]time.Time{}, made: map[string]bool{}, free: map[string]bool{}}, nil
}

// unused notes that nobody uses something, and reports whether that is so for
// long enough.
func (r *Reconciler) unused(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	since, known := r.idle[what]
	if !known {
		r.idle[what] = r.Now()
		return false
	}
	return r.Now().Sub(since) >= RetireAfter
}

// used notes that something is used, or gone.
func (r *Reconciler) used(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.idle, what)
}

// note notes that something was made for a namespace, or that all of it is gone.
func (r *Reconciler) note(namespace string, made bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if made {
		r.made[namespace] = true
	} else {
		delete(r.made, namespace)
	}
}

// noted reports that something was made for a namespace, as far as this process knows.
func (r *Reconciler) noted(namespace string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made[namespace]
}

// ParseIssuer reads KIND/NAME, where KIND is Issuer, ClusterIssuer, or a kind of
// another group as KIND.GROUP. "" is none.
func ParseIssuer(text string) (*cmmeta.IssuerReference, error) {
	if text == "" {
		return nil, nil
	}
	kind, name, ok := strings.Cut(text, "/")
	kind, group, foreign := strings.Cut(kind, ".")
	if !ok || kind == "" || name == "" || strings.Contains(name, "/") || foreign && group == "" {
		return nil, errors.New("an issuer is KIND/NAME, like ClusterIssuer/corporate, or KIND.GROUP/NAME for one of another group; got " + strconv.Quote(text))
	}
	if !foreign {
		group = "cert-manager.io"
	}
	return &cmmeta.IssuerReference{Kind: kind, Name: name, Group: group}, nil
}
