package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadinessNamesEveryCause(t *testing.T) {
	h := newHealth(transparent)
	var logFault error
	h.logFailed = func() error { return logFault }
	server := adminServer(h, http.NotFoundHandler(), "audit.test+0+0", slog.New(slog.NewTextHandler(io.Discard, nil)))
	probe := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		server.Handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	want := func(what string, code int, body string) {
		t.Helper()
		if c, b := probe("GET", "/readyz"); c != code || b != body {
			t.Errorf("%s: %d %q, want %d %q", what, c, b, code, body)
		}
	}
	want("before it listens", 503, "starting: not listening yet")
	h.set("starting", nil)
	want("all well", 200, "ready")
	logFault = errors.New("disk full\nno room")
	want("the log cannot take records", 503, "audit: disk full; no room")
	if !h.set("policy", errors.New("p.yaml:1:1: bad")) || h.set("policy", errors.New("p.yaml:1:1: bad")) {
		t.Error("news is news once")
	}
	want("two causes", 503, "audit: disk full; no room\npolicy: p.yaml:1:1: bad")
	logFault = nil
	if !h.set("policy", nil) || h.set("policy", nil) {
		t.Error("recovery is news once")
	}
	want("well again", 200, "ready")
	if !h.note("control", errors.New("away\nsince noon")) || h.note("control", errors.New("away\nsince noon")) {
		t.Error("a note is news once")
	}
	want("with a note", 200, "ready\ncontrol: away; since noon")
	h.set("ca", errors.New("over"))
	want("with a note and a cause", 503, "ca: over\ncontrol: away; since noon")
	h.set("ca", nil)
	if !h.note("control", nil) || h.note("control", nil) {
		t.Error("its end is news once")
	}
	h.enforcement = advisory
	want("what nothing enforces", 200, "ready\n"+notEnforced)
	h.enforcement = ""
	want("on a laptop", 200, "ready")

	if c, b := probe("GET", "/healthz"); c != 200 || b != "ok" {
		t.Errorf("/healthz: %d %q", c, b)
	}
	// Read-only: whoever reaches the port can change nothing.
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, path := range []string{"/readyz", "/healthz", "/metrics"} {
			if c, _ := probe(method, path); c != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want 405", method, path, c)
			}
		}
	}
	if c, _ := probe("GET", "/debug/pprof/"); c != 404 {
		t.Errorf("profiles are on the admin port: %d", c)
	}
}
