package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// logged is what the engine's log says of one case's host.
type logged struct {
	decisions map[string]int // :: "METHOD path" → decisions to allow
	ends      map[string]int // :: "METHOD path sha256" → completions, whatever they came to
	allowed   map[string]int // :: "METHOD path sha256" → completions that are egress_allowed
	denials   int
	reasons   []string
}

// readLog verifies the chain of the log and sorts its records by case. It is
// the harness's second verifier that reads, not the engine's own.
func readLog(file string) (map[int]*logged, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	records, err := enginetest.VerifyChain(data)
	if err != nil {
		return nil, fmt.Errorf("the log does not verify: %w", err)
	}
	number := newCaseNumber()
	all := map[int]*logged{}
	for _, r := range records {
		n, ok := number.of([]byte(r.Get("host")))
		if !ok {
			continue
		}
		l := all[n]
		if l == nil {
			l = &logged{decisions: map[string]int{}, ends: map[string]int{}, allowed: map[string]int{}}
			all[n] = l
		}
		l.add(r)
	}
	return all, nil
}

func (l *logged) add(r enginetest.Record) {
	line := r.Get("method") + " " + r.Get("path")
	if r.Event == "egress_denied" {
		l.denials++
		l.reasons = append(l.reasons, r.Get("reason"))
	}
	switch {
	case r.Get("phase") == "decision" && r.Event == "egress_allowed":
		l.decisions[line]++
	case r.Get("phase") == "complete":
		key := line + " " + r.Get("request_sha256")
		l.ends[key]++
		if r.Event == "egress_allowed" && r.Get("truncated") == "" { // an origin may answer before it has all of a body
			l.allowed[key]++
		}
	}
}

// disagrees says where the log and the upstream differ about a case: a request
// that arrived must be in the log, decided and ended, with the digest of what
// arrived; and one that the log calls done must have arrived.
func (l *logged) disagrees(arrived []request) error {
	if l == nil {
		l = new(logged)
	}
	lines, keys := map[string]int{}, map[string]int{}
	for _, r := range arrived {
		path, _, _ := strings.Cut(r.target, "?")
		line := r.method + " " + path
		lines[line]++
		if r.complete {
			sum := sha256.Sum256([]byte(r.body))
			keys[line+" "+hex.EncodeToString(sum[:])]++
		}
	}
	for line, n := range lines {
		if l.decisions[line] < n {
			return fmt.Errorf("%d × %s arrived, the log allowed %d", n, line, l.decisions[line])
		}
	}
	for key, n := range keys {
		if l.ends[key] < n {
			return fmt.Errorf("%d × %s arrived, the log ended %s", n, key, strconv.Itoa(l.ends[key]))
		}
	}
	for key, n := range l.allowed {
		if keys[key] < n {
			return fmt.Errorf("the log has %d × %s, %d arrived", n, key, keys[key])
		}
	}
	return nil
}

// checkLog compares the engine's log with what the upstream saw, case by case.
// A stopped engine has written all of it.
func (l *lab) checkLog(file string, cases []caseOf) []error {
	all, err := readLog(file)
	if err != nil {
		return []error{err}
	}
	strict, seen := newStrictReader(), l.up.seen()
	var errs []error
	for _, c := range cases {
		if c.rules() == pinned || c.rules() == socket {
			continue // not decrypted; digests of frames
		}
		var arrived []request
		for _, conn := range seen[c.n] {
			found, _ := strict.all(string(conn.raw)) // what cannot be read was judged
			arrived = append(arrived, found...)
		}
		if err := all[c.n].disagrees(arrived); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", c.id, c.what, err))
		}
	}
	return errs
}
