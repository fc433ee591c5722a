package upstream

import (
	"context"
	"net/netip"
	"testing"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestD01AddressesThatAreJudged(t *testing.T) {
	g, err := newGuard(prefixes("5.6.0.0/16"), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("[::]:9090")})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		addr    string
		allowed []netip.Prefix
		ok      bool
	}{
		{"1.1.1.1:443", nil, true},
		{"[2606:4700::1111]:443", nil, true},
		{"127.0.0.1:443", nil, false},
		{"127.9.9.9:443", nil, false},
		{"[::1]:443", nil, false},
		{"[::]:443", nil, false},
		{"0.0.0.0:443", nil, false},
		{"10.1.2.3:443", nil, false},
		{"172.31.0.1:443", nil, false},
		{"192.168.1.1:443", nil, false},
		{"169.254.169.254:80", nil, false},
		{"[fd00:ec2::254]:80", nil, false},
		{"100.100.100.200:80", nil, false},
		{"168.63.129.16:80", nil, false},
		{"[fe80::1]:443", nil, false},
		{"[fec0::1]:443", nil, false},
		{"[64:ff9b::7f00:1]:443", nil, false},
		{"[64:ff9b:1::1]:443", nil, false},
		{"[2002:7f00:1::]:443", nil, false},
		{"[2001::1]:443", nil, false},
		{"[ff02::1]:443", nil, false},
		{"[::ffff:10.0.0.1]:443", nil, false},
		{"[::ffff:1.1.1.1]:443", nil, true},
		{"[::127.0.0.1]:443", nil, false},
		{"224.0.0.1:443", nil, false},
		{"255.255.255.255:443", nil, false},
		{"5.6.7.8:443", nil, false},
		{"5.6.7.8:443", prefixes("5.6.7.0/24"), true},
		{"10.1.2.3:443", prefixes("10.1.0.0/16"), true},
		{"[::ffff:10.1.2.3]:443", prefixes("10.1.0.0/16"), true},
		{"10.2.2.3:443", prefixes("10.1.0.0/16"), false},
		{"127.0.0.1:443", prefixes("127.0.0.0/8"), true},
		{"127.0.0.1:8080", prefixes("127.0.0.0/8"), false}, // A18
		{"127.0.0.1:8080", prefixes("127.0.0.1/32"), true},
		{"127.0.0.1:9090", prefixes("127.0.0.0/8"), false},
		{"[::1]:9090", prefixes("::1/128"), true},
		{"1.1.1.1:9090", nil, true},
	} {
		err := g.judge(netip.MustParseAddrPort(row.addr), row.allowed)
		if (err == nil) != row.ok {
			t.Errorf("%s with %v: %v", row.addr, row.allowed, err)
		}
		if err != nil {
			wantReason(t, err, "address_denied 403")
		}
	}
	if g.judge(netip.AddrPort{}, nil) == nil || g.judge(netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth0"), 1), prefixes("fe80::/10")) == nil {
		t.Error("what is no address, or has a zone, passed")
	}
}

func TestD02MixedAnswersAreRefused(t *testing.T) {
	o := listen(t, nil, script(reply("no")))
	for _, answer := range [][]string{{"127.0.0.1", "10.0.0.1"}, {"10.0.0.1", "127.0.0.1"}, {"1.1.1.1", "::ffff:169.254.169.254"}, {"10.0.0.1"}} {
		n := &names{answers: map[string][]string{originName: answer}}
		w := newWorld(t, nil, func(c *Config) { c.Resolver = n })
		_, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
		wantReason(t, err, "address_denied 403")
	}
	if o.conns.Load() != 0 {
		t.Error("dialled")
	}
}

// rebinding answers with the next of its answers at each lookup.
type rebinding struct{ answers []string }

func (r *rebinding) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	a := netip.MustParseAddr(r.answers[0])
	r.answers = r.answers[1:]
	return []netip.Addr{a}, nil
}

func TestD02Rebinding(t *testing.T) {
	o := listen(t, nil, script("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	w := newWorld(t, nil, func(c *Config) { c.Resolver = &rebinding{[]string{"127.0.0.1", "10.0.0.1"}} })
	res, err := w.sendPlain(o, "GET / HTTP/1.1", nil)
	w.expect(res, err, "")
	_, err = w.sendPlain(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "address_denied 403")
}

func TestD01TheSocketJudgesAgain(t *testing.T) {
	o := listen(t, nil, script(reply("no")))
	w := newWorld(t, nil, nil)
	judged := 0
	_, _, err := w.c.race(context.Background(), []netip.AddrPort{o.addr}, func(ap netip.AddrPort) error {
		judged++
		return w.c.guard.judge(ap, nil)
	})
	wantReason(t, err, "address_denied 403")
	if judged != 1 || o.conns.Load() != 0 {
		t.Error("connected")
	}
}
