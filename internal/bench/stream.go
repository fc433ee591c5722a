package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Events of one stream, and how far they are apart.
const (
	events      = 50
	eventsApart = 5 * time.Millisecond
	sseConns    = 16
)

// serverSent streams server-sent events over some connections at once, and
// returns in seconds: request to first event, median and 99th percentile, and
// the way of each later event from the origin's write to the client's read,
// median and 99th percentile. Origin and client read one clock.
func serverSent(ctx context.Context, l *lab, p *running) ([]float64, error) {
	head := l.request(ordinary, "GET", fmt.Sprintf("/sse/%d/%d", events, eventsApart.Microseconds()), 0)
	var mu sync.Mutex
	var first, later []float64
	var failed error
	var all sync.WaitGroup
	for range sseConns {
		c, err := l.dial(p, ordinary, "http/1.1")
		if err != nil {
			return nil, p.failed(err)
		}
		defer c.close()
		all.Go(func() {
			for range l.size.sseRounds {
				f, rest, err := c.stream(head)
				mu.Lock()
				first = append(first, f)
				later = append(later, rest...)
				failed = errors.Join(failed, err)
				mu.Unlock()
				if err != nil || ctx.Err() != nil {
					return
				}
			}
		})
	}
	all.Wait()
	if failed != nil || ctx.Err() != nil {
		return nil, p.failed(errors.Join(failed, ctx.Err()))
	}
	return []float64{quantile(first, .5), quantile(first, .99), quantile(later, .5), quantile(later, .99)}, nil
}

func (c *client) stream(head []byte) (first float64, later []float64, err error) {
	_ = c.c.SetDeadline(time.Now().Add(ioTimeout))
	asked := time.Now()
	if _, err := c.c.Write(head); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return 0, nil, errors.New(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	n := 0
	for lines.Scan() {
		rest, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		text, _, _ := bytes.Cut(rest, []byte(" "))
		sent, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			return 0, nil, err
		}
		if n++; n == 1 {
			first = time.Since(asked).Seconds()
			continue
		}
		later = append(later, time.Duration(time.Now().UnixNano()-sent).Seconds())
	}
	if err := lines.Err(); err != nil {
		return 0, nil, err
	}
	if n != events {
		return 0, nil, fmt.Errorf("%d events came, want %d", n, events)
	}
	return first, later, nil
}

// quantile of values, which it sorts.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
