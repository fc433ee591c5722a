package podca

import (
	"context"
	"errors"
	"fmt"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const (
	// sweepEvery is how often Run sweeps.
	sweepEvery = 5 * time.Minute

	// sweepAfter is how long a request is kept for people to look at, and how
	// long a call that made it may still be waiting for it.
	sweepAfter = 10 * time.Minute
)

// Run sweeps until ctx ends. One replica is enough.
func (s *Signer) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if n, err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Recorder.logger.Error("deleting old certificate requests", "err", err)
		} else if n > 0 {
			s.Recorder.logger.Info("deleted old certificate requests", "count", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep deletes the certificate requests of pods that are gone or have ended,
// and those that a newer one of the same pod has replaced. A pod is in another
// namespace, so that Kubernetes' garbage collector cannot do it. It returns how
// many it deleted.
func (s *Signer) Sweep(ctx context.Context) (int, error) {
	var list cmv1.CertificateRequestList
	err := s.Live.List(ctx, &list, client.InNamespace(s.Namespace), client.MatchingLabels{labelManagedBy: managedBy}, client.HasLabels{labelPodUID})
	if meta.IsNoMatchError(err) {
		return 0, nil // without cert-manager there is nothing to delete
	}
	if err != nil {
		return 0, fmt.Errorf("listing certificate requests: %w", err)
	}
	newest := map[string]int{} // :: pod's UID → the highest number
	for i := range list.Items {
		uid := list.Items[i].Labels[labelPodUID]
		newest[uid] = max(newest[uid], number(list.Items[i].Name))
	}
	deleted, errs := 0, []error(nil)
	done := map[string]bool{} // :: pod's UID → it is gone or has ended
	for i := range list.Items {
		r := &list.Items[i]
		if s.Now().Sub(r.CreationTimestamp.Time) < sweepAfter {
			continue
		}
		uid := r.Labels[labelPodUID]
		if _, known := done[uid]; !known {
			if done[uid], err = s.ended(ctx, r); err != nil {
				return deleted, errors.Join(append(errs, err)...)
			}
		}
		if !done[uid] && number(r.Name) == newest[uid] {
			continue
		}
		if err := client.IgnoreNotFound(s.Client.Delete(ctx, r, client.Preconditions{UID: &r.UID})); err != nil {
			errs = append(errs, fmt.Errorf("deleting the certificate request %s: %w", r.Name, err))
			continue
		}
		deleted++
	}
	return deleted, errors.Join(errs...)
}

// ended reports that the pod of a request is gone or has ended.
func (s *Signer) ended(ctx context.Context, r *cmv1.CertificateRequest) (bool, error) {
	pod := &corev1.Pod{}
	err := s.Live.Get(ctx, types.NamespacedName{Namespace: r.Labels[labelNamespace], Name: r.Annotations[annotationPod]}, pod)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("reading the pod of the certificate request %s: %w", r.Name, err)
	}
	return string(pod.UID) != r.Labels[labelPodUID] || inject.Over(pod), nil
}
