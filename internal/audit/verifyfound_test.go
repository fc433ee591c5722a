package audit

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// TestWhatAnEngineOnlyFoundIsNotPassedOffAsWhatItWrote has somebody write the
// file anew between two runs of an engine, which then signs it.
func TestWhatAnEngineOnlyFoundIsNotPassedOffAsWhatItWrote(t *testing.T) {
	s, file := signer(t), logFile(t)
	run := func(c Config) {
		c.File = file
		l := open(t, c)
		requests(t, l, 1, 2)
		closeLog(t, l)
	}
	own := Config{Key: key(s)}
	run(own)
	run(own)
	said := func(files ...string) string {
		t.Helper()
		rep, err := Verify(files, VerifyOptions{Keys: trusted(t, s)})
		check(t, err)
		var b strings.Builder
		check(t, rep.Write(&b))
		return b.String()
	}
	if got := said(file); strings.Contains(got, "as they were found") || !strings.Contains(got, "authenticated: records 1 to 15") {
		t.Errorf("of two runs that ended well: %s", got)
	}
	const suspect = "signed as they were found: records %d to %d"
	var warned syncBuffer
	own.Logger = slog.New(slog.NewTextHandler(&warned, nil))
	run(Config{}) // by somebody who has no key
	run(own)
	if got := said(file); !strings.Contains(got, fmt.Sprintf(suspect, 17, 22)) || !strings.Contains(warned.String(), "first_seq=17 last_seq=22") {
		t.Errorf("of records that were appended: %s\nand %s", got, warned.String())
	}
	check(t, os.Remove(file))
	run(Config{})
	run(own)
	if got := said(file); !strings.Contains(got, fmt.Sprintf(suspect, 1, 6)) {
		t.Errorf("of a log that was written anew: %s", got)
	}
	own.Rotate.Size = 4 << 10
	check(t, os.Remove(file))
	for range 3 {
		run(own)
	}
	all := files(t, file)
	if got := said(all...) + said(all[len(all)-1]); len(all) < 2 || strings.Contains(got, "as they were found") {
		t.Errorf("of %d segments: %s", len(all), got)
	}
}
