package proxy

import (
	"log/slog"
	"strings"
	"testing"
)

func TestAPanicBesideAConnectionIsAnError(t *testing.T) {
	var logged strings.Builder
	s := &Server{cfg: Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}}
	if err := s.guarded(func() error { panic("a defect") }); err == nil || !strings.Contains(err.Error(), "a defect") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(logged.String(), "a defect") {
		t.Errorf("logged %q", logged.String())
	}
	if err := s.guarded(func() error { return nil }); err != nil {
		t.Errorf("without a panic: %v", err)
	}
}
