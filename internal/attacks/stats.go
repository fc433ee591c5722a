package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"
)

// statsName is a socket on which the engine's process says what it holds.
const statsName = "stats.sock"

// stats are one process's.
type stats struct {
	Goroutines int
	Most       int    // … since it began, as it looks every 20 ms
	Heap       uint64 // bytes in use, after a collection
}

func serveStats(path string) (func(), error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	var most atomic.Int64
	tick := time.NewTicker(20 * time.Millisecond)
	go func() {
		for range tick.C {
			most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
		}
	}()
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_ = json.NewEncoder(w).Encode(stats{runtime.NumGoroutine(), int(most.Load()), m.HeapAlloc}) // a reader that left
	})}
	go func() { _ = srv.Serve(ln) }()
	return func() { tick.Stop(); _ = srv.Close() }, nil
}

// askStats asks the process whose socket it is.
func askStats(ctx context.Context, path string) (s stats, err error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stats/", nil)
	if err != nil {
		return s, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}
