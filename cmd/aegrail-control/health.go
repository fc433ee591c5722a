package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// health is what /readyz says: ready, or a line for each cause why not.
type health struct {
	mu     sync.Mutex
	causes map[string]string // cause -> what is wrong; guarded by mu
}

func newHealth(causes ...string) *health {
	h := &health{causes: map[string]string{}}
	for _, cause := range causes {
		h.causes[cause] = "starting"
	}
	return h
}

// set records that cause is wrong with err, or right if err is nil. It reports
// whether that is news.
func (h *health) set(cause string, err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, wrong := h.causes[cause]
	if err == nil {
		delete(h.causes, cause)
		return wrong
	}
	h.causes[cause] = oneLine(err)
	return was != h.causes[cause]
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		causes := maps.Clone(h.causes)
		h.mu.Unlock()
		if len(causes) == 0 {
			_, _ = io.WriteString(w, "ready\n")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		for _, cause := range slices.Sorted(maps.Keys(causes)) {
			_, _ = fmt.Fprintf(w, "%s: %s\n", cause, causes[cause])
		}
	})
	return mux
}

// oneLine keeps an error of several lines one line, for logs and probes.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
