package proxy

import (
	"context"
	"testing"
)

func TestAWatchedContextTellsOfItsEndOnce(t *testing.T) {
	w := newWatched()
	told := make(chan string, 4)
	tell := func(who string) func() { return func() { told <- who } }

	if stop := w.Watch(tell("nobody")); !stop() || stop() {
		t.Error("a watch that was taken back is not taken back once")
	}
	stop := w.Watch(tell("first"))
	beside := w.Watch(tell("second"))
	below, cancel := context.WithCancel(w)
	defer cancel()
	w.end()
	w.end()
	if got := <-told + <-told; got != "firstsecond" && got != "secondfirst" {
		t.Errorf("told %s", got)
	}
	if stop() || beside() {
		t.Error("a watch was taken back after its function was called")
	}
	<-below.Done()
	late := w.Watch(tell("late"))
	if got := <-told; got != "late" || late() {
		t.Errorf("a watch of a context that has ended: told %s", got)
	}
}
