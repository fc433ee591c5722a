package report

import (
	"strconv"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// What is counted is counted by these keys. Their texts are bounded (keep), and
// are whatever the log says: see visible.

// agentKey is who asked, as far as it is vouched for: no label buys a second
// line.
type agentKey struct {
	name    string // namespace/serviceaccount, or what the engine calls itself
	vouched bool   // by Kubernetes
}

type pairKey struct {
	agent agentKey
	host  string // with the port, where it is not the scheme's own
}

type targetKey struct {
	agent        agentKey
	host, reason string
}

type ruleKey struct{ policy, rule string }

type limitKey struct {
	reason string
	agent  agentKey
	rule   string
}

// agentOf is whose record e is. Nobody's is the zero key: the engine's own name
// stands in such a record.
func agentOf(e *audit.Entry) agentKey {
	switch {
	case e.Namespace != "":
		return agentKey{keep(e.Namespace + "/" + e.ServiceAccount), true}
	case e.Reason == "unknown_principal":
		return agentKey{}
	default:
		return agentKey{keep(e.AgentIdentity), false}
	}
}

// hostOf is the host, with the port where it is not the scheme's own. "" is a
// record that stands for many, or one that was refused before a host was read.
func hostOf(e *audit.Entry) string {
	host := e.Host
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	if e.Port != 0 && (e.Scheme != "http" || e.Port != 80) && (e.Scheme == "http" || e.Port != 443) {
		host += ":" + strconv.Itoa(int(e.Port))
	}
	return keep(host)
}

// targetOf is method, host and path, as far as the record has them.
func targetOf(e *audit.Entry) string {
	path := e.Path + e.PathPattern
	if e.PathLen > 0 {
		path += "..."
	}
	return keep(strings.TrimSpace(e.Method + " " + hostOf(e) + path))
}

func ruleOf(e *audit.Entry) ruleKey { return ruleKey{keep(e.Policy), keep(e.Rule)} }

// ruleName is policy and rule as one word.
func ruleName(e *audit.Entry) string {
	if e.Rule == "" {
		return ""
	}
	return ruleOf(e).String()
}

func (k ruleKey) String() string {
	if k.policy == "" {
		return k.rule
	}
	return k.policy + "/" + k.rule
}

// What rows of the same weight are sorted by.

func (k agentKey) String() string { return k.name }
func (k pairKey) String() string  { return k.agent.name + " " + k.host }
func (k targetKey) String() string {
	return k.agent.name + " " + k.host + " " + k.reason
}
func (k limitKey) String() string { return k.reason + " " + k.agent.name + " " + k.rule }
