package main

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/arpitcoder/aegrail-engine/internal/admission"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// counters are control's metrics. Labels are words of ours: no namespace, no pod.
type counters struct {
	registry   *prometheus.Registry
	admissions *prometheus.CounterVec
	admitting  *prometheus.HistogramVec
	calls      *prometheus.CounterVec
	loads      *prometheus.CounterVec
	policy     prometheus.Gauge
	unheld     prometheus.Gauge
	unready    prometheus.Gauge
	released   prometheus.Gauge

	mu     sync.Mutex
	states map[string]namespaces.State // :: namespaces that have a CA or want one; guarded by mu
}

func newCounters() *counters {
	c := &counters{
		registry: prometheus.NewRegistry(),
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aegrail_control_admissions_total", Help: "Answers to the API server, by path and outcome (allowed, injected, refused, failed).",
		}, []string{"path", "outcome"}),
		admitting: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "aegrail_control_admission_seconds", Help: "Time from a question of the API server to its answer, by path.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 4},
		}, []string{"path"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aegrail_control_engine_calls_total", Help: "What control was asked over the link, by what it was about (engine: a policy or an authority; caller: whose a connection to a gateway is) and outcome: signed, again or known, unavailable, or why refused.",
		}, []string{"about", "outcome"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aegrail_control_loads_total", Help: "Changes of the policy and of control's certificate, by what and outcome (loaded, rejected).",
		}, []string{"what", "outcome"}),
		policy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "aegrail_control_policy_stale", Help: "1 while the policy file does not load: the last good one is in force, or none since control started.",
		}),
		unheld: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "aegrail_control_unheld_pods", Help: "Pods that run without an engine in a namespace that has a CA, as the leader counts them.",
		}),
		unready: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "aegrail_control_namespaces_unready", Help: "Namespaces that want a CA and have none, as the leader sees it.",
		}),
		released: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "aegrail_control_namespaces_released", Help: "Namespaces that lost the label by which living pods of them were injected, as the leader sees it.",
		}),
		states: map[string]namespaces.State{},
	}
	c.registry.MustRegister(c.admissions, c.admitting, c.calls, c.loads, c.policy, c.unheld, c.unready, c.released,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return c
}

func (c *counters) handler() http.Handler {
	return promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{})
}

func (c *counters) admitted(o admission.Observation) {
	c.admissions.WithLabelValues(o.Path, string(o.Outcome)).Inc()
	c.admitting.WithLabelValues(o.Path).Observe(o.Duration.Seconds())
}

func (c *counters) called(about podca.About, outcome string) {
	c.calls.WithLabelValues(string(about), outcome).Inc()
}

// namespace notes how a namespace is.
func (c *counters) namespace(name string, s namespaces.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[name] = s
	if s == namespaces.Gone {
		delete(c.states, name)
	}
	unready, released := 0, 0
	for _, s := range c.states {
		switch s {
		case namespaces.NotReady:
			unready++
		case namespaces.Released:
			released++
		case namespaces.Ready, namespaces.Gone:
		}
	}
	c.unready.Set(float64(unready))
	c.released.Set(float64(released))
}

// loaded counts one load that brought news.
func (c *counters) loaded(what string, err error) {
	outcome, stale := "loaded", 0.0
	if err != nil {
		outcome, stale = "rejected", 1
	}
	c.loads.WithLabelValues(what, outcome).Inc()
	if what == itemPolicy {
		c.policy.Set(stale)
	}
}
