// Package flagenv gives flags that are not on the command line the values of
// their variables. It reads no environment itself: that is the programs' alone.
package flagenv

import (
	"fmt"
	"regexp"
	"slices"
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
		for _, name := range variables(flag.Name, prefix, aliases) {
			v := strings.TrimSpace(getenv(name))
			if v == "" {
				continue
			}
			if err := flag.Value.Set(v); err != nil {
				failed = fmt.Errorf("%s=%q: %w", name, v, Explain(flag, err))
			}
			return
		}
	})
	return failed
}

// variables are those of a flag, in the order in which they are tried.
func variables(flag, prefix string, aliases func(flag string) []string) []string {
	names := []string{Variable(prefix, flag)}
	if aliases != nil {
		names = append(names, aliases(flag)...)
	}
	return names
}

// Variable is the variable of a flag: AEGRAIL_ENGINE_AUDIT_FILE of audit-file.
func Variable(prefix, flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Unknown returns the first variable of environ (NAME=VALUE, as os.Environ has
// them) that begins with prefix, has a value, and is neither read for a flag of f nor
// among others; "" where there is none. A limit with a typing error in its name is
// no limit, so a program should not start with one. What kubelet makes of Services
// is nobody's typing error and is passed over.
func Unknown(f *pflag.FlagSet, prefix string, aliases func(flag string) []string, others, environ []string) string {
	known := slices.Clone(others)
	f.VisitAll(func(flag *pflag.Flag) { known = append(known, variables(flag.Name, prefix, aliases)...) })
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, prefix)
		if ours && strings.TrimSpace(value) != "" && !slices.Contains(known, name) && !ofService(rest, value) {
			return name
		}
	}
	return ""
}

// ofService reports a variable that kubelet sets for a Service whose name begins
// as ours do: X_SERVICE_HOST, X_SERVICE_PORT_HTTP, X_PORT, X_PORT_80_TCP_ADDR.
func ofService(name, value string) bool {
	address := (name == "PORT" || strings.HasSuffix(name, "_PORT")) && strings.Contains(value, "://")
	return address || serviceVariable.MatchString(name)
}

var serviceVariable = regexp.MustCompile(`(^|_)(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// Explain says what a flag takes, where err is of a value that it does not take and
// says no more than Go's parser does.
func Explain(flag *pflag.Flag, err error) error {
	want := map[string]string{
		"bool": "true or false", "duration": "a time like 10s or 5m",
		"int": "a whole number", "int64": "a whole number", "uint16": "a whole number from 0 to 65535", "uint32": "a whole number", "uint64": "a whole number",
	}[flag.Value.Type()]
	if want == "" {
		return err
	}
	return fmt.Errorf("want %s", want)
}
