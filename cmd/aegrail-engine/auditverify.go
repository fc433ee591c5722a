package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

func auditVerifyCommand(w *world) *cobra.Command {
	var o auditOptions
	var proof string
	c := &cobra.Command{
		Use:   "verify FILE…",
		Short: "Check that no record was changed, removed or inserted",
		Long: "Check the chain of the files, which are read in the order given as one log; - is standard\n" +
			"input, and what gzip compressed is read as it was. Exits 1 at the first thing that is not as\n" +
			"the engine wrote it.\n\n" +
			"--key authenticates the log: it takes the verifier key that the engine prints at its start,\n" +
			"from somewhere else than the log. --anchor finds an end that was cut off and a log that was\n" +
			"written anew: it takes checkpoints that were kept elsewhere. --proof checks what `audit prove`\n" +
			"wrote against the record, which FILE has, alone or among others.",
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if proof != "" {
				if o.anchor != "" {
					return usagef(c, "--proof and --anchor: a proof is checked against its own checkpoint; give one of them")
				}
				return verifyProof(w, args, proof, &o)
			}
			return verifyLog(w, args, &o)
		},
	}
	o.define(c)
	c.Flags().StringVar(&proof, "proof", "", "check the proof in `FILE` for a record instead of the log")
	return c
}

func auditProveCommand(w *world) *cobra.Command {
	var o auditOptions
	var seq uint64
	var out string
	c := &cobra.Command{
		Use:   "prove FILE… --seq N",
		Short: "Write the proof that one record is in the log",
		Long: "Verify the files and write the proof, less than 2 KiB, that the record with payload.seq N is\n" +
			"in the log of the newest checkpoint. Whoever has the record and the engine's verifier key can\n" +
			"check it without the log, by `audit verify RECORD --proof FILE --key KEY`. Files before the\n" +
			"record's own are not needed.",
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if seq == 0 {
				return usagef(c, "--seq N: which record is to be proven? The first of a log is 1")
			}
			return proveRecord(w, args, seq, out, &o)
		},
	}
	o.define(c)
	c.Flags().Uint64Var(&seq, "seq", 0, "the number `N` of the record, its payload.seq")
	c.Flags().StringVarP(&out, "output", "o", "", "write the proof to `FILE` (default standard output)")
	return c
}

// auditOptions are what a log is held against.
type auditOptions struct {
	keys   []string
	anchor string
}

func (o *auditOptions) define(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "verifier `KEY` of the log, or a file with one a line; may be repeated")
	f.StringVar(&o.anchor, "anchor", "", "`FILE` with checkpoints that were kept outside the log, or captured standard output")
}

// verify returns o for package audit. The caller calls close.
func (o *auditOptions) verify(w *world, files []string) (v audit.VerifyOptions, closing func(), err error) {
	v.Stdin = os.Stdin
	if v.Keys, err = parseKeys(o.keys); err != nil {
		return v, nil, badInput(err)
	}
	closing = func() {}
	if o.anchor != "" {
		f, err := os.Open(o.anchor)
		if err != nil {
			return v, nil, badInput(fmt.Errorf("reading the anchor: %w", err))
		}
		v.Anchor, closing = f, func() { f.Close() }
	}
	if p := newProgress(w.stderr, files); p != nil {
		v.Progress = p.at
		inner := closing
		closing = func() { p.clear(); inner() }
	}
	return v, closing, nil
}

// parseKeys reads each argument as keys, or else as the name of a file of keys.
func parseKeys(args []string) (checkpoint.Verifiers, error) {
	if len(args) == 0 {
		return checkpoint.Verifiers{}, nil
	}
	var all strings.Builder
	for _, arg := range args {
		text := arg
		if _, err := checkpoint.ParseVerifiers(arg); err != nil {
			data, ferr := readFile("verifier key", arg)
			switch {
			case ferr != nil && strings.Count(arg, "+") >= 2:
				return checkpoint.Verifiers{}, fmt.Errorf("--key: %w", err) // it was meant as a key
			case ferr != nil:
				return checkpoint.Verifiers{}, fmt.Errorf("--key: neither a verifier key, NAME+ID+KEY, nor a file with one: %w", ferr)
			}
			text = string(data)
			if _, err := checkpoint.ParseVerifiers(text); err != nil {
				return checkpoint.Verifiers{}, fmt.Errorf("--key %s: %w", arg, err)
			}
		}
		all.WriteString(text + "\n")
	}
	return checkpoint.ParseVerifiers(all.String())
}

