package upstream

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// permit has a real policy of one rule let req out.
func permit(t testing.TB, req *canon.Request, r rule) policy.Permit {
	t.Helper()
	return decide(t, req, r, "scheme: any, websocket: true, path: {doubleSlash: allow}")
}

// tunnelPermit is permit for a passthrough.
func tunnelPermit(t testing.TB, req *canon.Request, r rule) policy.Permit {
	t.Helper()
	return decide(t, req, r, "tls: passthrough")
}

func decide(t testing.TB, req *canon.Request, r rule, kind string) policy.Permit {
	t.Helper()
	doc := fmt.Sprintf("apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: test}\nspec: {rules: [{name: all, hosts: ['%s'], ports: [%d], %s",
		req.Host, req.Port, kind)
	if len(r.addresses) > 0 {
		doc += ", addresses: ['" + strings.Join(r.addresses, "', '") + "']"
	}
	if r.headers != "" {
		doc += ", headers: " + r.headers
	}
	var up []string
	if r.roots != nil {
		up = append(up, "rootsFile: roots.pem")
	}
	if len(r.pins) > 0 {
		var pins []string
		for _, p := range r.pins {
			pins = append(pins, "'sha256/"+base64.StdEncoding.EncodeToString(p[:])+"'")
		}
		up = append(up, "spkiPins: ["+strings.Join(pins, ", ")+"]")
	}
	if up != nil {
		doc += ", upstream: {" + strings.Join(up, ", ") + "}"
	}
	docs, err := v1alpha1.Parse("test.yaml", []byte(doc+"}]}\n"))
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true, Files: func(string) ([]byte, error) { return r.roots, nil }})
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	d := set.For(identity.Principal{AgentIdentity: "agent"}).Decide(req)
	if d.Verdict != policy.Allow {
		t.Fatalf("denied: %+v\n%s", d, doc)
	}
	return d.Permit(req)
}
