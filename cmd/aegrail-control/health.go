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
//
// What control answers in spite of, a policy that no longer loads while the last
// good one is in force, is said as well, and leaves it ready. Every replica
// reads the same file: unready, they would all be taken from the Service, and
// with them injection, and the renewal of every engine's authority.
type health struct {
	mu     sync.Mutex
	causes map[string]string // :: cause → what is wrong; guarded by mu
	borne  map[string]string // :: cause → what is wrong and borne; guarded by mu
}

func newHealth(causes ...string) *health {
	h := &health{causes: map[string]string{}, borne: map[string]string{}}
	for _, cause := range causes {
		h.causes[cause] = "starting"
	}
	return h
}

// set records that control cannot answer because of err, or can if err is nil. It
// reports whether that is news.
func (h *health) set(cause string, err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return note(h.causes, cause, err)
}

// bear is set for what control answers in spite of.
func (h *health) bear(cause string, err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return note(h.borne, cause, err)
}

func note(m map[string]string, cause string, err error) (news bool) {
	was, wrong := m[cause]
	if err == nil {
		delete(m, cause)
		return wrong
	}
	m[cause] = oneLine(err)
	return was != m[cause]
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		causes, borne := maps.Clone(h.causes), maps.Clone(h.borne)
		h.mu.Unlock()
		if len(causes) == 0 {
			_, _ = io.WriteString(w, "ready\n")
		} else {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		for _, cause := range slices.Sorted(maps.Keys(causes)) {
			_, _ = fmt.Fprintf(w, "%s: %s\n", cause, causes[cause])
		}
		for _, cause := range slices.Sorted(maps.Keys(borne)) {
			_, _ = fmt.Fprintf(w, "degraded: %s: %s\n", cause, borne[cause])
		}
	})
	return mux
}

// oneLine keeps an error of several lines one line, for logs and probes.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
