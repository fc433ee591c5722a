package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type options struct {
	lasts  time.Duration
	seed   uint64
	agents int
	dir    string
	inside bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var o options
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.DurationVar(&o.lasts, "for", 30*time.Minute, "how long")
	f.Uint64Var(&o.seed, "seed", 0, "what choices are made from; 0 for another each time")
	f.IntVar(&o.agents, "agents", 16, "agents at once")
	f.StringVar(&o.dir, "dir", "", "keep everything in `DIR`, which must be empty; default a directory that is removed")
	f.BoolVar(&o.inside, "inside", false, "the namespaces are there; soak starts itself so")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.inside {
		return soak(ctx, o, stdout)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "aegrail-soak-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(o.dir, "aegrail-engine"), "./cmd/aegrail-engine")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the engine: %w: %s", err, out)
	}
	fmt.Fprintf(stdout, "soak: %v, seed %d, %d agents\n", o.lasts, o.seed, o.agents)
	return enter([]string{"-inside", "-for", o.lasts.String(), "-seed", fmt.Sprint(o.seed), "-agents", fmt.Sprint(o.agents), "-dir", o.dir}, stdout, stderr)
}

// bench is a run's parts.
type bench struct {
	options
	out     io.Writer
	ledger  *ledger
	engine  *engine
	world   *world
	rng     *rand.Rand
	samples []sample
	reloads [2]int // of the policy, of the authority
}

// soak is the run, inside.
func soak(ctx context.Context, o options, out io.Writer) error {
	if err := furnish(o.dir); err != nil {
		return err
	}
	names, err := serveNames()
	if err != nil {
		return err
	}
	defer func() { _ = names.Shutdown() }()
	good, err := newRoot("the origins' root")
	if err != nil {
		return err
	}
	bad, err := newRoot("nobody's root")
	if err != nil {
		return err
	}
	b := &bench{options: o, out: out, rng: rand.New(rand.NewPCG(o.seed, 0))}
	b.ledger = newLedger(newIndex(filepath.Join(o.dir, "audit.jsonl")))
	if b.world, err = startWorld(b.ledger, good, bad); err != nil {
		return err
	}
	defer b.world.end()
	if b.engine, err = startEngine(ctx, filepath.Join(o.dir, "aegrail-engine"), o.dir, good.pem()); err != nil {
		return err
	}
	defer func() { _ = b.engine.cmd.Process.Kill() }() // where stop was not reached
	return b.measure(ctx)
}

// measure is what happens between the engine's start and its end.
func (b *bench) measure(ctx context.Context) error {
	idle, err := b.engine.goroutines()
	if err != nil {
		return err
	}
	heap, err := b.engine.heap()
	if err != nil {
		return err
	}
	began := time.Now()
	b.traffic(ctx)
	took := time.Since(began)
	b.leaks(ctx, idle, heap)
	if err := b.engine.stop(); err != nil {
		b.ledger.problem("%v", err)
	}
	said, err := b.engine.verify(context.WithoutCancel(ctx))
	if err != nil {
		b.ledger.problem("%v", err)
	}
	if _, err := b.ledger.index.decided("", ""); err != nil {
		b.ledger.problem("reading the log to its end: %v", err)
	}
	b.world.end()
	(&judge{l: b.ledger, revisions: b.engine.revisions}).all()
	if n := b.world.trapped.Load(); n > 0 {
		b.ledger.problem("%d connections came to where no rule leads", n)
	}
	return b.report(took, said)
}

// traffic runs agents and reloads for as long as the run lasts.
func (b *bench) traffic(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, b.lasts)
	defer cancel()
	var ids atomic.Int64
	var all sync.WaitGroup
	for i := range b.agents {
		a, err := newAgent(b.ledger, &ids, rand.New(rand.NewPCG(b.seed, uint64(i+1))), b.engine.roots, b.engine.madeBy)
		if err != nil {
			b.ledger.problem("an agent: %v", err)
			continue
		}
		all.Go(func() {
			defer a.close()
			a.run(ctx)
		})
	}
	all.Go(func() { b.reload(ctx) })
	all.Go(func() { b.watch(ctx) })
	all.Wait()
}

