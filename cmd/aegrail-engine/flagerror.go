package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/flagenv"
)

// flagError says what is wrong with a flag of c, and what was probably meant.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &invalid):
		flag := invalid.GetFlag()
		return usagef(c, "--%s %q: %v", flag.Name, invalid.GetValue(), flagenv.Explain(flag, errors.Unwrap(err)))
	case !errors.As(err, &unknown):
	case unknown.GetSpecifiedShortnames() != "":
		if name, _, _ := strings.Cut(unknown.GetSpecifiedShortnames(), "="); c.Flags().Lookup(name) != nil {
			return usagef(c, "-%s is a row of flags of one letter; write --%s", name, name)
		}
	default:
		if near := nearestFlag(c.Flags(), unknown.GetSpecifiedName()); near != "" {
			return usagef(c, "%v, did you mean --%s?", err, near)
		}
	}
	return usagef(c, "%v", err)
}

// nearestFlag is the flag of f that a typing error might have turned into name, or "".
func nearestFlag(f *pflag.FlagSet, name string) string {
	words := &cobra.Command{SuggestionsMinimumDistance: 2} // cobra knows what is near among commands
	f.VisitAll(func(flag *pflag.Flag) {
		words.AddCommand(&cobra.Command{Use: flag.Name, Run: func(*cobra.Command, []string) {}})
	})
	if near := words.SuggestionsFor(name); len(near) > 0 {
		return near[0]
	}
	return ""
}

// onePolicy is the value of --policy. Given twice it would drop one file in
// silence, and who gives two means both.
type onePolicy struct{ to *string }

// Set is pflag.Value's.
func (p *onePolicy) Set(file string) error {
	if *p.to != "" {
		return fmt.Errorf("%s is given already: put both policies into one file, with a line --- between them", *p.to)
	}
	*p.to = file
	return nil
}

// String is pflag.Value's.
func (p *onePolicy) String() string { return *p.to }

// Type is pflag.Value's.
func (*onePolicy) Type() string { return "string" }
