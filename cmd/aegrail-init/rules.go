//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/redirect"
)

// options are the flags as they were given; rules is what they mean.
type options struct {
	engineUID        uint32
	transparent, dns uint16
	protect          []uint
	free             []string
}

func (o *options) define(f *pflag.FlagSet) {
	f.Uint32Var(&o.engineUID, "engine-uid", 0, "`UID` that the engine runs as, and nothing else in the pod; required")
	f.Uint16Var(&o.transparent, "transparent-port", 15001, "`PORT` of the engine's --transparent-listen")
	f.Uint16Var(&o.dns, "dns-port", 15053, "`PORT` of the engine's --dns-listen")
	f.UintSliceVar(&o.protect, "protect", []uint{15020, 15080}, "`PORTS` of the engine that nobody else in the pod may reach; the transparent and the DNS port may be among them and change nothing: the engine itself refuses and records who dials them by hand")
	f.StringSliceVar(&o.free, "free", nil, "more destinations to leave alone besides loopback, `CIDRS` or addresses, such as the pod's own; what is in them is a way around the engine if it leads anywhere else")
}

// rules refuses what could not hold. Package redirect refuses the rest.
func (o *options) rules() (redirect.Rules, error) {
	r := redirect.Rules{Transparent: o.transparent, DNS: o.dns, Exempt: []uint32{o.engineUID}}
	switch o.engineUID {
	case 0:
		return r, errors.New("--engine-uid is missing, or 0: root of any container would pass as the engine; give the UID that the engine alone runs as")
	case math.MaxUint32:
		return r, fmt.Errorf("--engine-uid %d is nobody's: the kernel takes it for no UID", o.engineUID)
	}
	for _, port := range o.protect {
		if port == 0 || port > math.MaxUint16 {
			return r, fmt.Errorf("--protect %d: want ports from 1 to 65535", port)
		}
		if p := uint16(port); p != o.transparent && p != o.dns && !slices.Contains(r.Protected, p) {
			r.Protected = append(r.Protected, p)
		}
	}
	for _, text := range o.free {
		p, err := prefix(strings.TrimSpace(text))
		if err != nil {
			return r, fmt.Errorf("--free %q: want addresses or ranges, like 10.1.2.3 or fd00:1:2::/64", text)
		}
		r.Free = append(r.Free, p)
	}
	return r, nil
}

// prefix reads a range, or one address.
func prefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	return netip.ParsePrefix(text)
}

// apply makes r the rules and reads them back: a kernel that took them for
// something else must not be believed.
func apply(stdout io.Writer, r redirect.Rules) error {
	if err := r.Apply(); err != nil {
		return hint(err)
	}
	if err := r.Check(); err != nil {
		return hint(err)
	}
	fmt.Fprintf(stdout, "redirecting TCP to port %d and DNS to port %d for every user but %d; dropping the rest\n", r.Transparent, r.DNS, r.Exempt[0])
	return nil
}

func check(stdout io.Writer, r redirect.Rules) error {
	if err := r.Check(); err != nil {
		return hint(err)
	}
	fmt.Fprintln(stdout, "the rules are as they were applied")
	return nil
}

func dump(stdout io.Writer) error {
	text, err := redirect.List()
	if err != nil {
		return hint(err)
	}
	if text == "" {
		return errors.New("there are no rules here: table inet aegrail is missing; make them with `aegrail-init apply`")
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
