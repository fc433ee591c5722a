package audit

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// Durability says when a record counts as committed.
type Durability uint8

const (
	Written Durability = iota // write(2) returned: it survives the engine's death, not the machine's
	Strict                    // fsync(2) returned; files only
)

// String returns the word of --audit-durability.
func (d Durability) String() string {
	if d == Strict {
		return "strict"
	}
	return "written"
}

// Config says where the records go. One of File and Stdout must be set.
type Config struct {
	// File is the log and the truth. It is created with mode 0600 and locked.
	File string
	// Stdout takes the same lines. With a File it is a copy: what a slow
	// reader does not take in time is dropped, counted and never waited for.
	// Without one it is the truth: a write that blocks, blocks every request.
	Stdout io.Writer

	Durability Durability
	// Identity is the engine's own agent_identity, and stands in where an agent
	// is not known. Valid UTF-8, up to 512 bytes; "aegrail-engine" if empty.
	Identity string
	// PolicyRevision and Start go into engine_start: Start has facts such as
	// "version" and "policy_file", and no secrets. At most 32 of them.
	PolicyRevision string
	Start          map[string]string

	// Key returns what signs a checkpoint of the log at the start, every
	// CheckpointEvery (default 10 s) also when idle, at each rotation and at the
	// end. It is asked once, when the file is locked: a key that has to be made is
	// then made by one engine, and for a log that can be had. nil: no checkpoints.
	Key             func() (*checkpoint.Signer, error)
	CheckpointEvery time.Duration
	// OnCheckpoint takes each checkpoint once what it covers is on the disk. It
	// is called with the log locked: it must not block and not use the log.
	OnCheckpoint func(size uint64, note []byte)
	// Checkpoints takes the records of checkpoints alone, for where Stdout does
	// not take all. Like a copy on Stdout it is never waited for.
	Checkpoints io.Writer
	// Anchored is the last checkpoint that is known from outside. A file that
	// does not continue what it covers is not opened. nil: nothing is known.
	Anchored *checkpoint.Checkpoint
	Rotate   Rotation

	Refusals RefusalLimits
	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger     // nil: silent

	fs      fileSystem
	elapsed func() time.Duration // monotonic time; nil: what Now's values carry
}

// ErrClosed is the answer of a closed log.
var ErrClosed = errors.New("audit log: closed")

// Receipt proves that the decision to forward a request was committed. Only
// Decide makes one, and only for an egress_allowed decision. The zero value
// covers nothing.
type Receipt struct {
	seq, id uint64
	attempt int
}

// Covers reports whether r is the receipt of the request id.
func (r Receipt) Covers(id uint64) bool { return r.seq != 0 && r.id == id }

// Seq returns the number of the record, from 1.
func (r Receipt) Seq() uint64 { return r.seq }

// Attempt returns which attempt at forwarding was recorded.
func (r Receipt) Attempt() int { return r.attempt }

// Log is an open audit log. All methods may be called from any goroutine.
type Log struct {
	c       Config
	now     func() time.Time
	session string
	logger  *slog.Logger
	signer  *checkpoint.Signer // nil: no checkpoints

	mu        sync.Mutex
	enc       encoder
	state     chainState // behind the last record encoded
	committed chainState // behind the last record committed
	lastWall  time.Time  // of the last record encoded
	lastMono  time.Duration
	cur       *batch // takes records; owned by no leader yet
	free      []*batch
	writing   bool // a leader, or an inspection, is outside mu and owns sink
	closing   bool // Close was called
	closed    bool
	fault     fault
	refusals  refusals
	stats     Stats
	wanted    bool // the next batch ends with a checkpoint
	unsynced  *unsynced
	published []byte // the last note that was handed on

	checkpoints sync.Mutex // held while one is made; before mu
	announced   *copier

	torn                        []*tornTail // found at the start, to be recorded behind it
	retained                    uint64      // seq up to which removals were recorded; owned by watch
	rotateAfter                 time.Time   // not before, as it has just failed
	rotations, rotationFailures atomic.Int64

	sink sink // owned by whoever set writing

	stop    chan struct{}
	stopped sync.WaitGroup
}

