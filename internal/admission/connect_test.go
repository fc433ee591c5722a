package admission

import (
	"strings"
	"testing"
)

const log = "/var/log/aegrail/audit.log"

func TestOnlyWhatReadsTheLogIsRunInTheEngine(t *testing.T) {
	for _, line := range []string{
		"show " + log, "show -- " + log, "show --raw " + log, "show " + log + " --json=true", "show --host *.example --seq 4-9 " + log,
		"show --agent support/bot " + log, "show --agent=support/bot " + log, "show --host=-x " + log, "show " + log + ".1.gz " + log,
		"tail " + log, "tail -n 5 " + log, "tail -n5 " + log, "tail -n=5 " + log, "tail --lines=5 " + log, "tail --lines 5 " + log,
		"verify " + log, "verify --anchor " + log + ".anchor " + log, "verify --anchor=" + log + ".anchor " + log, "verify --proof " + log + ".proof " + log,
		"verify --key bot+0a1b2c3d+AfH/x+y= --key=other+0a1b2c3d+Af== " + log,
		"prove --seq 5 " + log, "prove " + log + " --seq=5",
		"report " + log, "report --html --since 24h " + log, "report --format=html --unverified " + log,
	} {
		if !readsLog(strings.Fields("/aegrail-engine audit " + line)) {
			t.Errorf("%s: is refused", line)
		}
	}
	for _, line := range []string{
		// What writes a file, in every way to say it.
		"report " + log + " -o " + log, "report -o" + log + " " + log, "report -o=" + log + " " + log, "report --output " + log + " " + log,
		"report --output=" + log + " " + log, "report " + log + " -o report.html", "prove " + log + " --seq 5 -o " + log,
		"prove --seq 5 -o" + log + " " + log, "prove --seq 5 --output=" + log + " " + log, "prove --seq 5 -o x " + log,

		// A value that pflag takes, and that looks like a flag or the end of flags.
		"report --since -- -o " + log, "report --since -- -o" + log + " " + log, "report --since --html -o " + log, "tail -n -o " + log, "tail -n -- " + log,
		"report --html -o " + log, "report --html=true -o " + log,

		// Flags of another command, unknown ones, abbreviations, and short ones in one word.
		"show -n 5 " + log, "tail --since 1h " + log, "show --output x " + log, "show --ho x " + log, "tail -xn5 " + log, "tail -on5 " + log, "report -ho" + log,
		"report --policy " + log + " " + log, "verify --key " + log + " " + log, "verify --key=token " + log,
		"verify --key /var/run/secrets/x+0a1b2c3d+Af== " + log, "verify --key x+token+y " + log, "verify --key x+0a1b2c3d " + log,
		"show - " + log, "show -- - " + log, "show ---raw " + log, "show --=x " + log,

		// Other files.
		"show audit.log", "show /etc/passwd", "show -- /etc/passwd", "show -- --raw", "show " + log + ".key", "verify --proof /var/run/secrets/aegrail/token " + log,
		"verify --proof=token " + log, "verify --anchor x " + log, "verify --anchor " + log + ".key " + log, "verify --anchor", "verify --anchor --proof " + log,

		"key " + log, "", "-o " + log,
	} {
		if readsLog(strings.Fields("/aegrail-engine audit " + line)) {
			t.Errorf("%s: is let through", line)
		}
	}
}
