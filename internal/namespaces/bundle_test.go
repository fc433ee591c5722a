package namespaces_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

func TestTheBundleSaysWhichGenerationGatewaysSignWith(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	signing := func(want int, fault string) {
		t.Helper()
		n, err := namespaces.Signing(t.Context(), w.client, "support")
		if n != want || (err != nil) != (fault != "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("generation %d, %v; want %d, %q", n, err, want, fault)
		}
	}
	signing(0, "")
	w.settle("support")
	signing(1, "")
	w.fail["get ConfigMap"] = errors.New("the API server is on holiday")
	signing(0, "holiday")
	delete(w.fail, "get ConfigMap")
	for _, wrong := range []string{"", "-1", "0", "two"} {
		bundle := w.bundle("support")
		bundle.Annotations["aegrail.io/gateway-ca-generation"] = wrong
		if err := w.client.Update(t.Context(), bundle); err != nil {
			t.Fatal(err)
		}
		signing(0, "sign with generation")
	}
}
