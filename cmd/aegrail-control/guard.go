package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const (
	// guardEvery is how often pods are counted.
	guardEvery = time.Minute

	// guardPage is how many pods are read at once.
	guardPage = 500
)

// guard counts the pods that run without an engine in namespaces that inject
// theirs: made before the label, or while somebody had taken the webhooks or
// the label away. It runs on the leader.
type guard struct {
	live   client.Reader
	count  func(float64)
	logger *slog.Logger

	said map[client.ObjectKey]bool // pods that the log names already
}

// Start counts until ctx ends.
func (g *guard) Start(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		if n, err := g.look(ctx); err == nil {
			g.count(float64(n))
		} else if ctx.Err() == nil {
			g.logger.Error("counting pods without an engine", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look returns how many pods there are, and names those that are new in the log.
func (g *guard) look(ctx context.Context) (int, error) {
	var list corev1.NamespaceList
	if err := g.live.List(ctx, &list, client.HasLabels{inject.LabelInject}); err != nil {
		return 0, fmt.Errorf("listing namespaces: %w", err)
	}
	found := map[client.ObjectKey]bool{}
	for i := range list.Items {
		if err := g.namespace(ctx, list.Items[i].Name, found); err != nil {
			return 0, err
		}
	}
	for pod := range found {
		if !g.said[pod] {
			g.logger.Warn("a pod runs without an engine in a namespace that injects its pods: nothing holds it; delete it, and it is made anew and injected",
				"namespace", pod.Namespace, "pod", pod.Name)
		}
	}
	g.said = found
	return len(found), nil
}

func (g *guard) namespace(ctx context.Context, name string, found map[client.ObjectKey]bool) error {
	next := ""
	for {
		var pods corev1.PodList
		if err := g.live.List(ctx, &pods, client.InNamespace(name), client.Limit(guardPage), client.Continue(next)); err != nil {
			return fmt.Errorf("listing the pods of %s: %w", name, err)
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			if !inject.Marked(pod) && !inject.Over(pod) {
				found[client.ObjectKeyFromObject(pod)] = true
			}
		}
		if next = pods.Continue; next == "" {
			return nil
		}
	}
}
