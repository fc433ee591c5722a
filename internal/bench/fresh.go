package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// newConnections is one small POST on each connection; the unit is the
// connection.
func newConnections(to place) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		v, err := l.connections(ctx, p, func(int64) place { return to })
		return []float64{v}, err
	}
}

// connections opens connections to one place after another, some beside each
// other, with a small POST on each, and returns the cost of one.
func (l *lab) connections(ctx context.Context, p *running, next func(i int64) place) (float64, error) {
	const beside = 16
	var opened atomic.Int64
	works := make([]work, beside)
	for i := range works {
		works[i] = func(stop *atomic.Bool, done *atomic.Int64) error {
			for !stop.Load() {
				if err := l.once(p, next(opened.Add(1)-1)); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		}
	}
	return l.steady(ctx, p, works)
}

// once opens a connection for one small POST.
func (l *lab) once(p *running, to place) error {
	c, err := l.dial(p, to, "http/1.1")
	if err != nil {
		return err
	}
	defer c.close()
	return c.exchange(l.request(to, "POST", "/r/1024", small), small, ignore)
}

// firstSight is a connection to each of many names that the proxy has never
// seen: it makes a certificate for each, and finds no connection to it in its
// pool and no session to resume. The unit is the name. A proxy whose handshake
// fails while it makes the certificate (HAProxy) is asked again, as a client
// would.
func firstSight(ctx context.Context, l *lab, p *running) ([]float64, error) {
	const beside, tries = 16, 3
	names := l.size.seen
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, beside)
	before, err := cpuTime(p.pid())
	if err != nil {
		return nil, err
	}
	for range beside {
		all.Go(func() {
			for i := next.Add(1) - 1; int(i) < names && ctx.Err() == nil; i = next.Add(1) - 1 {
				err := errors.New("not tried")
				for try := 0; err != nil && try < tries; try++ {
					err = l.once(p, seenPlace(int(i)))
				}
				if err != nil {
					failed <- fmt.Errorf("%s: %w", seenPlace(int(i)).host, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	after, err := cpuTime(p.pid())
	if err := errors.Join(<-failed, err, ctx.Err()); err != nil {
		return nil, p.failed(err)
	}
	return []float64{(after - before).Seconds() / float64(names)}, nil
}
