package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of bodies.
const (
	small  = 1 << 10
	medium = 64 << 10
	large  = 16 << 20
)

// work is done by one goroutine of the load until stop; it adds to done what it
// got through.
type work func(stop *atomic.Bool, done *atomic.Int64) error

// steady runs all of works beside each other and returns the CPU seconds that p
// spends on one unit of what they get done, in the middle of the run.
func (l *lab) steady(ctx context.Context, p *running, works []work) (float64, error) {
	var stop atomic.Bool
	var done atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, len(works))
	for _, w := range works {
		all.Go(func() {
			if err := w(&stop, &done); err != nil {
				failed <- err
			}
		})
	}
	cpu, units, err := l.window(ctx, p, len(works), &done, failed)
	stop.Store(true)
	all.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
		break // the others say the same
	}
	if err == nil && units == 0 {
		err = errors.New("nothing got done")
	}
	if err != nil {
		return 0, p.failed(err)
	}
	return cpu.Seconds() / float64(units), nil
}

// warmConns is for how many connections beside each other the time to run warm
// is meant: each has an upstream connection to open.
const warmConns = 128

// window lets the load run warm, then measures for a while.
func (l *lab) window(ctx context.Context, p *running, works int, done *atomic.Int64, failed <-chan error) (time.Duration, int64, error) {
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(l.size.warm * time.Duration(1+works/warmConns)); err != nil {
		return 0, 0, err
	}
	asked, err := callsOf(p.pid())
	if err != nil {
		return 0, 0, err
	}
	before, err := cpuTime(p.pid())
	n := done.Load()
	if err != nil {
		return 0, 0, err
	}
	if err := wait(l.size.window); err != nil {
		return 0, 0, err
	}
	after, err := cpuTime(p.pid())
	units := done.Load() - n
	if l.calls && err == nil && units > 0 {
		var now calls
		now, err = callsOf(p.pid())
		fmt.Fprintf(l.progress, "  %s: %s\n", p.name, now.perUnit(asked, units))
	}
	return after - before, units, err
}

// keepAlive is POSTs with size bytes each way over conns connections; the unit
// is the exchange.
func keepAlive(conns int, size int64) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		request := l.request(ordinary, "POST", fmt.Sprintf("/r/%d", size), size)
		var works []work
		for range conns {
			c, err := l.dial(p, ordinary, "http/1.1")
			if err != nil {
				return nil, p.failed(err)
			}
			defer c.close()
			works = append(works, func(stop *atomic.Bool, done *atomic.Int64) error {
				for !stop.Load() {
					if err := c.exchange(request, size, ignore); err != nil {
						return err
					}
					done.Add(1)
				}
				return nil
			})
		}
		v, err := l.steady(ctx, p, works)
		return []float64{v}, err
	}
}

// bulk is large bodies in one direction; the unit is the byte.
func bulk(to place, up bool) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		const conns = 4
		request := l.request(to, "GET", fmt.Sprintf("/r/%d", large), 0)
		if up {
			request = l.request(to, "PUT", "/r/2", large)
		}
		var works []work
		for range conns {
			c, err := l.dial(p, to, "http/1.1")
			if err != nil {
				return nil, p.failed(err)
			}
			defer c.close()
			works = append(works, func(stop *atomic.Bool, done *atomic.Int64) error {
				progress := func(n int) { done.Add(int64(n)) }
				for !stop.Load() {
					var err error
					if up {
						err = c.upload(request, large, progress)
					} else {
						err = c.exchange(request, large, progress)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		v, err := l.steady(ctx, p, works)
		return []float64{v}, err
	}
}
