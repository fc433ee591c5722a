package report

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// Options says what to report on.
type Options struct {
	Files  []string            // of one log, in order; damaged ones are read twice, so "-" is refused
	Verify audit.VerifyOptions // how the log is verified

	// Unverified makes a report of a log that does not verify. The report
	// says in large letters what the damage is. A log that does verify is
	// reported as verified all the same.
	Unverified bool

	Since, Until time.Time // records from Since on and before Until; zero: no bound
	Policy       *Policy   // nil: rules that were never used cannot be told

	Now  time.Time // when the report is made
	Tool string    // what makes it, with its version
}

// Policy is a policy to compare the log with.
type Policy struct {
	File     string
	Revision string // of the compiled set, as the log would name it
	Docs     []v1alpha1.AgentPolicy
}

// Report is what Gather found. Its methods may be called more than once.
type Report struct {
	o      Options
	proof  audit.Report
	damage error   // nil: the log verified
	unread []error // what could not be read of a damaged log
	c      *collector
}

// Gather verifies the files and counts what it verified. The error is an
// *audit.Damage, possibly wrapped, if the log does not verify and o.Unverified
// is not set, and otherwise one of reading a file.
func Gather(o Options) (*Report, error) {
	switch {
	case len(o.Files) == 0:
		return nil, errors.New("a report of an audit log: no file given")
	case slices.Contains(o.Files, "-"):
		return nil, errors.New("a report of an audit log: standard input cannot be read twice; write it to a file first")
	case !o.Since.IsZero() && !o.Until.IsZero() && !o.Since.Before(o.Until):
		return nil, fmt.Errorf("a report of an audit log: nothing is both since %s and before %s", o.Since.Format(time.RFC3339), o.Until.Format(time.RFC3339))
	}
	r := &Report{o: o, c: newCollector(o.Since, o.Until)}
	o.Verify.Each = func(file int, e *audit.Entry) { r.c.add(e, file) }
	var err error
	if r.proof, err = audit.Verify(o.Files, o.Verify); err != nil {
		var damage *audit.Damage
		if !o.Unverified || !errors.As(err, &damage) {
			return nil, err
		}
		r.damage = err
		r.c = newCollector(o.Since, o.Until)
		r.read()
	}
	r.c.settle()
	return r, nil
}

// read counts what can be read of a damaged log.
func (r *Report) read() {
	for i, name := range r.o.Files {
		if err := r.readFile(i, name); err != nil {
			r.unread = append(r.unread, fmt.Errorf("%s: %w", name, err))
		}
	}
}

func (r *Report) readFile(i int, name string) error {
	f, err := audit.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return audit.Read(f, func(e *audit.Entry) error {
		r.c.add(e, i)
		return nil
	})
}
