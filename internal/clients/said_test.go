package clients

import (
	"encoding/json"
	"strings"
	"testing"
)

// said is what a client printed, a line of JSON [scenario, outcome] each.
type said struct {
	t        *testing.T
	ran      ran
	outcomes map[string]string // :: scenario → outcome as JSON
}

// said reads what a client printed. Other output is an error.
func (r ran) said() said {
	r.t.Helper()
	s := said{r.t, r, map[string]string{}}
	for line := range strings.Lines(r.stdout) {
		var pair []json.RawMessage
		var name string
		if json.Unmarshal([]byte(line), &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &name) != nil {
			r.t.Fatalf("the client said %q\n%s", line, r.all())
		}
		s.outcomes[name] = string(pair[1])
	}
	return s
}

// is wants an outcome to be v, compared as JSON.
func (s said) is(scenario string, v any) {
	s.t.Helper()
	want, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal([]byte(s.outcomes[scenario]), &got); err != nil {
		s.t.Errorf("%s: the client said %q\n%s", scenario, s.outcomes[scenario], s.ran.all())
		return
	}
	if again, _ := json.Marshal(got); string(again) != string(want) {
		s.t.Errorf("%s: the client said %s, want %s", scenario, again, want)
	}
}

// has wants an outcome to contain words: what a person would look for in a
// message.
func (s said) has(scenario string, words ...string) {
	s.t.Helper()
	got, ok := s.outcomes[scenario]
	if !ok {
		s.t.Errorf("%s: the client said nothing\n%s", scenario, s.ran.all())
	}
	for _, word := range words {
		if !strings.Contains(got, word) {
			s.t.Errorf("%s: %q is not in what the client said: %s", scenario, word, got)
		}
	}
}

// hasNot wants an outcome to be free of words.
func (s said) hasNot(scenario string, words ...string) {
	s.t.Helper()
	for _, word := range words {
		if strings.Contains(s.outcomes[scenario], word) {
			s.t.Errorf("%s: the client said %s, and should not say %q", scenario, s.outcomes[scenario], word)
		}
	}
}
