package fuzz

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/report"
)

// FuzzReport puts an agent's bytes into the members of a record that a report
// shows. The page stays well-formed, and neither its elements nor the shape of
// the Markdown depend on them.
func FuzzReport(f *testing.F) {
	f.Add("api.example.com", "/v1/messages", "POST", "model")
	f.Add("</code></td><script>alert(1)</script>", "/`|`\n# x", "G|T", "\u202e{{.}}")
	f.Add("a\xffb\x00", "/\u2028\u0301", "`", "<!--")
	f.Add(strings.Repeat("h", 600), "/"+strings.Repeat("€", 900), " ", "\\")

	_, plain := render(f, "h", "/", "GET", "w")
	elements := names(f, plain)
	f.Fuzz(func(t *testing.T, host, path, method, word string) {
		md, page := render(t, host, path, method, word)
		for name := range names(t, page) {
			if !elements[name] {
				t.Errorf("<%s> in the page", name)
			}
		}
		for _, line := range strings.Split(md, "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' && !strings.ContainsRune("…–“”█", r) }) {
				t.Errorf("%q", line)
			}
			fence := line == "```" || line == "```text"
			if !fence && (strings.Contains(line, "``") || strings.Count(line, "`")%2 != 0) {
				t.Errorf("a code span that does not end: %q", line)
			}
		}
	})
}

// render reports on a log of one allowed, one failed and one denied request.
func render(t testing.TB, host, path, method, word string) (md, page string) {
	t.Helper()
	var log bytes.Buffer // a file would be synced, which is not what is tried here
	l, err := audit.Open(audit.Config{Stdout: &log})
	if err != nil {
		t.Fatal(err)
	}
	r := &audit.Record{
		Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: 1, Attempt: 1, Host: host, Path: []byte(path), Method: method, SNI: host, Scheme: "https",
		Detail: word, Rule: word, Policy: word, PolicyRevision: word, Agent: &audit.Agent{Namespace: word, ServiceAccount: host, Claimed: method, InvokingUser: word},
	}
	_, err = l.Decide(r)
	r.Phase, r.Event, r.Reason, r.Truncated, r.RequestBytes = audit.PhaseComplete, audit.EgressError, word, true, 9
	err = errors.Join(err, l.Complete(r))
	r.Phase, r.Event, r.ID = audit.PhaseDecision, audit.EgressDenied, 2
	if err = errors.Join(err, l.Refuse(r), l.Close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(file, log.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err := report.Gather(report.Options{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	var m, h bytes.Buffer
	if err := errors.Join(rep.Markdown(&m), rep.HTML(&h)); err != nil {
		t.Fatal(err)
	}
	return m.String(), h.String()
}

// void ends the elements that HTML leaves open, so that the page is XML.
var void = regexp.MustCompile(`(<meta[^>]*)>`)

// names returns the names of the page's elements and attributes.
func names(t testing.TB, page string) map[string]bool {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(void.ReplaceAllString(page, "$1/>")))
	d.Entity = xml.HTMLEntity
	found := map[string]bool{}
	for {
		tok, err := d.Token()
		switch {
		case errors.Is(err, io.EOF):
			return found
		case err != nil:
			t.Fatalf("the page: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			found[e.Name.Local] = true
			for _, a := range e.Attr {
				found[e.Name.Local+" "+a.Name.Local] = true
			}
		}
	}
}
