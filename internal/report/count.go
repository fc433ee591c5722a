package report

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// ref names a record: by its number, or by file and line where it has none.
type ref struct {
	seq  uint64
	file int // index of Options.Files
	line int64
}

// span is from the first to the last time seen. A clock may go back: first is
// the earliest.
type span struct{ first, last time.Time }

func (s *span) see(t time.Time) {
	if t.IsZero() {
		return
	}
	if s.first.IsZero() || t.Before(s.first) {
		s.first = t
	}
	if s.last.IsZero() || t.After(s.last) {
		s.last = t
	}
}

// count is how often something happened, when, and the first few records that
// say so.
type count struct {
	n       int64 // requests, or refused connections
	records int64 // that stand for them
	span
	refs []ref // the first maxExamples
}

// add counts the n requests that e stands for.
func (c *count) add(e *audit.Entry, at ref, n int64) {
	c.n += n
	c.records++
	c.see(e.Time)
	if n > 1 { // refusals that were counted: they began earlier
		if first, err := time.Parse(time.RFC3339Nano, e.First); err == nil {
			c.see(first)
		}
	}
	if len(c.refs) < maxExamples {
		c.refs = append(c.refs, at)
	}
}

// plus adds a number of bytes. The log may not be an engine's: a number below
// zero counts nothing, and a sum stays at its greatest.
func plus(sum, n int64) int64 {
	if n = max(n, 0); sum > math.MaxInt64-n {
		return math.MaxInt64
	}
	return sum + n
}

// table is what is counted by key, in bounded memory.
type table[K comparable, V any] struct {
	limit int
	rows  map[K]*V
	rest  V     // of keys that found no place
	over  int64 // how often rest was taken
}

func newTable[K comparable, V any](limit int) table[K, V] {
	return table[K, V]{limit: limit, rows: map[K]*V{}}
}

// at returns the row of k, or the rest's if there is no place for one more.
func (t *table[K, V]) at(k K) *V {
	if v := t.rows[k]; v != nil {
		return v
	}
	if len(t.rows) >= t.limit {
		t.over++
		return &t.rest
	}
	v := new(V)
	t.rows[k] = v
	return v
}

// row is a key of a table with what was counted for it.
type row[K comparable, V any] struct {
	key K
	val *V
}

// sorted returns the rows, the heaviest first, then by the text of the key, so
// that the same log gives the same report.
func (t *table[K, V]) sorted(weight func(*V) int64, text func(K) string) []row[K, V] {
	rows := make([]row[K, V], 0, len(t.rows))
	for k, v := range maps.All(t.rows) {
		rows = append(rows, row[K, V]{k, v})
	}
	slices.SortFunc(rows, func(a, b row[K, V]) int {
		return cmp.Or(cmp.Compare(weight(b.val), weight(a.val)), cmp.Compare(text(a.key), text(b.key)))
	})
	return rows
}

// distinct counts different texts up to a bound that all sets share.
type distinct struct {
	seen map[uint64]struct{}
	full bool // there were more
}

// add takes a text by its hash; left is how many more all sets may take.
func (d *distinct) add(hash uint64, left *int) {
	if _, ok := d.seen[hash]; ok || d.full {
		return
	}
	if len(d.seen) >= maxPaths || *left == 0 {
		d.full = true
		return
	}
	if d.seen == nil {
		d.seen = map[uint64]struct{}{}
	}
	d.seen[hash] = struct{}{}
	*left--
}

func (d *distinct) String() string {
	if d.full {
		return "at least " + number(int64(len(d.seen)))
	}
	return number(int64(len(d.seen)))
}

// top keeps the records with the greatest values.
type top struct{ items []topItem }

// topItem is a request that stands out.
type topItem struct {
	value  int64
	at     ref
	time   time.Time
	agent  agentKey
	target string // method, host and path
}

func (t *top) add(value int64, item func() topItem) {
	if value <= 0 || len(t.items) == maxTop && value <= t.items[maxTop-1].value {
		return
	}
	it := item()
	it.value = value
	i, _ := slices.BinarySearchFunc(t.items, value, func(a topItem, v int64) int {
		if a.value >= v { // equal ones stay in the order of the log
			return -1
		}
		return 1
	})
	t.items = slices.Insert(t.items, i, it)
	t.items = t.items[:min(len(t.items), maxTop)]
}

// list keeps the first few of what is told one by one.
type list[T any] struct {
	items []T
	n     int64 // of all
}

func (l *list[T]) add(item T) {
	l.n++
	if len(l.items) < maxListed {
		l.items = append(l.items, item)
	}
}
