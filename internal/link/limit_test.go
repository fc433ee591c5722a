package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	enginev1 "github.com/arpitcoder/aegrail-engine/api/engine/v1"
)

func TestTooManyConnectionsOfOneAddressAreClosedAndRecorded(t *testing.T) {
	s, _ := start(t, ServerOptions{ConnectionsEach: 2})
	dial := func() *tls.Conn {
		pool, err := s.pool()
		if err != nil {
			t.Fatal(err)
		}
		nc, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return tls.Client(nc, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2"}})
	}
	held := []*tls.Conn{dial(), dial()}
	for _, c := range held {
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := dial().Handshake(); err == nil {
			t.Error("a third connection")
		}
	}
	var r *Refusal
	if got := s.refusals(); len(got) != 1 || got[0].Call != "connect" || got[0].Peer != netip.MustParseAddr("127.0.0.1") || !errors.As(got[0].Err, &r) || r.Kind != TooMany {
		t.Errorf("recorded: %+v", got)
	}
	held[0].Close()
	until(t, "a place that became free", func() bool { return dial().Handshake() == nil })
}

func TestAConnectionOnWhichNobodyIsKnownIsClosed(t *testing.T) {
	s, _ := start(t, ServerOptions{Unknown: 3 * time.Second})
	stream, err := enginev1.NewLinkClient(s.dial(t)).Policy(as(t, "its token"), &enginev1.PolicyRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	pool, err := s.pool()
	if err != nil {
		t.Fatal(err)
	}
	idle, err := tls.Dial("tcp", s.address, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := idle.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, idle); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it is still there")
	}
	s.rules(bot.UID, Policy{Revision: "rev-2"}) // the engine's is older
	if got, err := stream.Recv(); err != nil || got.GetRevision() != "rev-2" {
		t.Errorf("the connection of an engine that is known: %v, %v", got, err)
	}
}

func TestTheServerSpeaksTLS13Alone(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	pool, err := s.pool()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tls.Dial("tcp", s.address, &tls.Config{RootCAs: pool, ServerName: "localhost", MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2")
	}
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(nc); strings.Contains(string(b), "HTTP") {
		t.Error("HTTP/2 without TLS")
	}
}

// faulty is a Backend with defects.
type faulty struct {
	*control
	pod Pod
	run func()
}

func (f *faulty) Authenticate(context.Context, string) (Pod, error) {
	f.run()
	return f.pod, nil
}

func TestADefectOfTheBackendEndsOneCall(t *testing.T) {
	for what, b := range map[string]*faulty{
		"a panic":                  {run: func() { panic("defect") }, pod: bot},
		"a pod without a name":     {run: func() {}},
		"a pod without its UID":    {run: func() {}, pod: Pod{Namespace: "support"}},
		"a policy that is no size": {run: func() {}, pod: bot},
	} {
		t.Run(what, func(t *testing.T) {
			b.control = newControl(t)
			b.rules(bot.UID, Policy{YAML: make([]byte, maxPolicy+1), Revision: "r"})
			s := &served{control: b.control, backend: b, address: "localhost:0"}
			s.begin(t, ServerOptions{})
			c := enginev1.NewLinkClient(s.dial(t))
			for range 2 { // the second shows that the first ended nothing else
				stream, err := c.Policy(as(t, "any"), &enginev1.PolicyRequest{})
				if err == nil {
					_, err = stream.Recv()
				}
				if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "defect") {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

func TestAControlThatSendsNothingIsReported(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	hang := make(chan struct{})
	defer close(hang)
	b := &faulty{control: s.control, pod: bot, run: func() { <-hang }}
	slow := &served{control: s.control, backend: b, address: "localhost:0"}
	slow.begin(t, ServerOptions{Authenticate: time.Hour})
	p := runs(t, slow, nil, func(c *Client) { c.first = 10 * time.Millisecond })
	until(t, "a report", func() bool { return strings.Contains(p.fault(PartControl), "sent no policy") })
}
