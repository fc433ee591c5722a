package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// tally is what became of the requests of load.
type tally struct {
	Sent   int            `json:"sent"`
	Failed map[string]int `json:"failed"` // by what failed; none where all were answered with 200
}

// load posts to a URL until a file is there. Half of its workers make a
// connection for each request, the others keep theirs; one in four speaks HTTP/1.
func load(args []string) tally {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	workers := f.Int("workers", 4, "")
	stop := f.String("stop", "/tmp/stop", "the file that ends it")
	f.Parse(args)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total = tally{Failed: map[string]int{}}
	)
	for i := range *workers {
		t := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: i%2 == 0, Protocols: new(http.Protocols)}
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(i%4 != 3)
		client := &http.Client{Transport: t, Timeout: 30 * time.Second}
		wg.Go(func() {
			for n := 0; ; n++ {
				if _, err := os.Stat(*stop); err == nil {
					return
				}
				why := post(client, f.Arg(0), fmt.Sprintf("worker %d request %d", i, n))
				mu.Lock()
				total.Sent++
				if why != "" {
					total.Failed[why]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return total
}

// post returns what went wrong, or "".
func post(client *http.Client, url, body string) string {
	got, err := client.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	defer got.Body.Close()
	data, err := io.ReadAll(got.Body)
	switch {
	case err != nil:
		return err.Error()
	case got.StatusCode != http.StatusOK:
		return fmt.Sprintf("%s %s", got.Status, data)
	case !strings.HasSuffix(string(data), body):
		return fmt.Sprintf("the answer is %q", data)
	}
	return ""
}
