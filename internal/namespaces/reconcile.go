package namespaces

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// Reasons of the condition, in which people and alerts look for what to do.
const (
	reasonReady       = "Ready"
	reasonIssuing     = "Issuing"
	reasonMissing     = "CertManagerMissing"
	reasonNotIssued   = "NotIssued"
	reasonFailed      = "Failed"
	reasonLeaving     = "Leaving"
	reasonKeyReplaced = "KeyReplaced"
)

const missing = "cert-manager is not installed: the API server does not know the kinds of cert-manager.io; " +
	"install cert-manager 1.15 or later, or set cert-manager.enabled=true in the chart's values; this goes on by itself then"

// Reconcile makes one namespace what its labels say.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	ns := &corev1.Namespace{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: req.Name}, ns)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("reading the namespace %s: %w", req.Name, err)
	}
	if err != nil {
		ns.Name, ns.UID = req.Name, "" // it is gone
	}
	if req.Name == r.Namespace {
		return reconcile.Result{}, nil // nothing in it can be injected: webhooks that answer for a pod cannot wait for themselves
	}
	if err != nil || ns.DeletionTimestamp != nil || !Wanted(ns) {
		return r.remove(ctx, ns, err != nil)
	}
	return r.provide(ctx, ns)
}

// Wanted reports that a namespace is to have a CA.
func Wanted(ns *corev1.Namespace) bool {
	return ns.Labels[inject.LabelInject] == inject.InjectNamespace || ns.Labels[LabelCA] == "enabled"
}

// provide gives a namespace what it is to have, and says in its condition how far that is.
func (r *Reconciler) provide(ctx context.Context, ns *corev1.Namespace) (reconcile.Result, error) {
	list, err := r.ensure(ctx, ns)
	if meta.IsNoMatchError(err) {
		return reconcile.Result{RequeueAfter: pollMissing}, r.condition(ctx, ns, corev1.ConditionFalse, reasonMissing, missing)
	}
	if err != nil {
		return reconcile.Result{}, errors.Join(err, r.condition(ctx, ns, corev1.ConditionFalse, reasonFailed, err.Error()))
	}
	var ready []*generation
	for _, g := range list {
		if g.roots != nil && !g.lost() {
			ready = append(ready, g)
		}
	}
	newest := list[len(list)-1]
	if len(ready) == 0 {
		return r.unready(ctx, ns, newest)
	}
	var who readers
	if len(ready) > 1 {
		if who, err = r.readers(ctx, ns.Name); err != nil {
			return reconcile.Result{}, err
		}
	}
	signing := trusted(ready, who.since(r.Now()))
	want, err := r.bundle(ns.Name, ready, signing)
	if err == nil {
		err = r.publish(ctx, ns, want)
	}
	if err == nil {
		err = r.announce(ctx, ready)
	}
	if err != nil {
		return reconcile.Result{}, errors.Join(err, r.condition(ctx, ns, corev1.ConditionFalse, reasonFailed, err.Error()))
	}
	used := map[int]int{signing.n: 1}
	for _, began := range who {
		used[trusted(ready, began).n]++
	}
	retired, err := r.retire(ctx, ns.Name, list, ready[len(ready)-1].n, used)
	if err != nil {
		return reconcile.Result{}, err
	}
	more := ""
	switch {
	case signing == ready[len(ready)-1]:
	case len(who) == 0:
		retired = min(retired, settling) // the newest signs by then, and nothing else tells
	default:
		more = fmt.Sprintf("; gateways sign with generation %d while pods with the bundle are there that began before generation %d was in it", signing.n, ready[len(ready)-1].n)
	}
	return r.settled(ctx, ns, ready[len(ready)-1], newest, retired, more)
}

// settled says that a namespace is ready, and more, and when it is to be looked at again.
func (r *Reconciler) settled(ctx context.Context, ns *corev1.Namespace, newest, last *generation, again time.Duration, more string) (reconcile.Result, error) {
	message := fmt.Sprintf("generation %d, until %s", newest.n, newest.until.UTC().Format(time.RFC3339)) + more
	if last.why != nil {
		message += fmt.Sprintf("; generation %d: %v", last.n, last.why)
		again = min(again, pollIssuing)
		if !errors.As(last.why, new(waiting)) {
			again = max(again, pollMissing)
		}
	}
	return reconcile.Result{RequeueAfter: again}, r.condition(ctx, ns, corev1.ConditionTrue, reasonReady, message)
}

// unready says why a namespace has nothing yet.
func (r *Reconciler) unready(ctx context.Context, ns *corev1.Namespace, g *generation) (reconcile.Result, error) {
	if errors.As(g.why, new(waiting)) {
		return reconcile.Result{RequeueAfter: pollIssuing}, r.condition(ctx, ns, corev1.ConditionFalse, reasonIssuing, g.why.Error())
	}
	return reconcile.Result{RequeueAfter: pollMissing}, r.condition(ctx, ns, corev1.ConditionFalse, reasonNotIssued, fmt.Sprint(g.why))
}

