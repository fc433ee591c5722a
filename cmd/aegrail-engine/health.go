package main

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// health is what /readyz says: ready, or why not. A cause is one of our own
// words; its text may name files, which is why the admin listener is not for
// agents.
type health struct {
	logFailed   func() error // the audit log's latched failure, asked at each probe
	enforcement string       // as --enforcement has it

	mu     sync.Mutex
	causes map[string]string // cause -> what is wrong; guarded by mu
}

func newHealth(enforcement string) *health {
	return &health{enforcement: enforcement, causes: map[string]string{"starting": "not listening yet"}}
}

// set records that cause is wrong with err, or right again if err is nil. It
// reports whether that is news.
func (h *health) set(cause string, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, was := h.causes[cause]
	if err == nil {
		delete(h.causes, cause)
		return was
	}
	h.causes[cause] = oneLine(err.Error())
	return before != h.causes[cause]
}

// problems lists what is wrong, a line each, in a fixed order.
func (h *health) problems() []string {
	h.mu.Lock()
	causes := maps.Clone(h.causes)
	h.mu.Unlock()
	if h.logFailed != nil {
		if err := h.logFailed(); err != nil {
			causes["audit"] = oneLine(err.Error())
		}
	}
	var out []string
	for _, cause := range slices.Sorted(maps.Keys(causes)) {
		out = append(out, cause+": "+causes[cause])
	}
	return out
}

// adminServer serves what probes and Prometheus read. It changes nothing.
//
//	/healthz  200 while the process lives
//	/readyz   200 "ready", or 503 and a line for each cause; then a line NOT ENFORCED where that is so
//	/metrics  the Prometheus text format
//	/audit/key  the verifier key of the log's checkpoints
func adminServer(h *health, metrics http.Handler, auditKey string, logger *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, lines := http.StatusOK, []string{"ready"}
		if wrong := h.problems(); len(wrong) > 0 {
			status, lines = http.StatusServiceUnavailable, wrong
		}
		if h.enforcement == advisory {
			lines = append(lines, notEnforced)
		}
		plain(w, status, lines...)
	})
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /audit/key", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, auditKey)
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10, // 16 KiB: a probe has no cookies
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

func plain(w http.ResponseWriter, status int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	_ = err // the probe went away
}

// oneLine keeps an error of several lines one line, for logs and probes.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// plural is "1 rule", "2 rules".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
