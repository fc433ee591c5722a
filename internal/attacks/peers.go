package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strings"
)

// find returns a peer, errNotWanted where wanted does not take its name, or why
// it cannot be had.
type find func(ctx context.Context, wanted func(string) bool) (proxy, error)

var errNotWanted = errors.New("not wanted")

// peers are the rivals, in the order of the table's columns.
func peers() []find {
	return []find{
		goPeer(goproxyName, "github.com/elazarl/goproxy", needHTTP2|needGuard|needRuleGuard, 0, "handlers in Go (golang.go)"),
		goPeer(martianName, "github.com/google/martian/v3", needHTTP2|needGuard|needRuleGuard|needPin, 0, "a modifier in Go (golang.go) behind its own httpspec stack"),
		goPeer(gomitmproxyName, "github.com/AdguardTeam/gomitmproxy", needHTTP2|needGuard|needRuleGuard|needWatch, 443, "handlers in Go (golang.go); CONNECT to 443 alone: what goes to another port it never decrypts"),
		findMitmproxy, findSquid, findHAProxy,
	}
}

// treeVersion names the commit that is attacked.
func treeVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "this tree"
	}
	return strings.TrimSpace(string(out))
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "?"
}

// debian finds a program, or installs Debian's package where that can be done,
// and asks it its version.
func debian(ctx context.Context, program, pkg string, ask ...string) (path, version string, err error) {
	look := func() string {
		for _, name := range []string{program, "/usr/sbin/" + program} {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		return ""
	}
	if path = look(); path == "" && os.Geteuid() == 0 {
		install := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", pkg)
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // RUNLEVEL=1: no service is started
		if out, err := install.CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("%s: installing %s: %w: %s", program, pkg, err, lastLine(out))
		}
		path = look()
	}
	if path == "" {
		return "", "", fmt.Errorf("%s is not installed; `apt-get install %s` brings it", program, pkg)
	}
	// nginx says it on standard error, and slowhttptest says it and fails.
	out, err := exec.CommandContext(ctx, path, ask...).CombinedOutput()
	if version = string(regexp.MustCompile(`\d+\.\d+(\.\d+)?\S*`).Find(out)); version == "" {
		return "", "", fmt.Errorf("asking %s its version: %w: %s", program, err, lastLine(out))
	}
	return path, version, nil
}
