package admission

import (
	"encoding/json"
	"maps"
	"os"
	"testing"
)

// TestTheChartHasTheConditions: the webhooks' configurations are the chart's,
// and what they leave out is never asked about.
func TestTheChartHasTheConditions(t *testing.T) {
	const file = "../../charts/aegrail-engine/files/conditions.json"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var has map[string]string
	if err := json.Unmarshal(data, &has); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"mutatePod": MatchMutatePod, "validateNamespace": MatchValidateNamespace, "validatePod": MatchValidatePod, "bundle": MatchBundle,
		"token": AllowToken,
	}
	if !maps.Equal(has, want) {
		text, err := json.MarshalIndent(want, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s is not as the constants are, which are\n%s", file, text)
	}
}
