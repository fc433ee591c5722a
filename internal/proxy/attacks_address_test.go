package proxy_test

import (
	"net/netip"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// guardedPolicy names no addresses: whatever is not public is refused.
const guardedPolicy = "- name: guarded\n  hosts: [guarded.test]\n  ports: [{{ports}}]\n"

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// TestD01AddressesThatNoRuleNames has an allowed name that points inside.
func TestD01AddressesThatNoRuleNames(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: guardedPolicy,
		Hosts:  map[string]enginetest.Host{"guarded.test": {}},
		Upstream: func(c *upstream.Config) {
			c.DenyCIDRs = []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24")} // stands for a pod range
		},
	})
	client := e.Client(t)
	for what, text := range map[string]string{
		"loopback": "127.0.0.1", "loopback, IPv6": "::1", "link-local": "169.254.1.1", "link-local, IPv6": "fe80::1",
		"metadata": "169.254.169.254", "metadata, IPv6": "fd00:ec2::254", "metadata, Alibaba": "100.100.100.200",
		"RFC 1918, 10": "10.1.2.3", "RFC 1918, 172": "172.16.0.1", "RFC 1918, 192": "192.168.1.1", "shared": "100.64.0.1",
		"ULA": "fc00::1", "NAT64": "64:ff9b::a9fe:a9fe", "NAT64, local": "64:ff9b:1::1", "6to4": "2002:7f00:1::", "Teredo": "2001::1",
		"multicast": "224.0.0.1", "multicast, IPv6": "ff02::1", "240/4": "240.0.0.1", "broadcast": "255.255.255.255",
		"0/8": "0.0.0.0", "unspecified, IPv6": "::", "mapped": "::ffff:127.0.0.1", "mapped, metadata": "::ffff:169.254.169.254",
		"--deny-cidr": "8.8.8.8",
	} {
		e.Resolver.Set("guarded.test", addrs(text)...)
		r := e.Do(t, client, "POST", "guarded.test", "/", "a secret")
		refused(t, what+" "+text, r, 403, "address_denied")
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "phase": "complete", "reason": "address_denied", "host": "guarded.test", "status_code": 403})
	untouched(t, e, "guarded.test")
}

// TestD02Rebinding has a name whose answer changes, or is half right.
func TestD02Rebinding(t *testing.T) {
	const rule = "- name: home\n  {{to \"home.test\"}}\n"
	e := enginetest.Start(t, &enginetest.Options{Policy: rule, Hosts: map[string]enginetest.Host{"home.test": {}}})
	home := e.Origin("home.test").Addr.Addr()
	e.Resolver.SetFunc("home.test", func(asked int) []netip.Addr {
		if asked == 0 {
			return []netip.Addr{home}
		}
		return addrs("169.254.169.254")
	})
	if r := e.Do(t, e.Client(t), "GET", "home.test", "/first", ""); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Reason())
	}
	e.SetPolicy(t, rule+"  methods: [GET]\n") // retires the connection, so that the name is asked for again
	refused(t, "the second answer", e.Do(t, e.Client(t), "GET", "home.test", "/second", ""), 403, "address_denied")
	e.Resolver.Set("home.test", home, netip.MustParseAddr("10.0.0.1"))
	refused(t, "an answer that is half right", e.Do(t, e.Client(t), "GET", "home.test", "/mixed", ""), 403, "address_denied")
	if seen := e.Origin("home.test").Requests(); len(seen) != 1 {
		t.Errorf("the origin saw %q", seen)
	}
}

// TestD03RedirectsAreTheClients hands a redirect to metadata on, and judges what
// the client makes of it.
func TestD03RedirectsAreTheClients(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {Answer: echoRaw}}})
	r := e.Do(t, e.Client(t), "GET", "allowed.test", "/away", "")
	if r.Status != 302 || r.Header.Get("Location") != "http://169.254.169.254/latest" {
		t.Errorf("%d %v", r.Status, r.Header)
	}
	c := e.RawProxy(t)
	c.Send("GET http://169.254.169.254/latest HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n")
	refused(t, "the client that follows it", c.Reply("GET"), 403, "not_in_allowlist")
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "host": "169.254.169.254", "kind": "plain"})
	notAsked(t, e, "169.254.169.254")
}

// TestD08PooledConnectionsKeepTheirRule asks for two paths of a host, of which
// one rule alone lets a private address through.
func TestD08PooledConnectionsKeepTheirRule(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: inside\n  {{to \"home.test\"}}\n  paths: [/inside]\n- name: outside\n  hosts: [home.test]\n  ports: [{{ports}}]\n  paths: [/outside]\n",
		Hosts:  map[string]enginetest.Host{"home.test": {}},
	})
	for name, client := range bothClients(t, e) {
		for range 2 {
			if r := e.Do(t, client, "GET", "home.test", "/inside", ""); r.Status != 200 {
				t.Errorf("%s: %d %s", name, r.Status, r.Reason())
			}
			refused(t, name, e.Do(t, client, "GET", "home.test", "/outside", ""), 403, "address_denied")
		}
	}
	for _, s := range e.Origin("home.test").Requests() {
		if s.Target != "/inside" {
			t.Errorf("arrived: %s", s)
		}
	}
	if n := e.Origin("home.test").Connections(); n != 1 {
		t.Errorf("%d connections, want one: the allowed ones share it", n)
	}
}

// TestD10DeniedNamesAreNotResolved refuses in every way there is.
func TestD10DeniedNamesAreNotResolved(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: judgedPolicy, Hosts: map[string]enginetest.Host{"judged.test": {}, "denied.test": {Plain: true}}})
	client := e.Client(t)
	refused(t, "a method", e.Do(t, client, "GET", "judged.test", "/v1/x", ""), 403, "method_not_allowed")
	refused(t, "a path", e.Do(t, client, "POST", "judged.test", "/v2", ""), 403, "path_not_allowed")
	refused(t, "a body", e.Do(t, client, "POST", "judged.test", "/v1/x", `{"model":"evil"}`, isJSON), 403, "condition_not_met")
	refused(t, "a host", e.Do(t, client, "GET", "denied.test", "/", ""), 403, "not_in_allowlist")
	if asked := e.Resolver.Asked(); len(asked) > 0 {
		t.Errorf("%q were looked up", asked)
	}
}
