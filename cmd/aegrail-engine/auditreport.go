package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	auditreport "github.com/arpitcoder/aegrail-engine/internal/report" // report is how this program ends
)

func auditReportCommand(w *world) *cobra.Command {
	var asHTML bool
	var format, policyName, out, since, until string
	o := auditreport.Options{Tool: "aegrail-engine " + readBuild().version}
	var against auditOptions
	c := &cobra.Command{
		Use:   "report FILE…",
		Short: "Say what a log shows, for an auditor",
		Long: "Verify the files as one log, and write what they show: what was denied and why, what left for\n" +
			"where, rules never used, limits hit, errors, what observe mode let pass, what nobody read, and\n" +
			"the records that are evidence for OWASP ASI02 and ASI03. Markdown, or one HTML page that needs\n" +
			"nothing else. Exits 1 if the log is damaged; with --unverified it reports all the same, and\n" +
			"says so in large letters.",
		Example: "  aegrail-engine audit report --html -o report.html audit.log\n" +
			"  aegrail-engine audit report --policy policy.yaml --since 24h audit.log",
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			render := (*auditreport.Report).Markdown
			switch {
			case format == "html" || asHTML && !c.Flags().Changed("format"):
				render = (*auditreport.Report).HTML
			case format != "markdown" || asHTML:
				return usagef(c, "--format %s: use markdown or html", format)
			}
			o.Files, o.Now = args, time.Now()
			if err := errors.Join(parseWhen("--since", since, &o.Since), parseWhen("--until", until, &o.Until)); err != nil {
				return badInput(err)
			}
			if err := reportPolicy(c, policyName, &o); err != nil {
				return err
			}
			var closing func()
			var err error
			if o.Verify, closing, err = against.verify(w, args); err != nil {
				return err
			}
			r, err := auditreport.Gather(o)
			closing()
			if err != nil {
				return reportFailed(err)
			}
			var page bytes.Buffer
			if err := render(r, &page); err != nil {
				return err
			}
			return writeReport(w, out, page.Bytes())
		},
	}
	against.define(c)
	f := c.Flags()
	f.BoolVar(&asHTML, "html", false, "short for --format html")
	f.StringVar(&format, "format", "markdown", "`FORMAT`: markdown or html")
	f.StringVar(&policyName, "policy", "", "policy `FILE`, to name its rules that were never used")
	f.StringVarP(&out, "output", "o", "", "write to `FILE` instead of standard output")
	f.StringVar(&since, "since", "", "only records from `TIME` on: RFC 3339, or how long ago (90m, 24h)")
	f.StringVar(&until, "until", "", "only records before `TIME`, likewise")
	f.BoolVar(&o.Unverified, "unverified", false, "report on a damaged log too")
	return c
}

// reportPolicy loads the policy to compare the log with, if one is named.
func reportPolicy(c *cobra.Command, name string, o *auditreport.Options) error {
	if name == "" {
		return nil
	}
	rules, err := mustLoad(c, name)
	if err != nil {
		return err
	}
	o.Policy = &auditreport.Policy{File: name, Revision: rules.set.Revision(), Docs: rules.docs}
	return nil
}

// reportFailed tells a damaged log, which is a finding, from files that cannot
// be read.
func reportFailed(err error) error {
	var damage *audit.Damage
	var path *fs.PathError
	switch {
	case errors.As(err, &damage):
		return fmt.Errorf("the log is damaged, so nothing is reported: %w\n  report on it all the same: --unverified", err)
	case errors.As(err, &path):
		return badInput(err)
	case errors.Is(err, audit.ErrUnauthenticated):
		return fmt.Errorf("nothing is reported: %w", err)
	default:
		return badInput(err)
	}
}

// writeReport writes to the file, or to standard output. Who may read a log is
// restricted, so what it says is too.
func writeReport(w *world, name string, page []byte) error {
	var err error
	if name == "" {
		_, err = w.stdout.Write(page)
	} else {
		err = os.WriteFile(name, page, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
