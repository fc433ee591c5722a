package enginetest

import (
	"strings"
	"testing"
)

// reference is the aegrail library's own test vector: a first record and its hash.
const (
	reference = `{"agent_identity":"egress-proxy/v1","budget":{},"event":"egress_denied",` +
		`"invoking_user":null,"payload":{"host":"blocked.example","reason":"not_in_allowlist"},"prev_hash":null,` +
		`"principal":"egress-proxy/v1@sess_test_1","session_id":"sess_test_1","ts":"2026-05-15T09:42:11.123Z"}`
	referenceHash = "080c3a205943d7529fe0c6d853b0def240217be141936b16e14f6472ef00b799"
)

// chained returns records as lines of one log. prev_hash is filled in.
func chained(t *testing.T, records ...string) string {
	t.Helper()
	var log strings.Builder
	prev := "null"
	for _, r := range records {
		r = strings.Replace(r, `"prev_hash":null`, `"prev_hash":`+prev, 1)
		bare, err := parseRecord(strings.Replace(r, `"invoking_user"`, `"event_hash":"","invoking_user"`, 1))
		if err != nil {
			t.Fatal(err)
		}
		prev = `"` + eventHash(bare.Top) + `"`
		log.WriteString(strings.Replace(r, `"invoking_user"`, `"event_hash":`+prev+`,"invoking_user"`, 1) + "\n")
	}
	return log.String()
}

func TestVerifyChainAgreesWithTheLibrary(t *testing.T) {
	log := chained(t, reference)
	if !strings.Contains(log, referenceHash) {
		t.Errorf("the reference record hashes to\n%s, want %s", log, referenceHash)
	}
	if _, err := VerifyChain([]byte(log)); err != nil {
		t.Error(err)
	}
}

func TestVerifyChainFindsAnyChangedByte(t *testing.T) {
	second := strings.Replace(reference, "blocked.example", `\u00e9\ud83d\ude00\u007f\udcff\\udcff \"\n`, 1)
	log := chained(t, reference, second, reference)
	if _, err := VerifyChain([]byte(log)); err != nil {
		t.Fatalf("a sound log: %v\n%s", err, log)
	}
	for i := range log {
		changed := []byte(log)
		changed[i] ^= 1
		if _, err := VerifyChain(changed); err == nil {
			t.Errorf("byte %d changed from %q to %q, and the log verifies", i, log[i], changed[i])
		}
	}
}

func TestVerifyChainFindsWhatIsMissing(t *testing.T) {
	lines := strings.SplitAfter(chained(t, reference, reference, reference), "\n")
	for what, log := range map[string]string{
		"the first record":           lines[1] + lines[2],
		"a record between":           lines[0] + lines[2],
		"the last newline":           strings.TrimSuffix(lines[0], "\n"),
		"a key":                      strings.Replace(lines[0], `"budget":{},`, "", 1),
		"the order of two records":   lines[1] + lines[0],
		"the library's event names":  strings.Replace(lines[0], "egress_denied", "egress_fine", 1),
		"the one spelling of a line": strings.Replace(lines[0], `":`, `": `, 1),
	} {
		if _, err := VerifyChain([]byte(log)); err == nil {
			t.Errorf("without %s the log verifies:\n%s", what, log)
		}
	}
}
