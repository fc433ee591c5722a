package metrics

import (
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// asked collects what others count.
type asked struct {
	c Config

	hits, misses, mints, size                         *prometheus.Desc
	pending, commits, failures, failing               *prometheus.Desc
	records, bytes, drop, sq                          *prometheus.Desc
	checkpoint, rotations, rotationFailures           *prometheus.Desc
	anchored, anchorFailures, sunk, lag, sinkFailures *prometheus.Desc
}

func newAsked(c Config) *asked {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	caused := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"cause"}, nil)
	}
	shipped := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"kind", "index"}, nil)
	}
	return &asked{
		c:        c,
		hits:     desc("aegrail_leaf_cache_hits_total", "Certificates that were in the cache."),
		misses:   desc("aegrail_leaf_cache_misses_total", "Certificates that were not."),
		mints:    desc("aegrail_leaf_cache_mints_total", "Certificates that were minted."),
		size:     desc("aegrail_leaf_cache_size", "Certificates in the cache."),
		pending:  desc("aegrail_audit_pending", "Callers that wait for a record to be committed."),
		commits:  desc("aegrail_audit_commit_seconds", "Time to commit a batch of records."),
		failures: caused("aegrail_audit_failures_total", "Batches of records that could not be committed, and files that were found lost."),
		failing:  caused("aegrail_audit_failing", "1 while the log takes no records for this cause."),
		records:  desc("aegrail_audit_records_total", "Records committed."),
		bytes:    desc("aegrail_audit_bytes_total", "Bytes of records committed."),
		drop:     desc("aegrail_audit_copy_dropped_total", "Batches that the copy on standard output missed."),
		sq:       desc("aegrail_audit_seq", "Number of the last record committed."),

		checkpoint:       desc("aegrail_audit_checkpoint_size", "Records that the newest checkpoint covers."),
		rotations:        desc("aegrail_audit_rotations_total", "Files that were begun because one was full."),
		rotationFailures: desc("aegrail_audit_rotation_failures_total", "Files that could not be begun."),

		anchored:       shipped("aegrail_audit_anchor_acknowledged_size", "Records that the newest checkpoint at the anchor covers."),
		anchorFailures: shipped("aegrail_audit_anchor_failures_total", "Attempts to bring a checkpoint to the anchor that failed."),
		sunk:           shipped("aegrail_audit_sink_acknowledged_seq", "Number of the last record that the sink acknowledged."),
		lag:            shipped("aegrail_audit_sink_lag_records", "Records committed that the sink has not acknowledged."),
		sinkFailures:   shipped("aegrail_audit_sink_failures_total", "Attempts to send records to the sink that failed."),
	}
}

// Describe implements prometheus.Collector.
func (a *asked) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(a, ch) }

// Collect implements prometheus.Collector.
func (a *asked) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, t, v)
	}
	if a.c.Leaves != nil {
		l := a.c.Leaves()
		send(a.hits, prometheus.CounterValue, float64(l.Hits))
		send(a.misses, prometheus.CounterValue, float64(l.Misses))
		send(a.mints, prometheus.CounterValue, float64(l.Mints))
		send(a.size, prometheus.GaugeValue, float64(l.Size))
	}
	s := a.c.Audit()
	send(a.pending, prometheus.GaugeValue, float64(s.Pending))
	for cause := audit.NoCause + 1; cause < audit.Causes; cause++ {
		failing := 0.
		if s.Failing == cause {
			failing = 1
		}
		ch <- prometheus.MustNewConstMetric(a.failures, prometheus.CounterValue, float64(s.Failures[cause]), cause.String())
		ch <- prometheus.MustNewConstMetric(a.failing, prometheus.GaugeValue, failing, cause.String())
	}
	send(a.checkpoint, prometheus.GaugeValue, float64(s.Checkpoint))
	send(a.rotations, prometheus.CounterValue, float64(s.Rotations))
	send(a.rotationFailures, prometheus.CounterValue, float64(s.RotationFailures))
	send(a.records, prometheus.CounterValue, float64(s.Records))
	send(a.bytes, prometheus.CounterValue, float64(s.Bytes))
	send(a.drop, prometheus.CounterValue, float64(s.Dropped))
	send(a.sq, prometheus.GaugeValue, float64(s.Seq))
	a.collectShipped(ch)
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, bound := range s.CommitBuckets() {
		below += uint64(s.CommitCounts[i]) //nolint:gosec // a count
		buckets[bound] = below
	}
	ch <- prometheus.MustNewConstHistogram(a.commits, uint64(s.Commits), s.CommitSeconds, buckets) //nolint:gosec // a count
}

// collectShipped collects where anchors and sinks are.
func (a *asked) collectShipped(ch chan<- prometheus.Metric) {
	each := func(ask func() []ShipStats, fn func(s ShipStats, send func(*prometheus.Desc, prometheus.ValueType, uint64))) {
		if ask == nil {
			return
		}
		for i, s := range ask() {
			kind := s.Kind
			if !slices.Contains(shipKinds[:], kind) {
				kind = "other"
			}
			index := strconv.Itoa(i + 1)
			fn(s, func(d *prometheus.Desc, t prometheus.ValueType, v uint64) {
				ch <- prometheus.MustNewConstMetric(d, t, float64(v), kind, index)
			})
		}
	}
	each(a.c.Anchors, func(s ShipStats, send func(*prometheus.Desc, prometheus.ValueType, uint64)) {
		send(a.anchored, prometheus.GaugeValue, s.Acknowledged)
		send(a.anchorFailures, prometheus.CounterValue, s.Failures)
	})
	each(a.c.Sinks, func(s ShipStats, send func(*prometheus.Desc, prometheus.ValueType, uint64)) {
		send(a.sunk, prometheus.GaugeValue, s.Acknowledged)
		send(a.lag, prometheus.GaugeValue, s.Lag)
		send(a.sinkFailures, prometheus.CounterValue, s.Failures)
	})
}