// Open opens or creates the log, resumes its chain and commits engine_start.
// After a crash and after a clean stop this is the same path: see resume.
func Open(c Config) (*Log, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	l := &Log{c: c, now: c.Now, logger: c.Logger, stop: make(chan struct{})}
	if l.now == nil {
		l.now = time.Now
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.c.fs == nil {
		l.c.fs = osFS{}
	}
	if l.c.Identity == "" {
		l.c.Identity = "aegrail-engine"
	}
	l.session = newSession(l.now())
	l.enc = encoder{session: l.session, identity: l.c.Identity, hash: newFollower().hash}
	l.refusals.limits = c.Refusals.withDefaults()
	l.cur = l.newBatch()

	facts := &engineFacts{durability: c.Durability.String(), engine: c.Start}
	l.sink = sink{fs: l.c.fs, path: c.File, logger: l.logger, anchored: c.Anchored, locked: l.takeKey}
	if c.File != "" {
		t, err := l.sink.resume(l.now())
		if err != nil {
			return nil, err
		}
		l.state, l.committed = t.chainState, t.chainState
		l.lastWall = t.last
		facts.resumed = t.has
		if len(t.torn) > 0 {
			facts.torn, l.torn = t.torn[0], t.torn[1:]
		}
	} else {
		l.sink.out = c.Stdout
		if err := l.takeKey(); err != nil {
			return nil, err
		}
	}
	if c.File != "" && c.Stdout != nil {
		l.sink.copy = newCopier(c.Stdout)
	}
	if c.Checkpoints != nil {
		l.announced = newCopier(c.Checkpoints)
	}
	if err := l.begin(&Record{Event: EngineStart, PolicyRevision: c.PolicyRevision}, facts); err != nil {
		l.announced.close()
		return nil, errors.Join(err, l.sink.close())
	}
	l.stopped.Add(1)
	go l.watch()
	return l, nil
}

// begin commits and syncs the record of the start, and the first checkpoint.
func (l *Log) begin(start *Record, facts *engineFacts) error {
	l.mu.Lock()
	_, err := l.commit(start, facts)
	for _, t := range l.torn {
		if err == nil {
			_, err = l.commit(t.record())
		}
	}
	l.torn = nil
	l.mu.Unlock()
	if err == nil && l.signer == nil {
		err = l.sink.sync()
	}
	if err != nil {
		return err
	}
	return l.checkpoint() // which syncs
}

// takeKey asks for the key once.
func (l *Log) takeKey() error {
	if l.c.Key == nil || l.signer != nil {
		return nil
	}
	signer, err := l.c.Key()
	if err != nil {
		return err
	}
	l.signer = signer
	l.sink.keys, err = checkpoint.ParseVerifiers(signer.VerifierKey())
	return err
}

// VerifierKey returns what the log's checkpoints are verified with, or "".
func (l *Log) VerifierKey() string {
	if l.signer == nil {
		return ""
	}
	return l.signer.VerifierKey()
}

func (c *Config) check() error {
	switch {
	case c.File == "" && c.Stdout == nil:
		return errors.New("no audit log: give --audit-file, --audit-stdout or both; nothing is forwarded without a record")
	case c.Durability > Strict:
		return fmt.Errorf("audit durability %d: use written or strict", c.Durability)
	case c.Durability == Strict && c.File == "":
		return errors.New("audit durability strict needs a file: give --audit-file, or use written")
	case !utf8.ValidString(c.Identity) || len(c.Identity) > maxName:
		return fmt.Errorf("agent identity: must be UTF-8 of up to %d bytes", maxName)
	case len(c.Start) > 32:
		return fmt.Errorf("%d facts for engine_start: at most 32", len(c.Start))
	}
	for k := range c.Start {
		if !plain(k) {
			return fmt.Errorf("fact %.40q for engine_start: the name must be UTF-8 of up to %d bytes", k, maxName)
		}
	}
	return c.Rotate.check()
}

// newSession returns sess_<unix ms>_<16 hex>.
func newSession(at time.Time) string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand aborts the process instead
	return fmt.Sprintf("sess_%d_%s", at.UnixMilli(), hex.EncodeToString(id[:]))
}

// SessionID returns the id of this start of the engine.
func (l *Log) SessionID() string { return l.session }

// Decide commits the decision on a request, or on one more attempt at it, and
// returns when it is committed. The Receipt covers r.ID if r says
// egress_allowed, and nothing otherwise. With an error nothing is to be
// forwarded: the record is not in the log, or cannot be relied on to be.
// ErrBudget means that the agent's refusals have used up its records.
func (l *Log) Decide(r *Record) (Receipt, error) {
	if r.Phase != PhaseDecision || r.Event.String() == "" {
		return Receipt{}, errors.New("audit log: Decide takes a decision with an event")
	}
	l.mu.Lock()
	if l.refusals.over > 0 && l.refusals.exhausted(r, l.now()) {
		l.mu.Unlock()
		return Receipt{}, ErrBudget
	}
	seq, err := l.commit(r, nil)
	l.mu.Unlock()
	if err != nil || r.Event != EgressAllowed {
		return Receipt{}, err
	}
	return Receipt{seq: seq, id: r.ID, attempt: r.Attempt}, nil
}

// Complete commits what became of a request, or any other record that is not a
// decision (engine_heartbeat with a Reason, for one). An error latches: the
// record is counted as lost, Err says so, and nothing is decided until the log
// takes records again.
func (l *Log) Complete(r *Record) error {
	if r.Phase == PhaseDecision || r.Event.String() == "" {
		return errors.New("audit log: Complete takes a record with an event that is not a decision")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.commit(r, nil)
	if err != nil {
		l.fault.lost++
	}
	return err
}

// Err returns why the log takes no records, or nil: readiness goes by it.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return l.fault.err
}

// Close commits what is pending and engine_shutdown, syncs the file and lets
// go of it. Records of requests that are still running are lost, so the
// callers finish first.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return nil
	}
	l.closing = true
	err := l.flushRefusals()
	_, last := l.commit(&Record{Event: EngineShutdown}, nil)
	l.mu.Unlock()
	if last == nil {
		last = l.checkpoint()
	}
	l.mu.Lock()
	l.closed = true
	for l.writing || len(l.cur.buf) > 0 {
		// A request was still running, or a full file has just become a segment: let
		// that go out before the file does.
		if err := l.join(l.cur); last == nil {
			last = err
		}
	}
	l.mu.Unlock()
	close(l.stop)
	l.stopped.Wait()
	l.announced.close()
	return errors.Join(err, last, l.sink.syncAndClose())
}
