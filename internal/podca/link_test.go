package podca_test

import (
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// TestK08AStolenTokenGetsNothingOverTheLink looks whether the link's server tells
// of what podca refuses.
func TestK08AStolenTokenGetsNothingOverTheLink(t *testing.T) {
	w, policies := newWorld(t), &podca.Policies{}
	policies.Swap(teams(t, "a.example", "b.example"))
	w.mu.Lock()
	w.reviews["good"] = tokenOf(podca.Audience, "support-bot", "bot-1", "another-uid")
	w.mu.Unlock()
	begin := serveLink(t, w, policies)
	thief, _ := begin()
	if !enginetest.Eventually(func() bool { return w.count("pod_uid") > 0 && len(w.events.Events) > 0 }) {
		t.Fatal("not recorded")
	}
	if event := <-w.events.Events; !strings.Contains(event, "Warning EngineRefused pod_uid") {
		t.Errorf("event %q", event)
	}
	if revision, permitted, _ := thief.state(); revision != "" || permitted != "none" || len(w.created) > 0 {
		t.Errorf("policy %q, authority for %q, %d requests", revision, permitted, len(w.created))
	}
}
