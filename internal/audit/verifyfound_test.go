package audit

import (
	"errors"
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

// TestTheLastCheckpointSaysNothingElse has somebody change the record of the last
// checkpoint, which no signature is over until the next engine starts, and leave
// its note as it is: the one record behind what is signed that no report names.
func TestTheLastCheckpointSaysNothingElse(t *testing.T) {
	w := witnessLog(t, 4, Config{})
	all := lines(t, w.file)
	last := len(all)
	const heartbeat, reason = `"event":"engine_heartbeat"`, `"reason":"checkpoint"`
	for name, c := range map[string][2]string{
		"a request":               {heartbeat, `"event":"egress_allowed"`},
		"the end of a request":    {reason, `"phase":"complete",` + reason},
		"an end that names one":   {`,"reason":`, `,"id":"0000000000000001","reason":`},
		"lost completions":        {reason, `"reason":"audit_recovered"`},
		"text for people":         {`,"reason":`, `,"detail":"all is well","reason":`},
		"another session":         {`"session_id":"sess_`, `"session_id":"sess_1`},
		"a note that is no text":  {`"checkpoint":"`, `"checkpoint":1,"checkpoint_was":"`},
		"no reason to be a note":  {`,` + reason, ``},
		"a note in another place": {reason, `"reason":"retention"`},
	} {
		b := rehash(t, strings.ReplaceAll(all[last-1], c[0], c[1]))
		if b == all[last-1] {
			t.Fatalf("%s: nothing was changed", name)
		}
		file := write(t, logFile(t), []byte(strings.Join(append(all[:last-1:last-1], b), "\n")+"\n"))
		rep, err := Verify([]string{file}, VerifyOptions{Keys: trusted(t, w.s)})
		var d *Damage
		if !errors.As(err, &d) || d.Line != int64(last) || !strings.Contains(d.What, "payload.checkpoint") {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
		if _, err := Open(Config{File: file, Key: key(w.s)}); err == nil {
			t.Errorf("%s: an engine goes on from it", name)
		}
	}
}
