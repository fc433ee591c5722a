package inject

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Refusal is why a pod is not let in: one field, what is wrong with it, and what to do.
type Refusal struct {
	Field   string // like spec.containers[app].securityContext.privileged
	Problem string
	Fix     string
}

// Error is one line.
func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s; %s", r.Field, r.Problem, r.Fix) }

// Refusals are all that is wrong with a pod, in the order of its fields. They are never empty where they are an error.
type Refusals []*Refusal

// Error is one line for one, else a line each.
func (r Refusals) Error() string {
	if len(r) == 1 {
		return r[0].Error()
	}
	lines := make([]string, 0, len(r))
	for _, one := range r {
		lines = append(lines, "\n  "+one.Error())
	}
	return fmt.Sprintf("%d reasons:%s", len(r), strings.Join(lines, ""))
}

// Unwrap lets errors.As find a Refusal.
func (r Refusals) Unwrap() []error {
	out := make([]error, 0, len(r))
	for _, one := range r {
		out = append(out, one)
	}
	return out
}

// err is r as an error, nil if there is none.
func (r Refusals) err() error {
	if len(r) == 0 {
		return nil
	}
	return r
}

func (r *Refusals) add(at *field.Path, problem, fix string) {
	*r = append(*r, &Refusal{Field: at.String(), Problem: problem, Fix: fix})
}
