package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// watched is a Config.Control that keeps what it has seen.
type watched struct {
	mu   sync.Mutex
	seen []string // guarded by mu
	err  error
}

func (w *watched) control(_ context.Context, network, address string, socket syscall.RawConn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, network+" "+address)
	// The socket is there, and connected to nothing.
	var peer error
	if err := socket.Control(func(fd uintptr) { _, peer = syscall.Getpeername(int(fd)) }); err != nil || !errors.Is(peer, syscall.ENOTCONN) {
		return errors.New("it has connected already")
	}
	return w.err
}

func (w *watched) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

func TestEverySocketIsSeenBeforeItConnects(t *testing.T) {
	ca := newAuthority(t)
	o := listen(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, script(reply("1")))
	control := new(watched)
	w := newWorld(t, ca, func(c *Config) { c.Control = control.control })
	w.get(o, "1")
	if got := control.all(); !slices.Equal(got, []string{"tcp4 " + o.addr.String()}) {
		t.Errorf("seen were %q", got)
	}
}

func TestTheProxysSocketIsSeenToo(t *testing.T) {
	ca := newAuthority(t)
	o := listen(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, script(reply("1")))
	p := corporate(t, nil, "HTTP/1.1 200 Connection established\r\n\r\n", make(chan string, 1))
	control := new(watched)
	w := newWorld(t, ca, func(c *Config) { c.Control, c.Proxy = control.control, &url.URL{Scheme: "http", Host: p.addr.String()} })
	w.get(o, "1")
	if got := control.all(); !slices.Equal(got, []string{"tcp4 " + p.addr.String()}) {
		t.Errorf("seen were %q", got)
	}
}

func TestASocketThatIsNotLetOutDialsNobody(t *testing.T) {
	o := listen(t, nil, script(reply("no")))
	for _, proxy := range []*url.URL{nil, {Scheme: "http", Host: o.addr.String()}} {
		control := &watched{err: errors.New("no way out")}
		w := newWorld(t, nil, func(c *Config) { c.Control, c.Proxy = control.control, proxy })
		_, err := w.send(o, "GET / HTTP/1.1", nil)
		wantReason(t, err, "dial_failed 502")
		if !strings.Contains(err.Error(), "no way out") {
			t.Error(err)
		}
	}
}

func TestNamesAreAskedForBySocketsThatAreSeen(t *testing.T) {
	control := &watched{err: errors.New("no way out")}
	w := newWorld(t, nil, func(c *Config) { c.Control, c.Resolver = control.control, nil })
	_, err := w.sendTo(t.Context(), "http://name.test", "GET / HTTP/1.1", nil)
	wantReason(t, err, "resolve_failed 502")
	seen := control.all()
	if len(seen) == 0 {
		t.Error("no socket was seen")
	}
	for _, s := range seen {
		if !strings.HasPrefix(s, "udp") || !strings.HasSuffix(s, ":53") {
			t.Errorf("%s was about to be dialled", s)
		}
	}
}
