package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
)

// logged is a record of the audit log as policy tools look at it.
type logged struct{ *audit.Entry }

// readLogs calls fn for each record of the files, in order. It does not verify:
// `audit verify` does. The record is fn's for the time of the call.
func readLogs(files []string, fn func(logged) error) error {
	for _, name := range files {
		f, err := audit.OpenFile(name)
		if err != nil {
			return badInput(fmt.Errorf("reading the log: %w", err))
		}
		err = audit.Read(f, func(e *audit.Entry) error { return fn(logged{e}) })
		if err = errors.Join(err, f.Close()); err != nil {
			return badInput(fmt.Errorf("%s: %w", name, err))
		}
	}
	return nil
}

// principal is whose request it was, as policy selects by it.
func (l logged) principal() identity.Principal {
	if l.Namespace != "" {
		return identity.Principal{Namespace: l.Namespace, ServiceAccount: l.ServiceAccount}
	}
	return identity.Principal{AgentIdentity: l.AgentIdentity}
}

func (l logged) allowed() bool { return l.Event == audit.EgressAllowed.String() }

// failed reports a request that the policy allowed and that ended otherwise:
// upstream trouble, or an address that the guard refuses.
func (l logged) failed() bool {
	return l.Event == audit.EgressError.String() ||
		l.Event == audit.EgressDenied.String() && l.Phase == audit.PhaseComplete.String()
}

// isDecision reports the record that a request is decided by. A request that
// was sent twice has one for each attempt; the first stands for it.
func (l logged) isDecision() bool {
	egress := l.allowed() || l.Event == audit.EgressDenied.String()
	return egress && l.Phase == audit.PhaseDecision.String() && l.Attempt <= 1
}

// times is how many requests the record stands for.
func (l logged) times() int64 { return max(l.Count, 1) }

// isTunnel reports what was judged by its host alone: passthrough, and what
// was refused before there was a request.
func (l logged) isTunnel() bool {
	return l.Scheme == "tunnel" || l.Method == "" || l.Method == "CONNECT"
}

// authority is host:port, the port only where it is not the scheme's own.
func (l logged) authority() string {
	host := l.Host
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	if l.Port == 0 || l.Scheme == "http" && l.Port == 80 || l.Scheme != "http" && l.Port == 443 {
		return host
	}
	return host + ":" + strconv.Itoa(int(l.Port))
}

// url is the request's as far as the log has it, without query values; "" where
// the path was kept as a pattern or a hash, or cut.
func (l logged) url() string {
	switch {
	case l.Host == "":
		return ""
	case l.isTunnel():
		return l.authority()
	case l.Path == "" || l.PathLen > 0:
		return ""
	}
	url := l.Scheme + "://" + l.authority() + l.Path
	if len(l.QueryKeys) > 0 {
		url += "?" + strings.Join(escapeKeys(l.QueryKeys), "=&") + "="
	}
	return url
}

// request names the request for people, or the connection that none came of.
func (l logged) request() string {
	what := l.url()
	switch {
	case what != "":
	case l.Host == "" && l.Count > 0: // of a flood the log keeps how many and why
		what = "what was counted and not listed"
	case l.isTunnel():
		what = "a connection that named no host"
	default:
		what = l.Scheme + "://" + l.authority() + l.PathPattern
	}
	return strings.TrimSpace(printable(l.Method + " " + what))
}

// escapeKeys spells decoded names so that each is one name again.
func escapeKeys(keys []string) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		var b strings.Builder
		for _, c := range []byte(k) {
			if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~[]", c) >= 0 {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
		out[i] = b.String()
	}
	return out
}
