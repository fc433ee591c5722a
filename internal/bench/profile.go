package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
)

// profile writes a CPU profile of the engine while it carries small requests
// over 16 connections.
func (l *lab) profile(ctx context.Context, file string) error {
	var engine peer
	for _, p := range l.peers {
		if p.name == engineName {
			engine = p
		}
	}
	r, err := l.start(ctx, engine)
	if err != nil {
		return err
	}
	defer r.stop()
	request := l.request("POST", "/r/1024", small)
	var stop atomic.Bool
	ended := make(chan error, 16)
	for range cap(ended) {
		c, err := l.dial(r, "http/1.1")
		if err != nil {
			return r.failed(err)
		}
		defer c.close()
		go func() {
			var err error
			for !stop.Load() && err == nil {
				err = c.exchange(request, small, ignore)
			}
			ended <- err
		}()
	}
	err = fetchProfile(ctx, filepath.Join(r.dir, pprofSocket), file)
	stop.Store(true)
	for range cap(ended) {
		if e := <-ended; e != nil && err == nil {
			err = r.failed(e)
		}
	}
	if err == nil {
		fmt.Fprintf(l.progress, "go tool pprof -top %s\n", file)
	}
	return err
}

func fetchProfile(ctx context.Context, socket, file string) error {
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/debug/pprof/profile?seconds=8", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the engine's profile: %s", resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
