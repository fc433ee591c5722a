package report

import "time"

// verdict is what became of a request.
type verdict uint8

const (
	allowed verdict = iota
	observed
	denied
	failed
	verdicts
)

// String returns the word that the report uses.
func (v verdict) String() string {
	return [verdicts]string{"allowed", "observed", "denied", "failed"}[v]
}

// timeline counts requests by time and verdict. Its bars grow wider as time
// goes on, so that there are at most maxBuckets of them.
type timeline struct {
	width    int64                      // of a bar in seconds; 0 before the first request
	rows     map[int64]*[verdicts]int64 // :: Unix time / width → requests
	min, max int64                      // keys of rows
	untimed  int64                      // requests whose time cannot be read
}

// add counts n requests at t; n may be negative, to take back.
func (t *timeline) add(at time.Time, v verdict, n int64) {
	if at.IsZero() {
		t.untimed += n
		return
	}
	if t.width == 0 {
		t.width, t.rows = 1, map[int64]*[verdicts]int64{}
	}
	key := floorDiv(at.Unix(), t.width)
	if len(t.rows) == 0 {
		t.min, t.max = key, key
	}
	for max(t.max, key)-min(t.min, key) >= maxBuckets {
		t.widen()
		key = floorDiv(at.Unix(), t.width)
	}
	t.min, t.max = min(t.min, key), max(t.max, key)
	t.at(key)[v] += n
}

func (t *timeline) at(key int64) *[verdicts]int64 {
	if t.rows[key] == nil {
		t.rows[key] = new([verdicts]int64)
	}
	return t.rows[key]
}

// widen joins bars to the next wider ones, each of which is a whole number of
// the ones before.
func (t *timeline) widen() {
	old, factor := t.rows, widerBy(t.width)
	t.width *= factor
	t.rows = make(map[int64]*[verdicts]int64, len(old))
	t.min, t.max = floorDiv(t.min, factor), floorDiv(t.max, factor)
	for key, counts := range old {
		row := t.at(floorDiv(key, factor))
		for v, n := range counts {
			row[v] += n
		}
	}
}

// widerBy is how many bars of a width become one: seconds, 5 s, 15 s, minutes,
// 5 min, 15 min, hours, 3 h, 6 h, 12 h, days, weeks, then four times as much.
func widerBy(width int64) int64 {
	ladder := []int64{1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400}
	for i := range len(ladder) - 1 {
		if ladder[i] == width {
			return ladder[i+1] / width
		}
	}
	return 4
}

// coarse returns the same counts in at most bars bars.
func (t *timeline) coarse(bars int64) timeline {
	c := *t
	for c.max-c.min >= bars {
		c.widen()
	}
	return c
}

// start is when the bar of a key begins.
func (t *timeline) start(key int64) time.Time { return time.Unix(key*t.width, 0).UTC() }

// form is how the start of a bar is written.
func (t *timeline) form() string {
	switch {
	case t.width < 60:
		return "2006-01-02 15:04:05Z"
	case t.width < 86400:
		return "2006-01-02 15:04Z"
	default:
		return "2006-01-02"
	}
}

// unit says how wide a bar is.
func (t *timeline) unit() string {
	for _, u := range []struct {
		seconds int64
		name    string
	}{{7 * 86400, "week"}, {86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}} {
		if n := t.width / u.seconds; n > 0 {
			return plural(n, u.name)
		}
	}
	return ""
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
