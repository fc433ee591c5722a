// Package flagenv gives flags that are not on the command line the values of
// their variables. It reads no environment itself: that is the programs' alone.
package flagenv

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Read sets each flag of f that was not on the command line to the first of its
// variables that is set: AEGRAIL_ENGINE_AUDIT_FILE for the prefix AEGRAIL_ENGINE_
// and the flag audit-file, then those of aliases, which may be nil. An empty variable counts as unset: that is how a chart renders a value
// that nobody chose. The error is of the first value that does not fit, and
// names its variable.
func Read(f *pflag.FlagSet, prefix string, aliases func(flag string) []string, getenv func(string) string) error {
	var failed error
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed || failed != nil || flag.Name == "help" {
			return
		}
		names := []string{prefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))}
		if aliases != nil {
			names = append(names, aliases(flag.Name)...)
		}
		for _, name := range names {
			v := strings.TrimSpace(getenv(name))
			if v == "" {
				continue
			}
			if err := flag.Value.Set(v); err != nil {
				failed = fmt.Errorf("%s=%q: %w", name, v, err)
			}
			return
		}
	})
	return failed
}
