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

// health is what /readyz says: ready, or why not, and what is worth a note while
// it serves as it should. A cause is one of our own words; its text may name
// files, which is why the admin listener is not for agents.
type health struct {
	logFailed   func() error // the audit log's latched failure, asked at each probe
	enforcement string       // as --enforcement has it

	mu     sync.Mutex
	causes map[string]string // cause -> what is wrong; guarded by mu
	notes  map[string]string // cause -> what is not as it should be, and keeps nobody from being served; guarded by mu
}

func newHealth(enforcement string) *health {
	return &health{enforcement: enforcement, causes: map[string]string{"starting": "not listening yet"}, notes: map[string]string{}}
}

// set records that cause is wrong with err, or right again if err is nil. It
// reports whether that is news.
func (h *health) set(cause string, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return hold(h.causes, cause, err)
}

// note is set for what leaves the engine ready.
func (h *health) note(cause string, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return hold(h.notes, cause, err)
}

func hold(in map[string]string, cause string, err error) (news bool) {
	before, was := in[cause]
	if err == nil {
		delete(in, cause)
		return was
	}
	in[cause] = oneLine(err.Error())
	return before != in[cause]
}

// problems lists what is wrong and what is worth a note, a line each, in a fixed
// order.
func (h *health) problems() (wrong, notes []string) {
	h.mu.Lock()
	causes, notable := maps.Clone(h.causes), maps.Clone(h.notes)
	h.mu.Unlock()
	if h.logFailed != nil {
		if err := h.logFailed(); err != nil {
			causes["audit"] = oneLine(err.Error())
		}
	}
	return sorted(causes), sorted(notable)
}

func sorted(of map[string]string) (out []string) {
	for _, cause := range slices.Sorted(maps.Keys(of)) {
		out = append(out, cause+": "+of[cause])
	}
	return out
}

// adminServer serves what probes and Prometheus read. It changes nothing.
//
//	/healthz  200 while the process lives
//	/readyz   200 "ready", or 503 and a line for each cause; then a line for each note, as NOT ENFORCED
//	/metrics  the Prometheus text format
//	/audit/key  the verifier key of the log's checkpoints
func adminServer(h *health, metrics http.Handler, auditKey string, logger *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, lines := http.StatusOK, []string{"ready"}
		wrong, notes := h.problems()
		if len(wrong) > 0 {
			status, lines = http.StatusServiceUnavailable, wrong
		}
		lines = append(lines, notes...)
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
