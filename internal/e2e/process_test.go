package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is the folder of one in /proc. Those of the node are all there.
type process string

// processes are those that are as is says, and at least one: what says which, for the error.
func processes(what string, is func(process) bool) ([]process, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, dir := range all {
		if p := process(dir); is(p) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no process " + what)
	}
	return found, nil
}

// read is one of its files; "" where it has ended.
func (p process) read(file string) string {
	text, _ := os.ReadFile(filepath.Join(string(p), file))
	return string(text)
}

func (p process) number() (int, error) { return strconv.Atoi(filepath.Base(string(p))) }

// args are the program and what it was started with.
func (p process) args() []string {
	return strings.Split(strings.TrimRight(p.read("cmdline"), "\x00"), "\x00")
}

// has reports whether it was started with a variable, as NAME=VALUE.
func (p process) has(variable string) bool {
	return slices.Contains(strings.Split(p.read("environ"), "\x00"), variable)
}

// of reports whether it is a user's.
func (p process) of(uid string) bool { return strings.Contains(p.read("status"), "\nUid:\t"+uid+"\t") }
