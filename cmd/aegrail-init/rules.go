//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/passage"
	"github.com/arpitcoder/aegrail-engine/internal/redirect"
)

// options are the flags as they were given; plan is what they mean.
type options struct {
	engineUID        uint32
	passage          string
	transparent, dns uint16
	protect          []uint
	free             []string
}

func (o *options) define(f *pflag.FlagSet) {
	f.Uint32Var(&o.engineUID, "engine-uid", 0, "`UID` that the engine runs as, whose sockets are marked; required")
	f.StringVar(&o.passage, "passage", "", "unix socket `PATH` at which the engine asks, in a directory that nobody else shares; required")
	f.Uint16Var(&o.transparent, "transparent-port", 15001, "`PORT` of the engine's --transparent-listen")
	f.Uint16Var(&o.dns, "dns-port", 15053, "`PORT` of the engine's --dns-listen")
	f.UintSliceVar(&o.protect, "protect", []uint{15020, 15080}, "`PORTS` of the engine that nobody else in the pod may reach; the transparent and the DNS port may be among them and change nothing: the engine itself refuses and records who dials them by hand")
	f.StringSliceVar(&o.free, "free", nil, "more destinations to leave alone besides loopback, `CIDRS` or addresses, such as the pod's own; what is in them is a way around the engine if it leads anywhere else")
}

// plan is what to do: the rules, and who asks for a way out of them where.
type plan struct {
	rules  redirect.Rules
	engine passage.Server
}

// plan refuses what could not hold. Package redirect refuses the rest.
func (o *options) plan() (plan, error) {
	p := plan{
		rules:  redirect.Rules{Transparent: o.transparent, DNS: o.dns, Mark: passage.Mark},
		engine: passage.Server{Path: o.passage, EngineUID: o.engineUID},
	}
	r := &p.rules
	switch {
	case o.engineUID == 0:
		return p, errors.New("--engine-uid is missing, or 0: give the UID that the engine runs as, which is not root")
	case o.engineUID == math.MaxUint32:
		return p, fmt.Errorf("--engine-uid %d is nobody's: the kernel takes it for no UID", o.engineUID)
	case !filepath.IsAbs(o.passage):
		return p, fmt.Errorf("--passage %q: want the absolute path of a socket in a directory that the engine alone shares", o.passage)
	}
	for _, port := range o.protect {
		if port == 0 || port > math.MaxUint16 {
			return p, fmt.Errorf("--protect %d: want ports from 1 to 65535", port)
		}
		if n := uint16(port); n != o.transparent && n != o.dns && !slices.Contains(r.Protected, n) {
			r.Protected = append(r.Protected, n)
		}
	}
	for _, text := range o.free {
		free, err := prefix(strings.TrimSpace(text))
		if err != nil {
			return p, fmt.Errorf("--free %q: want addresses or ranges, like 10.1.2.3 or fd00:1:2::/64", text)
		}
		r.Free = append(r.Free, free)
	}
	return p, nil
}

// prefix reads a range, or one address.
func prefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	return netip.ParsePrefix(text)
}

// serve makes the rules and reads them back: a kernel that took them for
// something else must not be believed. It keeps for the engine what the pod's
// names are found by, and then answers it until ctx ends; the rules stay.
func serve(ctx context.Context, stdout io.Writer, p plan) error {
	// To make rules that are there would drop what arrives in between.
	if p.rules.Check() != nil {
		if err := p.rules.Apply(); err != nil {
			return hint(err)
		}
	}
	if err := p.rules.Check(); err != nil {
		return hint(err)
	}
	if err := keepNames(filepath.Dir(p.engine.Path), nameFiles()); err != nil {
		return err
	}
	ln, err := p.engine.Listen()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "redirecting TCP to port %d and DNS to port %d, and dropping the rest; marking the sockets of user %d, who asks at %s\n",
		p.rules.Transparent, p.rules.DNS, p.engine.EngineUID, p.engine.Path)
	return p.engine.Serve(ctx, ln)
}

func check(ctx context.Context, stdout io.Writer, p plan) error {
	if err := p.rules.Check(); err != nil {
		return hint(err)
	}
	if err := passage.Check(ctx, p.engine.Path); err != nil {
		return fmt.Errorf("the rules are as they should be, and the engine's sockets are not marked: %w", err)
	}
	fmt.Fprintln(stdout, "the rules are as they should be, and the engine's sockets are marked")
	return nil
}

func dump(stdout io.Writer) error {
	text, err := redirect.List()
	if err != nil {
		return hint(err)
	}
	if text == "" {
		return errors.New("there are no rules here: table inet aegrail is missing; make them with `aegrail-init serve`")
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// hint adds what to change in the pod or on its node.
func hint(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w\n  give this container securityContext: {runAsUser: 0, runAsNonRoot: false, capabilities: {drop: [ALL], add: [NET_ADMIN]}};\n"+
			"  where Pod Security forbids that, use the gateway, or enforcement: advisory, which holds nobody", err)
	case errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w\n  load them on the node: modprobe -a nf_tables nft_chain_nat nft_redir nft_ct nft_reject_inet (Linux 5.2 or later);\n"+
			"  a sandboxed runtime with a kernel of its own (gVisor) may have none of them: use the gateway there", err)
	default:
		return err
	}
}
