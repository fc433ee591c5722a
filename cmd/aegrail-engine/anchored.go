package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
	"github.com/arpitcoder/aegrail-engine/internal/ship"
)

// lastAnchored returns the newest checkpoint that a file among the anchors
// has: a log that does not continue it was cut or replaced while we were away,
// and to go on with it would be to sign that. No key is asked for: whoever took
// the log may have taken its key as well, and the anchor is what they could not
// take. nil is none.
func lastAnchored(anchors []ship.Target) (*checkpoint.Checkpoint, error) {
	var newest *checkpoint.Checkpoint
	for i := range anchors {
		if anchors[i].Kind() != ship.File {
			continue
		}
		c, err := lastOf(anchors[i].String())
		if err != nil {
			return nil, err
		}
		if c != nil && (newest == nil || c.Size > newest.Size) {
			newest = c
		}
	}
	return newest, nil
}

func lastOf(name string) (*checkpoint.Checkpoint, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a new anchor has no checkpoint, and that is no error
	}
	if err != nil {
		return nil, fmt.Errorf("--audit-anchor: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("--audit-anchor: %w", err)
	}
	note, err := checkpoint.LastAnchored(f, info.Size())
	if err != nil || note == nil {
		return nil, explainAnchor(name, err)
	}
	c, _, err := checkpoint.Open(note, checkpoint.Verifiers{})
	if err != nil {
		return nil, explainAnchor(name, err)
	}
	return &c, nil
}

func explainAnchor(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--audit-anchor %s: %w; move it away, or name another file", name, err)
}
