package fuzz

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// FuzzAuditLine puts an agent's bytes into every field of a record. A record
// is one line of ASCII that any JSON parser takes, its hash can be recomputed
// from the line alone, what was written comes back, and the log with one byte
// changed never verifies.
func FuzzAuditLine(f *testing.F) {
	f.Add("api.example.com", "/v1/messages", "POST", "model", uint32(0), byte(1))
	f.Add("a\nb", "/\xff\xfe\xc3", "G\x00T", "\x1b[2J", uint32(70), byte(0x20))
	f.Add("\u2028", "/😀\u00e9\x7f", "\"", "\\u0041", uint32(400), byte(4))
	f.Add(strings.Repeat("h", 600), "/"+strings.Repeat("€", 900), strings.Repeat("\xff", 70), strings.Repeat("k", 70), uint32(900), byte(0x10))
	f.Add("user:pw@host", "/a?b=c#d", "", "", uint32(1<<31), byte(0xff))

	hash := regexp.MustCompile(`,"event_hash":"([0-9a-f]{64})"`)
	f.Fuzz(func(t *testing.T, host, path, method, word string, at uint32, flip byte) {
		var out bytes.Buffer
		l, err := audit.Open(audit.Config{Stdout: &out})
		if err != nil {
			t.Fatal(err)
		}
		r := &audit.Record{
			Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: 1, Host: host, Path: []byte(path), Method: method,
			SNI: host, Detail: word, Reason: word, Rule: word, QueryKeys: []string{word, host},
			Agent: &audit.Agent{Namespace: word, ServiceAccount: host, Pod: path, Claimed: method, InvokingUser: word},
		}
		rc, err := l.Decide(r)
		if err != nil || !rc.Covers(1) {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}

		log := out.Bytes()
		lines := bytes.Split(bytes.TrimSuffix(log, []byte("\n")), []byte("\n"))
		if len(lines) != 3 {
			t.Fatalf("%d lines for 3 records", len(lines))
		}
		prev := any(nil)
		for _, line := range lines {
			var rec map[string]any
			if err := json.Unmarshal(line, &rec); err != nil || len(rec) != 10 {
				t.Fatalf("%v: %s", err, line)
			}
			m := hash.FindSubmatchIndex(line)
			if m == nil {
				t.Fatalf("no event_hash: %s", line)
			}
			sum := sha256.Sum256(append(bytes.Clone(line[:m[0]]), line[m[1]:]...))
			if got := hex.EncodeToString(sum[:]); got != rec["event_hash"] || rec["prev_hash"] != prev {
				t.Fatalf("hash %s behind %v: %s", got, prev, line)
			}
			prev = rec["event_hash"]
			for _, c := range line {
				if c < ' ' || c > '~' {
					t.Fatalf("byte %#x: %s", c, line)
				}
			}
		}
		readBack(t, log, path, word)
		if _, err := audit.Verify([]string{"-"}, audit.VerifyOptions{Stdin: bytes.NewReader(log)}); err != nil {
			t.Fatal(err)
		}
		if flip == 0 {
			return
		}
		log[int(at)%len(log)] ^= flip
		if _, err := audit.Verify([]string{"-"}, audit.VerifyOptions{Stdin: bytes.NewReader(log)}); err == nil {
			t.Fatalf("byte %d changed and the log verifies:\n%s", int(at)%len(log), log)
		}
	})
}

// readBack checks that fields come back byte for byte, but for what is cut.
func readBack(t *testing.T, log []byte, path, word string) {
	t.Helper()
	n := 0
	err := audit.Read(bytes.NewReader(log), func(e *audit.Entry) error {
		if n++; n != 2 {
			return nil
		}
		if i := strings.IndexAny(path, "?#"); i >= 0 {
			path = path[:i]
		}
		if !strings.HasPrefix(path, e.Path) || e.PathLen == 0 && e.Path != path || e.PathLen != 0 && e.PathLen != int64(len(path)) {
			t.Fatalf("path %q came back as %q of %d", path, e.Path, e.PathLen)
		}
		if len(word) <= 64 && (e.Detail != word || e.Rule != word || e.QueryKeys[0] != word) {
			t.Fatalf("%q came back as %q", word, e.Detail)
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Fatalf("%d records: %v", n, err)
	}
}
