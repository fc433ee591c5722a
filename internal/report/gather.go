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
	Files  []string            // of one log, in order; they are read twice, so "-" is refused
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

// errEnough ends the reading of a log that has grown since it was verified.
var errEnough = errors.New("enough")

// Gather verifies the files, reads them and counts. The error is an
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
	var err error
	if r.proof, err = audit.Verify(o.Files, o.Verify); err != nil {
		var damage *audit.Damage
		if !o.Unverified || !errors.As(err, &damage) {
			return nil, err
		}
		r.damage = err
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	r.c.settle()
	return r, nil
}

// read counts the records of all files: those that were verified and no more,
// or, of a damaged log, what can be read.
func (r *Report) read() error {
	for i, name := range r.o.Files {
		err := r.readFile(i, name)
		switch {
		case errors.Is(err, errEnough):
		case err != nil && r.damage != nil:
			r.unread = append(r.unread, fmt.Errorf("%s: %w", name, err))
		case err != nil:
			return fmt.Errorf("reading the log again: %s: %w", name, err)
		}
	}
	if r.damage == nil && (r.c.records != r.proof.Records || r.c.head != r.proof.Head) {
		return errors.New("the log was changed between verifying and reading it: it is not the log that was verified; try again")
	}
	return nil
}

func (r *Report) readFile(i int, name string) error {
	f, err := audit.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return audit.Read(f, func(e *audit.Entry) error {
		if r.damage == nil && r.c.records >= r.proof.Records {
			return errEnough
		}
		r.c.add(e, i)
		return nil
	})
}
