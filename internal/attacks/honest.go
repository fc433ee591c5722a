package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// honestAddr is where the well-behaved client comes from.
const honestAddr = "127.0.2.1"

const (
	honestName = "honest"
	honestFile = "honest.json"
)

// serveHonest is what this program is with -role honest: the well-behaved client
// is a process of its own, since one that shares a process with attackers waits
// for them. It asks for files of the host -target through the engine at -listen.
func serveHonest(o options) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	h := newHonest(o.listen, o.target)
	defer h.close()
	out, err := json.Marshal(h.run(ctx, o.during))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.dir, honestFile), out, 0o600)
}

// honestClient runs it for d.
func (l *lab) honestClient(ctx context.Context, engine, target string, d time.Duration) (found latencies, err error) {
	dir, err := os.MkdirTemp(l.dir, honestName)
	if err != nil {
		return found, err
	}
	cmd := exec.CommandContext(ctx, l.self, "-role", honestName, "-listen", engine, "-target", target, "-during", d.String(), "-dir", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return found, fmt.Errorf("the well-behaved client: %w: %s", err, lastLine(out))
	}
	data, err := os.ReadFile(filepath.Join(dir, honestFile))
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(data, &found)
}

// honest is a well-behaved client on one connection.
type honest struct {
	client *http.Client
	url    string
}

func newHonest(engine, host string) *honest {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(honestAddr)}}
	return &honest{url: "https://" + host + "/files/honest", client: &http.Client{Timeout: 2 * patience, Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: engine}), DialContext: from.DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxConnsPerHost: 1,
	}}}
}

func (h *honest) close() { h.client.CloseIdleConnections() }

// run makes requests one after the other, for so long.
func (h *honest) run(ctx context.Context, d time.Duration) (l latencies) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var all []time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		err := h.once(context.WithoutCancel(ctx))
		all = append(all, time.Since(began))
		if err != nil {
			l.Failed++
		}
	}
	if l.N = len(all); l.N == 0 {
		return l
	}
	slices.Sort(all)
	l.Median, l.P99 = all[len(all)/2], all[len(all)*99/100]
	return l
}

func (h *honest) once(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return err
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// latencies are those of the well-behaved client.
type latencies struct {
	Median, P99 time.Duration
	N, Failed   int
}

func (l latencies) String() string {
	text := fmt.Sprintf("%.1f / %.1f", float64(l.Median.Microseconds())/1000, float64(l.P99.Microseconds())/1000)
	if l.Failed > 0 {
		text += fmt.Sprintf(" (%d of %d failed)", l.Failed, l.N)
	}
	return text
}
