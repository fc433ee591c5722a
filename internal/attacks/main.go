package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "attacks:", err)
		os.Exit(1)
	}
}

type options struct {
	peers, only, out string
	flood            string
	verbose          bool
	generated        bool
	h2spec, floods   bool
	role, dir        string
	listen, keys     string
	upstream         string
	shipped          bool
	target, what     string
	during           time.Duration
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("attacks", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.peers, "peers", "", "peers whose name matches this `regexp`; \"none\" for the engine alone")
	f.StringVar(&o.only, "only", "", "rows whose id and words match this `regexp`")
	f.StringVar(&o.out, "o", "", "write the table to `FILE`")
	f.BoolVar(&o.generated, "generated", true, "the generated cases too, unless -only is given")
	f.BoolVar(&o.h2spec, "h2spec", true, "h2spec against the engine and the standard library, unless -only is given")
	f.BoolVar(&o.floods, "floods", true, "floods, with what they cost the engine, unless -only is given")
	f.StringVar(&o.flood, "flood", "", "nothing but floods whose row and words match this `regexp`")
	f.BoolVar(&o.verbose, "v", false, "print every row with its verdict and reason")
	f.StringVar(&o.role, "role", "", "be the proxy `NAME`; the harness starts itself so")
	f.StringVar(&o.dir, "dir", "", "with -role: where its own files are")
	f.StringVar(&o.listen, "listen", "", "with -role: address to listen on")
	f.StringVar(&o.keys, "keys", "", "with -role: where the keys are")
	f.StringVar(&o.upstream, "upstream", "", "with -role: the upstream's port")
	f.BoolVar(&o.shipped, "shipped", false, "with -role: the engine's limits as they are shipped")
	f.StringVar(&o.target, "target", "", "with -role honest or flood: the host")
	f.StringVar(&o.what, "what", "", "with -role flood: which")
	f.DurationVar(&o.during, "during", time.Second, "with -role honest or flood: how long")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.role != "" {
		return serveRole(o)
	}
	return attackAll(ctx, o, stdout, stderr)
}

func serveRole(o options) error {
	switch o.role {
	case engineName:
		return serveEngine(o)
	case floodName:
		return serveFlood(o, os.Stdout)
	case honestName:
		return serveHonest(o)
	case h2specName:
		return serveH2spec(o)
	case goproxyName:
		return serveGoproxy(o)
	case martianName:
		return serveMartian(o)
	case gomitmproxyName:
		return serveGomitmproxy(o)
	default:
		return fmt.Errorf("-role %s: no such role", o.role)
	}
}

const rowWorkers = 8 // attackers at once: more would make slow peers look as if they hung

// errThrough is the run's verdict on the engine.
var errThrough = errors.New("not every row was met by the engine")

func attackAll(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	l, err := newLab(stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if o.flood != "" {
		all, missing, err := l.measureFloods(ctx, o.flood)
		printFloods(stdout, all, missing)
		return err
	}
	cases, err := l.chosen(o.only)
	if err != nil {
		return err
	}
	proxies, missing, err := l.proxies(ctx, o.peers)
	if err != nil {
		return err
	}
	var all []*result
	for _, p := range proxies {
		fmt.Fprintln(stderr, "attacking", p.name, p.version)
		res, err := l.attack(ctx, p, cases, rowWorkers)
		if err != nil && p.name == engineName || ctx.Err() != nil {
			return fmt.Errorf("attacking %s: %w", p.name, err)
		}
		if err != nil {
			fmt.Fprintln(stderr, err)
			missing = append(missing, err.Error())
			continue
		}
		all = append(all, res)
		res.print(stdout, cases, o.verbose)
	}
	beside, err := l.beside(ctx, o, stdout)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, report(cases, all, beside, missing), 0o644); err != nil {
			return err
		}
	}
	if len(all[0].unmet(cases)) > 0 || beside.unmet() {
		return errThrough
	}
	return nil
}

// beside is what is no row of the catalogue.
type beside struct {
	generated   *generatedRun
	conformance *conformance
	floods      []measured
	noFloods    error // why some were not measured
}

func (b beside) unmet() bool {
	return b.generated != nil && len(b.generated.unmet) > 0 || b.conformance != nil && b.conformance.lower()
}

// beside runs what o asks for beside the rows.
func (l *lab) beside(ctx context.Context, o options, stdout io.Writer) (b beside, err error) {
	if o.only != "" {
		return b, nil
	}
	if o.generated {
		fmt.Fprintln(l.progress, "generated cases")
		if b.generated, err = l.attackGenerated(ctx); err != nil {
			return b, err
		}
		b.generated.print(stdout)
	}
	if o.h2spec {
		fmt.Fprintln(l.progress, "h2spec")
		if b.conformance, err = l.conform(ctx); err != nil {
			return b, err
		}
		b.conformance.print(stdout)
	}
	if o.floods {
		if b.floods, b.noFloods, err = l.measureFloods(ctx, ""); err != nil {
			return b, err
		}
		printFloods(stdout, b.floods, b.noFloods)
	}
	return b, nil
}

// chosen are the cases whose id and words match only.
func (l *lab) chosen(only string) (cases []caseOf, err error) {
	re, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	all := numbered(catalogue(), l.up.port)
	l.names = len(all)
	for _, c := range all {
		if re.MatchString(c.id + " " + c.what) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("no row matches %q", only)
	}
	return cases, nil
}

// proxies are the engine, and the peers that match who and can be had.
func (l *lab) proxies(ctx context.Context, who string) (all []proxy, missing []string, err error) {
	re, err := regexp.Compile(who)
	if err != nil {
		return nil, nil, err
	}
	all = []proxy{enginePeer(treeVersion(ctx))}
	for _, find := range peers() {
		p, err := find(ctx, re.MatchString)
		switch {
		case errors.Is(err, errNotWanted):
		case err != nil:
			missing = append(missing, err.Error())
		default:
			all = append(all, p)
		}
	}
	return all, missing, nil
}

// unmet says where r did not do what a row requires.
func (r *result) unmet(cases []caseOf) (all []string) {
	for i, f := range r.findings {
		if f.verdict != refused || f.why != "" {
			all = append(all, fmt.Sprintf("%s %s: %s %s", cases[i].id, cases[i].what, f.verdict, f.why))
		}
	}
	for _, err := range r.disagree {
		all = append(all, "the log: "+err.Error())
	}
	if r.unnamed > 0 {
		all = append(all, fmt.Sprintf("%d connections reached the upstream that belong to no row", r.unnamed))
	}
	return append(all, r.notes...)
}

func (r *result) print(w io.Writer, cases []caseOf, verbose bool) {
	var sum tally
	for i, f := range r.findings {
		sum[f.verdict]++
		if verbose {
			fmt.Fprintf(w, "%-12s %-4s %s: %s %s\n", r.name, cases[i].id, cases[i].what, f.verdict, f.why)
		}
	}
	fmt.Fprintf(w, "%s %s: %d rows in %.0f s: %d refused, %d normalised, %d through, %d n/a, %d failed\n", r.name, r.version,
		len(cases), r.took.Seconds(), sum[refused], sum[normalised], sum[through], sum[notApplicable], sum[failed])
	if r.name != engineName {
		return
	}
	for _, u := range r.unmet(cases) {
		fmt.Fprintln(w, "  "+u)
	}
}
