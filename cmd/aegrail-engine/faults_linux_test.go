package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// TestL04AndL05Faults runs the engine on files that are taken from it. Besides the
// commands of TestScripts there are
//
//	until STATUS METHOD URL   make requests until one is answered with STATUS; its answer becomes stdout
//	filelimit BYTES|none      limit how large a file serve may write
//	sigkill                   SIGKILL to serve; its standard error becomes stderr
func TestL04AndL05Faults(t *testing.T) {
	runScripts(t, "faults", faultCommands())
}

func faultCommands() map[string]script {
	return map[string]script{"until": cmdUntil, "filelimit": cmdFileLimit, "sigkill": cmdKill}
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: until STATUS METHOD URL")
	}
	if !enginetest.Eventually(func() bool {
		return ts.Exec("agent", args[1:]...) == nil && strings.HasPrefix(ts.ReadFile("stdout"), args[0]+" ")
	}) {
		ts.Fatalf("never %s, the last answer is %s", args[0], ts.ReadFile("stdout"))
	}
}

func cmdFileLimit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: filelimit BYTES|none")
	}
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if args[0] != "none" {
		n, err := strconv.ParseUint(args[0], 10, 64)
		ts.Check(err)
		limit.Cur = n
	}
	ts.Check(unix.Prlimit(serverOf(ts).cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil))
}

// cmdKill ends serve as the kernel does when memory runs out.
func cmdKill(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	ts.Check(s.cmd.Process.Signal(os.Kill))
	<-s.exited
	s.cmd = nil
	fmt.Fprint(ts.Stderr(), s.said())
}
