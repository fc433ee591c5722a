package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	quick, noMicro bool
	floor, calls   bool
	only           string
	out, short     string
	profile        string
	role, dir      string
	listen, origin string
	passes         int
	window         time.Duration
	peers          string
	also           []string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.quick, "quick", false, "one pass of short windows: figures are rough")
	f.BoolVar(&o.noMicro, "no-micro", false, "leave growth and the in-process figures out")
	f.StringVar(&o.only, "only", "", "rows whose name matches this `regexp`; growth is one, and no in-process figures")
	f.StringVar(&o.out, "o", "", "also write the report to `FILE`")
	f.StringVar(&o.short, "short", "", "also write the table in short into `FILE`, between its marks")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of the engine under the first row of -only to `FILE` and stop")
	f.IntVar(&o.passes, "passes", 0, "passes in place of 3")
	f.DurationVar(&o.window, "window", 0, "measured time of a cell in a pass, in place of 1.5s")
	f.StringVar(&o.peers, "peers", "", "peers whose name matches this `regexp`")
	f.Func("also", "another engine `BINARY` to measure beside this tree's, as often as given", func(name string) error {
		o.also = append(o.also, name)
		return nil
	})
	f.BoolVar(&o.floor, "floor", false, "also measure the least that a proxy in Go can do; only small bodies")
	f.BoolVar(&o.calls, "calls", false, "also print what each proxy asks of the kernel for one unit of steady load")
	f.StringVar(&o.role, "role", "", "be the peer `NAME`; the harness starts itself so")
	f.StringVar(&o.dir, "dir", "", "with -role: where the keys are")
	f.StringVar(&o.listen, "listen", "", "with -role: address to listen on")
	f.StringVar(&o.origin, "origin", "", "with -role: address of the origin")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.short != "" && (o.only != "" || o.peers != "") {
		return errors.New("-short writes the table of all rows and peers: leave -only and -peers out")
	}
	switch o.role {
	case "":
	case roleNamed:
		return execNamed(o.dir, f.Args())
	default:
		return serveRole(o.role, o.dir, o.listen, o.origin)
	}
	return measureAll(ctx, o, stdout, stderr)
}

func measureAll(ctx context.Context, o options, stdout, stderr io.Writer) error {
	began := time.Now()
	size := fullSizes()
	if o.quick {
		size = quickSizes()
	}
	if o.passes > 0 {
		size.passes = o.passes
	}
	if o.window > 0 {
		size.window = o.window
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	who, err := regexp.Compile(o.peers)
	if err != nil {
		return err
	}
	l, err := newLab(ctx, size, stderr)
	if err != nil {
		return err
	}
	defer l.close()
	l.only, l.calls = only, o.calls
	if o.profile != "" {
		return l.profile(ctx, o.profile)
	}
	l.peers = slices.DeleteFunc(l.peers, func(p peer) bool { return !who.MatchString(p.name) })
	if o.floor {
		p := goPeer(floorName, runtime.Version())
		p.small, p.ours = true, true
		l.peers = append(l.peers, p)
	}
	for _, binary := range o.also {
		p := enginePeer(binary, "", variant{})
		p.name = filepath.Base(binary)
		l.peers = append(l.peers, p)
	}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	if !o.noMicro {
		if err := l.measureBeside(ctx, o.only == "", res, stderr); err != nil {
			return err
		}
	}
	report := l.markdown(res, time.Since(began))
	if _, err := stdout.Write(report); err != nil {
		return err
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, report, 0o644); err != nil {
			return err
		}
	}
	if o.short == "" {
		return nil
	}
	return writeShort(o.short, l.short(res))
}

// measureBeside measures what is no row of the table: growth, if that is asked
// for, and in a run of everything what has no peer.
func (l *lab) measureBeside(ctx context.Context, everything bool, res *results, stderr io.Writer) (err error) {
	if everything || l.only.MatchString("growth") {
		if res.grown, err = l.measureGrowth(ctx); err != nil {
			return err
		}
	}
	if !everything {
		return nil
	}
	fmt.Fprintln(stderr, "in the process")
	if res.micros, err = measureMicros(l.dir, l.size.benchtime); err != nil {
		return err
	}
	fmt.Fprintln(stderr, "the log")
	res.log, err = l.measureLog(ctx)
	return err
}
