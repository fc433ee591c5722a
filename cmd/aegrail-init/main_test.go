//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/passage"
)

// ran runs the program with variables and returns its exit code and what it said.
func ran(env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = report(&err, run(context.Background(), args, func(name string) string { return env[name] }, &out, &err))
	return code, out.String(), err.String()
}

// By check and not by apply: what a test of refusals lets pass must not change
// the machine that it runs on.
func TestWhatCouldNotHoldIsRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"--engine-uid is missing":            {"check"},
		"or 0: give the UID":                 {"check", "--engine-uid", "0"},
		`--passage "": want the absolute`:    {"check", "--engine-uid", "7"},
		`--passage "a/b": want the absolute`: {"check", "--engine-uid", "7", "--passage", "a/b"},
		"is nobody's":                        {"check", "--engine-uid", "4294967295"},
		`invalid argument "-1"`:              {"check", "--engine-uid=-1"},
		"want ports from 1 to 65535":         {"check", "--engine-uid", "7", "--passage", "/p", "--protect", "70000"},
		`--free "10.0.0.0/33"`:               {"check", "--engine-uid", "7", "--passage", "/p", "--free", "10.0.0.0/33"},
		"the resolver's port are both":       {"check", "--engine-uid", "7", "--passage", "/p", "--dns-port", "0"},
		`unexpected argument "now"`:          {"check", "now"},
		`unexpected argument "all"`:          {"dump", "all"},
		`unknown command "aply"`:             {"aply"},
		"name a command":                     {},
		"unknown flag: --engine":             {"check", "--engine", "7"},
		`"0.0.0.0/0" is no range to leave`:   {"check", "--engine-uid", "7", "--passage", "/p", "--free", "0.0.0.0/0"},
		`"10.1.2.3/8" is no range to leave`:  {"check", "--engine-uid", "7", "--passage", "/p", "--free", "10.1.2.3/8"},
		"the transparent port and":           {"check", "--engine-uid", "7", "--passage", "/p", "--transparent-port", "0"},
		"--protect 0: want ports":            {"check", "--engine-uid", "7", "--passage", "/p", "--protect", "0"},
		`AEGRAIL_INIT_DNS_PORT="fifty-three`: nil,
	} {
		t.Run(want, func(t *testing.T) {
			env := map[string]string{}
			if args == nil {
				env["AEGRAIL_INIT_DNS_PORT"], args = "fifty-three", []string{"check", "--engine-uid", "7", "--passage", "/p"}
			}
			if code, out, said := ran(env, args...); code == 0 || out != "" || !strings.Contains(said, want) {
				t.Errorf("%q: exit %d, %s%s", args, code, out, said)
			}
		})
	}
}

func TestAFlagBeatsItsVariable(t *testing.T) {
	env := map[string]string{
		"AEGRAIL_INIT_ENGINE_UID": "2000000001", "AEGRAIL_INIT_PROTECT": "15020,15001,15053,15020",
		"AEGRAIL_INIT_FREE": "10.1.2.3,fd00::/64", "AEGRAIL_INIT_PASSAGE": "/run/p", "AEGRAIL_INIT_DNS_PORT": "", "AEGRAIL_INIT_TRANSPARENT_PORT": "1",
	}
	var p plan
	c := planCommand("serve", "", func(name string) string { return env[name] }, func(_ context.Context, _ io.Writer, is plan) error {
		p = is
		return nil
	})
	c.SetArgs([]string{"--transparent-port", "15001"})
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	got := p.rules
	if got.Transparent != 15001 || got.DNS != 15053 || got.Mark != passage.Mark || p.engine.EngineUID != 2000000001 || p.engine.Path != "/run/p" {
		t.Errorf("got %+v", p)
	}
	if !slices.Equal(got.Protected, []uint16{15020}) {
		t.Errorf("protected are %d; the engine refuses who dials the ports of redirection", got.Protected)
	}
	if len(got.Free) != 2 || got.Free[0].String() != "10.1.2.3/32" || got.Free[1].String() != "fd00::/64" {
		t.Errorf("free are %v", got.Free)
	}
}

func TestAHintNamesTheFix(t *testing.T) {
	for errno, fix := range map[syscall.Errno]string{
		syscall.EPERM: "add: [NET_ADMIN]", syscall.EACCES: "runAsUser: 0", syscall.EPROTONOSUPPORT: "modprobe -a nf_tables",
		syscall.ENOENT: "nft_redir", syscall.EOPNOTSUPP: "use the gateway", syscall.EAFNOSUPPORT: "Linux 5.2",
	} {
		if err := hint(fmt.Errorf("applying: %w", errno)); !errors.Is(err, errno) || !strings.Contains(err.Error(), "\n  ") || !strings.Contains(err.Error(), fix) {
			t.Errorf("%s: %v", errno, err)
		}
	}
	if err := hint(io.EOF); err != io.EOF {
		t.Errorf("an error without a hint: %v", err)
	}
}

func TestHelpNamesEachCommand(t *testing.T) {
	code, out, said := ran(nil, "--help")
	for _, want := range []string{"serve", "check", "dump", "AEGRAIL_INIT_ENGINE_UID"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, %q is missing in\n%s%s", code, want, out, said)
		}
	}
}
