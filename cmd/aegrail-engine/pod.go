package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/passage"
)

// Enforcement is what keeps agents from going around the engine.
const (
	transparent = "transparent" // redirect rules, as aegrail-init makes them
	network     = "network"     // a NetworkPolicy that leaves agents the engine alone: the gateway
	advisory    = "advisory"    // nothing: well-behaved clients follow the proxy variables
)

// notEnforced is what advisory means, wherever it is said.
const notEnforced = "NOT ENFORCED: --enforcement advisory: an agent that ignores the proxy variables is not held, judged or recorded"

// podOptions are the flags of serve for an engine beside its agent in a pod.
type podOptions struct {
	agentNamespace, agentServiceAccount, agentPod, agentClaimed string
	enforcement, passage                                        string
}

func (o *podOptions) definePod(f *pflag.FlagSet) {
	f.StringVar(&o.agentNamespace, "agent-namespace", "", "`NAME` of the pod's namespace, which selects policies with --agent-service-account; a policy without agents then selects nobody")
	f.StringVar(&o.agentServiceAccount, "agent-service-account", "", "`NAME` of the pod's service account")
	f.StringVar(&o.agentPod, "agent-pod", "", "`NAME` of the pod, for the log")
	f.StringVar(&o.agentClaimed, "agent-claimed", "", "`NAME` that the pod claims (its label aegrail.io/identity), for the log; selects nothing")
	f.StringVar(&o.enforcement, "enforcement", "", "what holds the agents: `transparent` (the rules of aegrail-init; the default with --transparent-listen), network (a NetworkPolicy, for a gateway) or advisory (proxy variables alone: NOT ENFORCED)")
	f.StringVar(&o.passage, "passage", "", "have aegrail-init, which listens on the unix socket `PATH`, mark every socket before it dials: the only ones that its rules let out")
}

// dial connects by marked sockets; nil, where none is needed, is the system's way.
func (s *settings) dial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if s.way == nil {
		return nil
	}
	return s.way.DialContext
}

// mark sees each of upstream's sockets before it connects; nil likewise.
func (s *settings) mark() func(ctx context.Context, network, address string, socket syscall.RawConn) error {
	if s.way == nil {
		return nil
	}
	return s.way.Control
}

// inPod reports whether Kubernetes vouches for whose engine this is.
func (o *podOptions) inPod() bool { return o.agentNamespace != "" }

// principal is whose every connection is.
func (s *settings) principal() identity.Principal {
	if !s.inPod() {
		return identity.Principal{AgentIdentity: s.identity}
	}
	return identity.Principal{
		Namespace: s.agentNamespace, ServiceAccount: s.agentServiceAccount, Pod: s.agentPod, Claimed: s.agentClaimed,
	}
}

// agentName is what the log calls the agent where a record is the engine's own.
func (s *settings) agentName() string {
	p := s.principal()
	if p.Claimed != "" {
		return p.Claimed
	}
	return p.ID()
}

// parsePod refuses half an identity, and a pod of which nobody says what holds
// its agent.
func (s *settings) parsePod() error {
	if (s.agentNamespace == "") != (s.agentServiceAccount == "") {
		return errors.New("--agent-namespace and --agent-service-account belong together; one of them is missing")
	}
	if !s.inPod() && s.agentPod+s.agentClaimed != "" {
		return errors.New("--agent-pod and --agent-claimed are of a pod: give --agent-namespace and --agent-service-account")
	}
	for flag, name := range map[string]string{"--agent-namespace": s.agentNamespace, "--agent-service-account": s.agentServiceAccount, "--agent-pod": s.agentPod} {
		if len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			return fmt.Errorf("%s %q: want a name of Kubernetes: lower-case letters, digits, dots and hyphens", flag, name)
		}
	}
	if s.passage != "" {
		if !filepath.IsAbs(s.passage) {
			return fmt.Errorf("--passage %q: want the absolute path of aegrail-init's socket", s.passage)
		}
		s.way = passage.NewClient(s.passage)
	}
	if s.enforcement == "" && s.transparent != "" {
		s.enforcement = transparent
	}
	inPod := s.inPod() || s.control != "" // which serves pods alone
	switch s.enforcement {
	case transparent:
		if s.transparent == "" || inPod && s.dns == "" {
			return errors.New("--enforcement transparent: give --transparent-listen and --dns-listen, where the rules of aegrail-init lead to")
		}
		if inPod && s.passage == "" {
			return errors.New("--enforcement transparent: give --passage, where aegrail-init listens: without it the rules lead what the engine dials back to the engine")
		}
	case network, advisory:
	case "":
		if inPod {
			return errors.New("nothing says what holds the agent: give --transparent-listen and --dns-listen and run aegrail-init first, or choose --enforcement advisory, which does not hold it")
		}
	default:
		return fmt.Errorf("--enforcement %q: want transparent, network or advisory", s.enforcement)
	}
	return nil
}

// enforced is nil where nobody has said: on a laptop.
func (s *settings) enforced() *bool {
	if s.enforcement == "" {
		return nil
	}
	held := s.enforcement != advisory
	return &held
}
