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
		"one that does not fit":         {env: map[string]string{"X_MAX_SIZE": "big"}, want: "0", bad: `X_MAX_SIZE="big"`},
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
