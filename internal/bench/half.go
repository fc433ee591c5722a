package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// halfLoadConns is how many connections carry the load.
const halfLoadConns = 64

// halfLoad is what the proxy adds to an exchange at half of what it gets through
// in this harness: how many exchanges it ends with a closed loop is measured first,
// then half as many are begun, at random times (a Poisson process on each of 64
// connections), through the proxy and without it. An exchange that has to wait
// for the one before it on its connection counts from when it was due. Returned
// are median and 99th percentile, less those without the proxy, in seconds.
func halfLoad(ctx context.Context, l *lab, p *running) ([]float64, error) {
	perExchange, err := l.wallTime(ctx, p)
	if err != nil {
		return nil, err
	}
	apart := time.Duration(2 * perExchange * halfLoadConns * float64(time.Second)) // on one connection
	through, err := l.paced(ctx, p, apart)
	if err != nil {
		return nil, err
	}
	without, err := l.paced(ctx, &running{peer: direct}, apart)
	if err != nil {
		return nil, err
	}
	return []float64{quantile(through, .5) - quantile(without, .5), quantile(through, .99) - quantile(without, .99)}, nil
}

// wallTime is seconds for each exchange of a closed loop.
func (l *lab) wallTime(ctx context.Context, p *running) (float64, error) {
	n, err := l.eachConn(p, func(c *client, request []byte, began time.Time, note func(float64)) error {
		for ctx.Err() == nil {
			if err := c.exchange(request, small, ignore); err != nil {
				return err
			}
			if note(0); time.Since(began) >= l.size.window/2 {
				break
			}
		}
		return ctx.Err()
	})
	return (l.size.window / 2).Seconds() / float64(max(1, len(n))), err
}

// paced is how long each exchange took that was begun apart from the last, on
// average, on each connection.
func (l *lab) paced(ctx context.Context, p *running, apart time.Duration) ([]float64, error) {
	return l.eachConn(p, func(c *client, request []byte, began time.Time, note func(float64)) error {
		random := rand.New(rand.NewPCG(rand.Uint64(), 0))
		due := began.Add(time.Duration(random.Float64() * float64(apart)))
		for due.Sub(began) < l.size.window && ctx.Err() == nil {
			time.Sleep(time.Until(due))
			if err := c.exchange(request, small, ignore); err != nil {
				return err
			}
			note(time.Since(due).Seconds())
			due = due.Add(time.Duration(random.ExpFloat64() * float64(apart)))
		}
		return ctx.Err()
	})
}

// eachConn runs do on connections beside each other, once all are there, and
// returns what they noted.
func (l *lab) eachConn(p *running, do func(c *client, request []byte, began time.Time, note func(float64)) error) ([]float64, error) {
	request := l.request(ordinary, "POST", fmt.Sprintf("/r/%d", small), small)
	clients := make([]*client, halfLoadConns)
	for i := range clients {
		var err error
		if clients[i], err = l.dial(p, ordinary, "http/1.1"); err != nil {
			return nil, p.failed(err)
		}
		defer clients[i].close()
	}
	began := time.Now()
	var mu sync.Mutex
	var noted []float64
	var failed error
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			var own []float64
			err := do(c, request, began, func(v float64) { own = append(own, v) })
			mu.Lock()
			defer mu.Unlock()
			noted, failed = append(noted, own...), errors.Join(failed, err)
		})
	}
	all.Wait()
	if failed == nil && len(noted) == 0 {
		failed = errors.New("nothing got done")
	}
	return noted, p.failed(failed)
}
