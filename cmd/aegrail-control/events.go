package main

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
)

// maxNote is how many bytes of a note the API server takes; it refuses an Event
// with more (noteLengthLimit in its validation).
const maxNote = 1024

// clipped is a recorder whose Events are all taken: what is too long of a note
// is cut off, and is in the log.
type clipped struct{ events.EventRecorder }

// record has Events made by recorder.
func (c *control) record(recorder events.EventRecorder) { c.events = clipped{recorder} }

// Eventf is events.EventRecorder's.
func (c clipped) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	text := fmt.Sprintf(note, args...)
	if end := "…"; len(text) > maxNote {
		text = strings.ToValidUTF8(text[:maxNote-len(end)], "") + end
	}
	c.EventRecorder.Eventf(regarding, related, kind, reason, action, "%s", text)
}
