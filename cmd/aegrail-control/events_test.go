package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/client-go/tools/events"
)

// TestEventsAreNotTooLongForTheAPIServer: it would refuse them, and who looks
// for what is wrong with a policy would find nothing.
func TestEventsAreNotTooLongForTheAPIServer(t *testing.T) {
	told := events.NewFakeRecorder(1)
	c := &control{logger: slog.New(slog.DiscardHandler), counters: newCounters(), health: newHealth()}
	c.record(told)
	for text, long := range map[string]bool{
		"100%s of it": false, strings.Repeat("x", 5000): true, strings.Repeat("é", 700): true, "a" + strings.Repeat("é", 700): true, "aa" + strings.Repeat("€", 700): true,
	} {
		c.health = newHealth()
		c.reloaded(itemTLS, false, errors.New(text))
		_, note, _ := strings.Cut(<-told.Events, "Warning CertificateRejected ")
		if len(note) == 0 || len(note) > 1024 || strings.ToValidUTF8(note, "") != note {
			t.Errorf("a note of %d bytes: %q", len(note), note)
		}
		if strings.HasSuffix(note, "…") != long || !long && !strings.HasSuffix(note, text) {
			t.Errorf("note %q", note)
		}
	}
}
