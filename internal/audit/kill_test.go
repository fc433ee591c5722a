package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// kills is how often a writer is killed for each durability.
var kills = flag.Int("kills", 20, "how often TestL05Killed kills a writer, for each durability")

// writerArgs tells the test binary to be the writer that is killed.
const writerArgs = "AEGRAIL_TEST_KILLED_WRITER"

// beKilled is the writer's process. It returns in any other.
func beKilled() {
	args := os.Getenv(writerArgs)
	if args == "" {
		return
	}
	fmt.Println("error", writeUntilKilled(strings.Split(args, "\n")))
	os.Exit(1)
}

// writeUntilKilled writes records as fast as they are taken, and says on
// standard output what was acknowledged, after it was:
//
//	session ID      the log is open
//	decision ID     of a request, in hex as in the record
//	complete ID
//	note BASE64     a checkpoint was published
func writeUntilKilled(args []string) error {
	file, private, durability := args[0], args[1], Written
	if args[2] == Strict.String() {
		durability = Strict
	}
	s, err := checkpoint.NewSigner(private + "\n")
	if err != nil {
		return err
	}
	// One write of less than PIPE_BUF bytes is whole or not there.
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) }
	l, err := Open(Config{
		File: file, Durability: durability, Key: key(s), CheckpointEvery: 5 * time.Millisecond, Rotate: Rotation{Size: 16 << 10},
		OnCheckpoint: func(_ uint64, note []byte) { say("note %s", base64.StdEncoding.EncodeToString(note)) },
	})
	if err != nil {
		return err
	}
	say("session %s", l.SessionID())
	var id atomic.Uint64
	failed := make(chan error)
	for range 16 {
		go func() {
			for {
				id := id.Add(1)
				if _, err := l.Decide(decision(id)); err != nil {
					failed <- err
				}
				say("decision %016x", id)
				if err := l.Complete(completion(id)); err != nil {
					failed <- err
				}
				say("complete %016x", id)
			}
		}()
	}
	return <-failed
}

// TestL05Killed kills -9 a process that writes records as fast as it can, again
// and again, and lets the next one go on with its log. What the processes said
// was acknowledged is in the log.
func TestL05Killed(t *testing.T) {
	for _, durability := range []Durability{Strict, Written} {
		t.Run(durability.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(durability), 7)) //nolint:gosec // a fixed sequence is wanted
			midway := 0
			for left := *kills; left > 0; left -= 10 { // then a new log, so that the last is read no more than it must
				midway += killed(t, durability, min(left, 10), rng)
			}
			t.Logf("%d kills, %d of them in the middle of a rotation", *kills, midway)
		})
	}
}

// killed runs writers on one log and kills each. It returns how many died in
// the middle of a rotation.
func killed(t *testing.T, durability Durability, rounds int, rng *rand.Rand) (midway int) {
	t.Helper()
	private, err := checkpoint.Generate("audit.test")
	check(t, err)
	s, err := checkpoint.NewSigner(private)
	check(t, err)
	file := logFile(t)
	said := map[string]bool{} // :: "session/decision ID" and "session/complete ID"
	var notes [][]byte
	for range rounds {
		after := rng.IntN(600) // acknowledgements; 0: as soon as it runs
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerArgs+"="+strings.Join([]string{file, strings.TrimSpace(private), durability.String()}, "\n"))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		session, n := "", 0
		for lines := bufio.NewScanner(out); ; {
			if n == after {
				_ = cmd.Process.Kill() // and what it said before is still in the pipe
			}
			n++
			if !lines.Scan() {
				break
			}
			switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
			case "session":
				session = rest
			case "decision", "complete":
				said[session+"/"+lines.Text()] = true
			case "note":
				note, err := base64.StdEncoding.DecodeString(rest)
				check(t, err)
				notes = append(notes, note)
			default:
				t.Fatal(lines.Text())
			}
		}
		_ = cmd.Wait()
		if _, err := os.Lstat(file + nextSuffix); err == nil {
			midway++
		} else if st, err := (osFS{}).stat(file); err == nil && st.nlink > 1 {
			midway++
		}
	}
	allThere(t, file, s, said, notes)
	return midway
}

// allThere starts on the log a last time and checks it against what was said
// of it.
func allThere(t *testing.T, file string, s *checkpoint.Signer, said map[string]bool, notes [][]byte) {
	t.Helper()
	c := Config{File: file, Key: key(s)}
	for _, note := range notes {
		if known, _, err := checkpoint.Open(note, checkpoint.Verifiers{}); err != nil {
			t.Fatal(err)
		} else if c.Anchored == nil || known.Size > c.Anchored.Size {
			c.Anchored = &known
		}
	}
	closeLog(t, open(t, c))
	all := files(t, file)
	rep := verified(t, all...)
	if rep.Records != int64(rep.LastSeq) || rep.Unasked != 0 {
		t.Fatalf("%+v", rep)
	}
	open, torn := map[string]bool{}, map[string]bool{}
	for _, name := range all {
		for _, e := range entries(t, name) {
			switch e.Phase {
			case "decision":
				open[e.Session+"/"+e.ID] = true
			case "complete":
				delete(open, e.Session+"/"+e.ID)
			}
			delete(said, e.Session+"/"+e.Phase+" "+e.ID)
			if name := keptAside(t, file, e); name != "" {
				torn[name] = true
			}
		}
	}
	kept, err := filepath.Glob(file + tornSuffix + "*")
	check(t, err)
	if len(kept) != len(torn) {
		t.Fatalf("%d ends were cut off, and %d are recorded", len(kept), len(torn))
	}
	for record := range said {
		t.Fatalf("%d records were acknowledged and are not in the log, one of them %s", len(said), record)
	}
	if rep.Incomplete != int64(len(open)) {
		t.Fatalf("%d requests have no completion, Verify says %d", len(open), rep.Incomplete)
	}
}

// keptAside checks that what a record says was cut off is where it says, and
// returns the name.
func keptAside(t *testing.T, file string, e Entry) string {
	t.Helper()
	_, torn, ok := strings.Cut(string(e.Raw), `"torn":{"bytes":`)
	if !ok {
		return ""
	}
	size, rest, _ := strings.Cut(torn, `,"file":"`)
	name, rest, _ := strings.Cut(rest, `","sha256":"`)
	data, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what was cut off is gone: %s", e.Raw)
	}
	check(t, err)
	sum := sha256.Sum256(data)
	if strconv.Itoa(len(data)) != size || !strings.HasPrefix(rest, hex.EncodeToString(sum[:])) {
		t.Fatalf("%s has %d bytes of digest %x: %s", name, len(data), sum, e.Raw)
	}
	return name
}
