package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// tailOptions are the flags of audit tail.
type tailOptions struct {
	raw, asJSON bool
	filter      audit.Filter
	last        uint64
}

func auditTailCommand(w *world) *cobra.Command {
	o := new(tailOptions)
	c := &cobra.Command{
		Use:   "tail FILE",
		Short: "Print the end of a log, and what is written to it from now on",
		Long: "Print the last records of a log and go on with those that are written, across rotation, until\n" +
			"it is interrupted. FILE is the active file, that of --audit-file. This does not verify them.",
		Example: "  aegrail-engine audit tail --verdict denied audit.log",
		Args:    takes(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if o.raw && o.asJSON {
				return usagef(c, "--raw and --json: give one of them")
			}
			if err := o.filter.Check(); err != nil {
				return badInput(err)
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return tail(ctx, args[0], o, w)
		},
	}
	f := c.Flags()
	f.Uint64VarP(&o.last, "lines", "n", 10, "begin with the last `N` records, of which the filters take theirs")
	f.BoolVar(&o.raw, "raw", false, "the lines as they stand in the file")
	f.BoolVar(&o.asJSON, "json", false, "one flat JSON object a record")
	filterFlags(f, &o.filter)
	return c
}

// tail prints until ctx ends, which is no error.
func tail(ctx context.Context, file string, o *tailOptions, w *world) error {
	first, last, err := audit.Span(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = badInput(err)
		}
		return err
	}
	format := audit.Table
	switch {
	case o.raw:
		format = audit.Raw
	case o.asJSON:
		format = audit.JSON
	}
	out := bufio.NewWriter(w.stdout)
	from := max(first, last-min(last, o.last)+1)
	err = audit.Follow(ctx, file, audit.FollowOptions{From: from, Idle: out.Flush}, func(e *audit.Entry) error {
		if !o.filter.Match(e) {
			return nil
		}
		line, err := e.Format(format)
		if err == nil {
			_, err = fmt.Fprintf(out, "%s\n", line)
		}
		return err
	})
	if ferr := out.Flush(); err == nil || ctx.Err() != nil {
		return ferr
	}
	return err
}
