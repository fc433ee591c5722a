package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// The rules of this file are: a log is its rotated segments, in the order of
// their numbers, and then the file at its path; the file at the path is always
// there and always locked by its writer; a segment's name says the seq of its
// first record, so that nothing needs an index.

// Words of payload.reason in the log's own records.
const (
	reasonCheckpoint = "checkpoint" // a signed checkpoint of everything before
	reasonSegment    = "segment"    // the first record of a file that continues another
	reasonRetention  = "retention"  // segments were removed
	reasonRecovered  = "audit_recovered"
)

// segmentDigits is how many digits a name has at least; more when they are
// needed.
const segmentDigits = 12

// nextSuffix names the file that is about to take the log's place.
const nextSuffix = ".next"

// Segment is one rotated file of a log.
type Segment struct {
	Name  string // its path; may end in .gz
	First uint64 // seq of its first record
}

// segmentName returns the name that a file whose first record is first has
// once it is rotated.
func segmentName(path string, first uint64) string {
	return fmt.Sprintf("%s.%0*d", path, segmentDigits, first)
}

// parseSegment reports which segment of the log base a file of this name is.
func parseSegment(base, name string) (first uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return 0, false
	}
	digits = strings.TrimSuffix(digits, ".gz")
	if len(digits) < segmentDigits || len(digits) > segmentDigits && digits[0] == '0' {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0 && digits[0] != '+'
}

// Segments returns the rotated files of the log at path, oldest first. Where a
// segment is there plain and compressed, the plain one counts: the other may
// not be whole yet.
func Segments(path string) ([]Segment, error) { return segments(osFS{}, path) }

func segments(fsys fileSystem, path string) ([]Segment, error) {
	dir, base := filepath.Split(path)
	names, err := fsys.list(filepath.Clean(dir))
	if err != nil {
		return nil, fmt.Errorf("looking for segments of audit log %s: %w", path, err)
	}
	var all []Segment
	for _, name := range names {
		if first, ok := parseSegment(base, name); ok {
			all = append(all, Segment{Name: dir + name, First: first})
		}
	}
	slices.SortFunc(all, func(a, b Segment) int {
		if a.First != b.First {
			return int(min(max(int64(a.First-b.First), -1), 1))
		}
		return len(a.Name) - len(b.Name) // the plain one first
	})
	return slices.CompactFunc(all, func(a, b Segment) bool { return a.First == b.First }), nil
}

// header is what the first record of a segment says of everything before it.
type header struct {
	chainState        // before the record, but for the hash that it continues
	segment    string // base name of the segment before
}

// errNoHeader means that a record continues another one and is no header.
var errNoHeader = errors.New("the first record continues another one: what stood before it is missing")

// headerOf reads the header that l is.
func headerOf(l *line) (header, error) {
	if string(l.reason) != `"`+reasonSegment+`"` || string(l.event) != EngineHeartbeat.String() || l.frontier == nil {
		return header{}, errNoHeader
	}
	h := header{segment: stringOf(l.segment)}
	seq, err := strconv.ParseUint(string(l.seq), 10, 64)
	if err != nil || seq < 2 {
		return header{}, errors.New("the header of a segment has no payload.seq that could continue another record")
	}
	var hashes []checkpoint.Hash
	eachItem(l.frontier, func(v []byte) {
		var h checkpoint.Hash
		if len(v) != hashLen+2 || v[0] != '"' {
			err = errors.New("an item that is no hash")
		} else if _, derr := hex.Decode(h[:], v[1:len(v)-1]); derr != nil {
			err = derr
		}
		hashes = append(hashes, h)
	})
	if err == nil {
		h.tree, err = checkpoint.Restore(seq-1, hashes)
	}
	if err != nil {
		return header{}, fmt.Errorf("payload.frontier of a segment's header: %w", err)
	}
	h.seq, h.has = seq-1, true
	copy(h.prev[:], l.prev)
	return h, nil
}

// stringOf returns what a JSON string says, or "" for another value.
func stringOf(v []byte) string {
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	return text(v[1 : len(v)-1])
}
