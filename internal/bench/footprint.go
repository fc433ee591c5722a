package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// idle is resident memory for each of many intercepted connections that have
// carried one request and wait. p is a fresh process that has seen some
// connections come and go, so that what it needs once is not counted.
func idle(ctx context.Context, l *lab, p *running) ([]float64, error) {
	request := l.request(ordinary, "POST", "/r/1024", small)
	open := func() (*client, error) {
		c, err := l.dial(p, ordinary, "http/1.1")
		if err != nil {
			return nil, err
		}
		if err := c.exchange(request, small, ignore); err != nil {
			c.close()
			return nil, err
		}
		return c, nil
	}
	for range l.size.idle / 4 {
		c, err := open()
		if err != nil {
			return nil, p.failed(err)
		}
		c.close()
	}
	if err := sleep(ctx, time.Second); err != nil {
		return nil, err
	}
	before, err := memory(p.pid(), "VmRSS")
	if err != nil {
		return nil, err
	}
	for range l.size.idle {
		c, err := open()
		if err != nil {
			return nil, p.failed(err)
		}
		defer c.close()
	}
	if err := sleep(ctx, 2*time.Second); err != nil { // what was freed may go back to the kernel
		return nil, err
	}
	after, err := memory(p.pid(), "VmRSS")
	return []float64{float64(after-before) / float64(l.size.idle)}, err
}

// peak is the most memory that was resident while one very large body went down
// and another up, in a fresh process.
func peak(ctx context.Context, l *lab, p *running) ([]float64, error) {
	n := l.size.huge
	c, err := l.dial(p, ordinary, "http/1.1")
	if err != nil {
		return nil, p.failed(err)
	}
	defer c.close()
	stop := context.AfterFunc(ctx, func() { c.close() })
	defer stop()
	if err := c.exchange(l.request(ordinary, "GET", fmt.Sprintf("/r/%d", n), 0), n, ignore); err != nil {
		return nil, p.failed(fmt.Errorf("down: %w", err))
	}
	var sent atomic.Int64
	if err := c.upload(l.request(ordinary, "PUT", "/r/2", n), n, func(n int) { sent.Add(int64(n)) }); err != nil {
		return nil, p.failed(fmt.Errorf("up, after %d bytes: %w", sent.Load(), err))
	}
	most, err := memory(p.pid(), "VmHWM")
	return []float64{float64(most)}, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
