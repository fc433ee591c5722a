package flagenv_test

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/flagenv"
)

func TestAFlagTakesTheFirstOfItsVariablesThatIsSet(t *testing.T) {
	for what, row := range map[string]struct {
		args      []string
		env       map[string]string
		want, bad string
	}{
		"nothing is set":                {want: "0"},
		"its variable":                  {env: map[string]string{"X_MAX_SIZE": " 7\n"}, want: "7"},
		"another one that it has":       {env: map[string]string{"OLD": "8"}, want: "8"},
		"both":                          {env: map[string]string{"X_MAX_SIZE": "7", "OLD": "8"}, want: "7"},
		"an empty one and another":      {env: map[string]string{"X_MAX_SIZE": " ", "OLD": "8"}, want: "8"},
		"the command line beats it":     {args: []string{"--max-size=9"}, env: map[string]string{"X_MAX_SIZE": "no number"}, want: "9"},
		"one that does not fit":         {env: map[string]string{"X_MAX_SIZE": "big"}, want: "0", bad: `X_MAX_SIZE="big": want a whole number`},
		"one that no flag reads (help)": {env: map[string]string{"X_HELP": "true"}, want: "0"},
	} {
		f := pflag.NewFlagSet("t", pflag.ContinueOnError)
		size, help := f.Int("max-size", 0, ""), f.Bool("help", false, "")
		if err := f.Parse(row.args); err != nil {
			t.Fatal(err)
		}
		err := flagenv.Read(f, "X_", func(flag string) []string {
			if flag == "max-size" {
				return []string{"OLD"}
			}
			return nil
		}, func(name string) string { return row.env[name] })
		if row.bad == "" && err != nil || row.bad != "" && (err == nil || !strings.Contains(err.Error(), row.bad)) {
			t.Errorf("%s: %v", what, err)
		}
		if got := f.Lookup("max-size").Value.String(); got != row.want || *help {
			t.Errorf("%s: %s (%d), want %s", what, got, *size, row.want)
		}
	}
}

func TestAVariableThatNoFlagReadsIsFound(t *testing.T) {
	f := pflag.NewFlagSet("t", pflag.ContinueOnError)
	f.String("policy", "", "")
	aliases := func(string) []string { return []string{"X_OLD"} }
	for environ, want := range map[string]string{
		"X_POLICY=a":              "",
		"X_OLD=a":                 "",
		"X_ALLOWLIST=a":           "",
		"X_POLCY=a":               "X_POLCY",
		"X_POLCY=":                "", // as a chart renders what nobody chose
		"Y_POLCY=a":               "",
		"x_policy=a":              "",
		"X_PORT=8080":             "X_PORT",
		"X_LISTEN_PORT=8080":      "X_LISTEN_PORT",
		"X_PORT=tcp://10.0.0.1:1": "", // a Service named x
		"X_ADMIN_PORT=tcp://1:1":  "", // a Service named x-admin
		"X_SERVICE_HOST=10.0.0.1": "",
		"X_SERVICE_PORT=80":       "",
		"X_SERVICE_PORT_HTTP=80":  "",
		"X_PORT_80_TCP=tcp://1:1": "",
		"X_PORT_80_TCP_PORT=80":   "",
		"X_SERVICES=80":           "X_SERVICES",
	} {
		if got := flagenv.Unknown(f, "X_", aliases, []string{"X_ALLOWLIST"}, []string{"PATH=/bin", environ}); got != want {
			t.Errorf("%s: %q, want %q", environ, got, want)
		}
	}
}