// ensure makes the generations of a namespace, the next one if it is due, and
// returns them all, the oldest first.
func (r *Reconciler) ensure(ctx context.Context, ns *corev1.Namespace) ([]*generation, error) {
	list, err := r.generations(ctx, ns.Name)
	if err != nil {
		return nil, err
	}
	if r.Issuer == nil {
		spec := cmv1.IssuerSpec{IssuerConfig: cmv1.IssuerConfig{SelfSigned: &cmv1.SelfSignedIssuer{}}}
		if err := r.issuer(ctx, selfSigned, map[string]string{labelManagedBy: managedBy}, spec); err != nil {
			return nil, err
		}
	}
	for _, g := range list {
		if err := r.load(ctx, g); err != nil {
			return nil, err
		}
		if g.lost() {
			r.Logger.Error("the key of a namespace's CA was replaced; pods that started before must be restarted", "namespace", ns.Name, "generation", g.n)
		}
	}
	next := r.due(ns, list)
	if len(list) == 0 {
		if next, err = r.first(ctx, ns.Name); err != nil {
			return nil, err
		}
	}
	if next > 0 {
		g, err := r.begin(ctx, ns, next)
		if err != nil {
			return nil, err
		}
		if err := r.load(ctx, g); err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	for _, g := range list {
		if err := r.keep(ctx, ns.Name, g); err != nil {
			return nil, err
		}
		if err := r.remember(ctx, g); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// due returns the number of the generation that is to follow, 0 for none. One
// that was never ready is waited for, so that mistakes do not pile up.
func (r *Reconciler) due(ns *corev1.Namespace, list []*generation) int {
	if len(list) == 0 {
		return 0
	}
	last := list[len(list)-1]
	asked := ns.Annotations[AnnotationRotateRoot]
	switch {
	case last.lost():
		r.Events.Eventf(ns, nil, corev1.EventTypeWarning, reasonKeyReplaced, "IssueCA", "the key of generation %d was lost or replaced; restart the pods that began with it: what their engines are given now they do not trust", last.n)
		return last.n + 1
	case last.roots == nil:
		return 0
	case asked != "" && asked != last.cert.Annotations[AnnotationRotateRoot], last.cert.Spec.IssuerRef != r.issuerRef():
		return last.n + 1
	}
	return 0
}

// remember notes a generation's key when it is first seen.
func (r *Reconciler) remember(ctx context.Context, g *generation) error {
	if g.key == "" || g.cert.Annotations[annotationKey] != "" {
		return nil
	}
	g.cert.Annotations = with(g.cert.Annotations, map[string]string{annotationKey: g.key})
	if err := r.Client.Update(ctx, g.cert); err != nil {
		return fmt.Errorf("noting the key of %s: %w", g.cert.Name, err)
	}
	return nil
}

// condition sets the namespace's condition, and makes an Event of a change.
func (r *Reconciler) condition(ctx context.Context, ns *corev1.Namespace, status corev1.ConditionStatus, reason, message string) error {
	reported := r.report(ctx, ns, status)
	next := ns.DeepCopy()
	at := conditionAt(next)
	want := corev1.NamespaceCondition{Type: inject.ConditionReady, Status: status, Reason: reason, Message: message, LastTransitionTime: r.transition()}
	if at >= 0 {
		have := next.Status.Conditions[at]
		if have.Status == status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		if have == want {
			return reported
		}
		next.Status.Conditions[at] = want
	} else {
		next.Status.Conditions = append(next.Status.Conditions, want)
	}
	if at < 0 || ns.Status.Conditions[at].Reason != reason {
		kind := corev1.EventTypeWarning
		if status == corev1.ConditionTrue || reason == reasonIssuing || reason == reasonLeaving {
			kind = corev1.EventTypeNormal
		}
		r.Events.Eventf(ns, nil, kind, "CA"+reason, "IssueCA", "%s", message)
		r.Logger.Info("the CA of a namespace", "namespace", ns.Name, "ready", status, "reason", reason, "message", message)
	}
	if err := r.Client.Status().Patch(ctx, next, client.StrategicMergeFrom(ns)); err != nil && !apierrors.IsNotFound(err) {
		return errors.Join(reported, fmt.Errorf("setting the condition of %s: %w", ns.Name, err))
	}
	return reported
}

// conditionAt is the place of our condition among a namespace's, -1 if it has none.
func conditionAt(ns *corev1.Namespace) int {
	return slices.IndexFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == inject.ConditionReady })
}

// transition is now, as the API server keeps it.
func (r *Reconciler) transition() metav1.Time { return metav1.NewTime(r.Now().Truncate(time.Second)) }
