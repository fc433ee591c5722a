package main

import (
	"fmt"
	"sync"
	"time"
)

// want is what a request must come to.
type want uint8

const (
	allowed  want = iota + 1 // answered, whole
	refused                  // by the policy or as a bad request: nothing of it arrives
	flipping                 // by the revision in force
	faulty                   // allowed, and the origin fails
	leaving                  // allowed, and the client leaves
	late                     // allowed, if the name is found in time
)

// call is a request as its client made it. It belongs to who made it until done.
type call struct {
	host, method, path string
	want               want
	began, ended       time.Time
	status             int    // 0: none
	reason             string // of a refusal, as the client was told
	sent, got          string // digests of bodies in hex; "": not compared
	sentN, gotN        int64
	err                error
}

// arrival is a request as an origin saw it.
type arrival struct {
	path   string
	sum    string
	n      int64
	whole  bool
	closed bool
}

// ledger is what clients did and origins saw, by path; and by host where the
// refusal comes before a path. It is safe for concurrent use.
type ledger struct {
	index *index

	mu       sync.Mutex
	calls    map[string]*call      // :: path, or host → its only request
	arrivals map[string][]*arrival // :: path → what came
	noise    map[string]int        // :: reason → what was refused before it had a path
	problems []string              // the first of each kind
	kinds    map[string]int        // :: kind of problem → how many
	wrong    int
	done     map[string]int // :: kind → requests
}

const keptProblems = 5 // of a kind

func newLedger(i *index) *ledger {
	return &ledger{index: i, calls: map[string]*call{}, arrivals: map[string][]*arrival{}, noise: map[string]int{}, kinds: map[string]int{}, done: map[string]int{}}
}

// problem notes what must not be. The format is its kind.
func (l *ledger) problem(format string, args ...any) { l.note(format, fmt.Sprintf(format, args...)) }

func (l *ledger) note(kind, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong++
	if l.kinds[kind]++; l.kinds[kind] <= keptProblems {
		l.problems = append(l.problems, text)
	}
}

// made notes a request that its client is done with. by is its path, or its host.
func (l *ledger) made(kind, by string, c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[by] = c
	l.done[kind]++
}

// noisy notes what must be refused, for that reason, before it has a path.
func (l *ledger) noisy(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noise[kind]++
	l.done["noise: "+kind]++
}

// arrive notes a request at an origin, whose decision must be in the log by now.
func (l *ledger) arrive(method, path string) *arrival {
	a := &arrival{path: path}
	l.mu.Lock()
	l.arrivals[path] = append(l.arrivals[path], a)
	n := len(l.arrivals[path])
	l.mu.Unlock()
	decided, err := l.index.decided(method, path)
	if err != nil {
		l.problem("reading the log: %v", err)
	} else if decided < n {
		l.problem("%s %s arrived %d times, and the log had %d decisions", method, path, n, decided)
	}
	return a
}

// saw notes the body of an arrival.
func (l *ledger) saw(a *arrival, body *summed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.sum, a.n, a.whole = body.hex(), body.n, body.all
}

func (l *ledger) left(a *arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.closed = true
}