// reload changes the policy every few seconds and the authority now and then.
func (b *bench) reload(ctx context.Context) {
	for {
		next := time.NewTimer(time.Second + time.Duration(b.rng.IntN(4000))*time.Millisecond)
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return
		}
		var err error
		if b.rng.IntN(4) == 0 {
			b.reloads[1]++
			err = b.engine.reloadCA(ctx, b.reloads[1])
		} else {
			b.reloads[0]++
			err = b.engine.reloadPolicy(ctx, b.reloads[0], b.rng.IntN(2) == 0)
		}
		if err != nil && ctx.Err() == nil {
			b.ledger.problem("%v", err)
			return
		}
	}
}

// watch samples resident memory.
func (b *bench) watch(ctx context.Context) {
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.samples = append(b.samples, sample{time.Since(began), b.engine.resident()})
		case <-b.engine.exited:
			b.ledger.problem("the engine has ended: %s", b.engine.lastWords())
			return
		case <-ctx.Done():
			return
		}
	}
}

// leaks waits until the engine is idle as it was, and says what is left if it
// never is.
func (b *bench) leaks(ctx context.Context, idle map[string]int, heap int64) {
	ctx = context.WithoutCancel(ctx)
	// What was pooled for the policy before goes with it.
	if err := b.engine.reloadPolicy(ctx, b.reloads[0]+1, true); err != nil {
		b.ledger.problem("%v", err)
	}
	var more map[string]int
	if err := b.engine.await(ctx, func() bool {
		now, err := b.engine.goroutines()
		more = beyond(idle, now)
		return err == nil && len(more) == 0
	}); err != nil {
		for stack, n := range more {
			b.ledger.problem("%d goroutines are left, %d were there: %s", n, idle[stack], stack)
		}
	}
	now, err := b.engine.heap()
	if err != nil {
		b.ledger.problem("%v", err)
	}
	fmt.Fprintf(b.out, "goroutines beyond those of the idle engine: %d kinds; heap in use %.2f MiB before, %.2f after\n", len(more), float64(heap)/(1<<20), float64(now)/(1<<20))
}

// report prints what was done and what was wrong.
func (b *bench) report(took time.Duration, verified string) error {
	l, x := b.ledger, b.ledger.index
	total := 0
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(l.done)) {
		total += l.done[kind]
		kinds = append(kinds, fmt.Sprintf("  %7d %s", l.done[kind], kind))
	}
	arrived := 0
	for _, a := range l.arrivals {
		arrived += len(a)
	}
	segments, err := segmentsOf(b.engine.log())
	memory, grew := growth(b.samples)
	if grew {
		l.problem("memory grows: %s", memory)
	}
	fmt.Fprintf(b.out, "%d requests in %.0f s, %d arrivals, %d records in %d files, %d policies and %d authorities put in force\n%s\nmemory: %s\nverify: %s\n",
		total, took.Seconds(), arrived, x.records, len(segments)+1, b.reloads[0], b.reloads[1], strings.Join(kinds, "\n"), memory, verified)
	for _, p := range l.problems {
		fmt.Fprintln(b.out, "WRONG:", p)
	}
	for kind, n := range l.kinds {
		if n > keptProblems {
			fmt.Fprintf(b.out, "WRONG: %d more: %s\n", n-keptProblems, kind)
		}
	}
	if l.wrong > 0 {
		return errors.Join(fmt.Errorf("%d things were wrong; -seed %d makes the same choices", l.wrong, b.seed), err)
	}
	fmt.Fprintln(b.out, "nothing leaked, nothing lost, no wrong verdict, nothing forwarded that the log does not name")
	return err
}

func parsePEM(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