func verifyLog(w *world, files []string, o *auditOptions) error {
	v, closing, err := o.verify(w, files)
	if err != nil {
		return err
	}
	report, err := audit.Verify(files, v)
	closing()
	var damage *audit.Damage
	switch {
	case errors.As(err, &damage):
		if report.Records > 0 {
			fmt.Fprintf(w.stdout, "%d records before the damage verify: ", report.Records)
			_ = report.Write(w.stdout) // what matters is on standard error
		}
		return fmt.Errorf("the log is damaged: %w", err)
	case errors.Is(err, audit.ErrUnauthenticated):
		if report.Records > 0 {
			fmt.Fprint(w.stdout, "the chain is intact: ")
			_ = report.Write(w.stdout) // what matters is on standard error
		}
		return err
	case err != nil:
		return badInput(err)
	}
	fmt.Fprint(w.stdout, "the chain is intact: ")
	return report.Write(w.stdout)
}

// unreadable marks err as the user's fault if a file that was named cannot be had.
func unreadable(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return badInput(err)
	}
	return err
}

func proveRecord(w *world, files []string, seq uint64, out string, o *auditOptions) error {
	v, closing, err := o.verify(w, files)
	if err != nil {
		return err
	}
	proof, err := audit.Prove(files, seq, v)
	closing()
	var damage *audit.Damage
	switch {
	case errors.As(err, &damage):
		return fmt.Errorf("the log is damaged: %w", err)
	case err != nil:
		return unreadable(err)
	}
	c, _, err := checkpoint.Open(proof.Note, checkpoint.Verifiers{})
	if err != nil {
		return err
	}
	b := proof.Marshal()
	if out == "" {
		_, err = w.stdout.Write(b)
		return err
	}
	if err := os.WriteFile(out, b, 0o644); err != nil { //nolint:gosec // a proof is made to be handed on
		return fmt.Errorf("writing the proof: %w", err)
	}
	fmt.Fprintf(w.stderr, "record %d is among the %d that %s signed at %s; the proof is in %s\n",
		seq, c.Size, c.Origin, c.Time.Format(time.RFC3339), out)
	return nil
}

func verifyProof(w *world, files []string, name string, o *auditOptions) error {
	proof, err := readFile("proof", name)
	if err != nil {
		return badInput(err)
	}
	v, closing, err := o.verify(w, files)
	if err != nil {
		return err
	}
	found, err := audit.VerifyProof(files, proof, v)
	closing()
	if err != nil {
		return unreadable(fmt.Errorf("%s does not prove it: %w", name, err))
	}
	c := &found.Checkpoint
	fmt.Fprintf(w.stdout, "record %d, %s of %s, is in the log %s: one of the %d records of its checkpoint of %s\n",
		found.Seq, found.Event, found.TS, c.Origin, c.Size, c.Time.Format(time.RFC3339))
	if found.Authenticated {
		fmt.Fprintln(w.stdout, "authenticated: the checkpoint is signed by a key that was given")
	} else {
		fmt.Fprintln(w.stdout, "unauthenticated: no key was given to check the checkpoint with (--key); whoever made the proof could have made the log")
	}
	return nil
}

// progress is a line on a terminal that says how far the reading has come.
type progress struct {
	out   io.Writer
	total int64 // bytes of all files; 0: not known
	now   func() time.Time
	begun time.Time
	shown time.Time
}

// newProgress returns nil where out is no terminal.
func newProgress(out io.Writer, files []string) *progress {
	if !terminal(out) {
		return nil
	}
	return &progress{out: out, now: time.Now, total: totalSize(files)}
}

// totalSize returns how many bytes the files have, 0 if one is no file.
func totalSize(files []string) (total int64) {
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			return 0
		}
		total += info.Size()
	}
	return total
}

// at takes the bytes read so far. What takes less than a moment shows nothing.
func (p *progress) at(n int64) {
	now := p.now()
	if p.begun.IsZero() {
		p.begun, p.shown = now, now
	}
	if now.Sub(p.shown) < 200*time.Millisecond {
		return
	}
	p.shown = now
	rate := float64(n) / 1e6 / now.Sub(p.begun).Seconds()
	if p.total > 0 {
		fmt.Fprintf(p.out, "\r\x1b[Kverifying: %d%% of %d MB, %.0f MB/s", min(100, 100*n/p.total), p.total/1e6, rate)
	} else {
		fmt.Fprintf(p.out, "\r\x1b[Kverifying: %d MB, %.0f MB/s", n/1e6, rate)
	}
}

// clear takes the line away, if there is one.
func (p *progress) clear() {
	if p.shown != p.begun {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
