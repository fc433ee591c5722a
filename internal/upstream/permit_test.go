package upstream

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
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

func TestD10NothingHappensWithoutPermitAndReceipt(t *testing.T) {
	n := loopback()
	o := listen(t, nil, script(reply("no")))
	w := newWorld(t, nil, func(c *Config) { c.Resolver = n })
	req := w.request(o.url("http"), "GET / HTTP/1.1")
	other := w.request(o.url("http"), "GET / HTTP/1.1")
	ctx, opts := context.Background(), &SendOptions{}
	good := permit(t, req, w.rule)
	for name, send := range map[string]func() error{
		"no request":              func() error { _, err := w.c.Send(ctx, good, audit.Receipt{}, nil, opts); return err },
		"no permit":               func() error { _, err := w.c.Send(ctx, policy.Permit{}, w.receipt(req), req, opts); return err },
		"no receipt":              func() error { _, err := w.c.Send(ctx, good, audit.Receipt{}, req, opts); return err },
		"a permit for another":    func() error { _, err := w.c.Send(ctx, permit(t, other, w.rule), w.receipt(req), req, opts); return err },
		"a receipt for another":   func() error { _, err := w.c.Send(ctx, good, w.receipt(other), req, opts); return err },
		"Dial without permit":     func() error { _, err := w.c.Dial(ctx, policy.Permit{}, w.receipt(req), req); return err },
		"Dial for a mere request": func() error { _, err := w.c.Dial(ctx, good, w.receipt(req), req); return err },
	} {
		if err := send(); err == nil {
			t.Errorf("%s: sent", name)
		} else if r := reason(t, err); r != "upstream_not_permitted 500" {
			t.Errorf("%s: %s", name, r)
		}
	}
	if n.count() != 0 || o.conns.Load() != 0 {
		t.Error("resolved or dialled")
	}
}
