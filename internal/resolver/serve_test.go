package resolver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func serve(t *testing.T, w *world) (udp, tcp string, stop func()) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- w.ServePacket(ctx, conn) }()
	go func() { done <- w.ServeStream(ctx, ln) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return conn.LocalAddr().String(), ln.Addr().String(), stop
}

func TestOverUDPAndTCP(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w := start(t, nil)
	udp, tcp, stop := serve(t, w)
	for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
		client := &dns.Client{Net: network, Timeout: patience}
		for name, code := range map[string]int{"api.allowed.test.": dns.RcodeSuccess, "denied.test.": dns.RcodeNameError} {
			r, _, err := client.Exchange(query(name, dns.TypeA), addr)
			if err != nil || r.Rcode != code {
				t.Errorf("%s %s: %v, %v", network, name, r, err)
			}
		}
	}
	stop()
	w.finish()
}

func TestOneConnectionAsksManyTimes(t *testing.T) {
	w := start(t, nil)
	_, tcp, _ := serve(t, w)
	conn, err := dns.DialTimeout("tcp", tcp, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	for i := range maxPerConn + 1 {
		if err := conn.WriteMsg(query("api.allowed.test.", dns.TypeA)); err != nil && i < maxPerConn {
			t.Fatal(err)
		}
		r, err := conn.ReadMsg()
		if i < maxPerConn != (err == nil) {
			t.Fatalf("query %d: %v, %v", i, r, err)
		}
	}
}

func TestWhatIsNoQueryEndsTheConnection(t *testing.T) {
	w := start(t, nil)
	udp, tcp, _ := serve(t, w)
	for what, sent := range map[string]string{"too long": "\xff\xff", "too short": "\x00\x02hi", "an end in the middle": "\x00\xffhi"} {
		conn, err := net.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: read %d bytes, %v", what, n, err)
		}
		conn.Close()
	}
	// Over UDP what is cut is malformed, and what comes after it is answered.
	conn, err := dns.DialTimeout("udp", udp, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	whole, err := query("api.allowed.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	long := append(bytes.Clone(whole), make([]byte, 2*maxQuery)...)
	long[11] = 2 // two more records, which do not come whole
	for _, c := range []struct {
		sent []byte
		code int
	}{{long, dns.RcodeFormatError}, {[]byte("no"), -1}, {whole, dns.RcodeSuccess}} {
		if _, err := conn.Conn.Write(c.sent); err != nil {
			t.Fatal(err)
		}
		if c.code < 0 {
			continue
		}
		if r, err := conn.ReadMsg(); err != nil || r.Rcode != c.code {
			t.Errorf("%d bytes: %v, %v", len(c.sent), r, err)
		}
	}
}

func TestR07ConnectionsAreBounded(t *testing.T) {
	w := start(t, nil)
	_, tcp, _ := serve(t, w)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	b, err := query("api.allowed.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	answered := func() bool {
		conn, err := net.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write(framed)
		_, err = io.ReadFull(conn, make([]byte, 2))
		return err == nil
	}
	for i := range maxConns {
		if !answered() {
			t.Fatalf("connection %d was closed", i)
		}
	}
	if answered() {
		t.Error("one more was served")
	}
	conns[0].Close()
	deadline := time.Now().Add(patience)
	for !answered() {
		if time.Now().After(deadline) {
			t.Fatal("a place that is free again was not given")
		}
	}
}

// failing is a listener that fails once for a while and then for good.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		return f.Listener.Accept()
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func TestAListenerThatFailsIsSaid(t *testing.T) {
	w := start(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err = w.ServeStream(t.Context(), &failing{ln, []error{passing{errors.New("for now")}, broken}})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	if err := w.ServePacket(t.Context(), conn); err == nil {
		t.Error("a socket that cannot be read was served")
	}
}

func TestRepeatsEndWithTheLog(t *testing.T) {
	w := start(t, func(_ *Config, l *audit.Config) { l.Refusals = audit.RefusalLimits{Burst: 2, Rate: 1} })
	for range 3 {
		w.ask(query("a.test.", dns.TypeA))
		w.ask(query("b.test.", dns.TypeA))
	}
	if err := w.repeat.close(); err != nil { // over the budget: counted by the log
		t.Error(err)
	}
	w.ask(query("a.test.", dns.TypeA))
	if len(w.repeat.recent) != 0 {
		t.Error("something is held back after Close")
	}
}
