package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// profile writes a CPU profile of the engine while it carries the load of the
// first row that -only asks for.
func (l *lab) profile(ctx context.Context, file string) error {
	rows := l.rows()
	i := slices.IndexFunc(l.peers, func(p peer) bool { return p.name == engineName })
	if len(rows) == 0 || i < 0 {
		return errors.New("-profile: no row, or no engine")
	}
	r, err := l.start(ctx, l.peers[i])
	if err != nil {
		return err
	}
	defer r.stop()
	if err := l.firstContact(ctx, map[string]*running{r.name: r}); err != nil {
		return err
	}
	l.size.window = profiled + time.Second
	ended := make(chan error, 1)
	go func() {
		_, err := rows[0].run(ctx, l, r)
		ended <- err
	}()
	err = fetchProfile(ctx, filepath.Join(r.dir, pprofSocket), file)
	if err = errors.Join(err, <-ended); err != nil {
		return err
	}
	fmt.Fprintf(l.progress, "%s: go tool pprof -top %s\n", rows[0].name, file)
	return nil
}

// profiled is how long a profile is taken.
const profiled = 8 * time.Second

func fetchProfile(ctx context.Context, socket, file string) error {
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://engine/debug/pprof/profile?seconds=%.0f", profiled.Seconds()), nil)
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
