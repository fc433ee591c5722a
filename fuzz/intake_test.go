package fuzz

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// FuzzConnectLine: a CONNECT target that is accepted has one canonical form,
// and saying that form again gives the same authority.
func FuzzConnectLine(f *testing.F) {
	for _, target := range []string{
		"api.openai.com:443", "EXAMPLE.com.:443", "xn--bcher-kva.test:8443", "[::1]:443", "10.0.0.1:443",
		"127.1:443", "a.test:0443", "a.test:+443", "a.test", "a.test:443:80", "evil.test\x00.allowed.test:443",
		"user@a.test:443", "http://a.test:443/", "[fe80::1%25eth0]:443", "a..test:443", strings.Repeat("a", 64) + ".test:443",
	} {
		f.Add([]byte("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n"))
	}
	f.Add([]byte("CONNECT a.test:443 HTTP/1.0\r\n\r\n"))
	f.Add([]byte("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var h http1.RequestHead
		if http1.NewReader(bytes.NewReader(line)).ReadRequest(&h) != nil || !intake.IsConnect(&h) {
			return
		}
		var flow intake.Flow
		if flow.Connect(&h) != nil {
			return
		}
		if h.Framing != http1.NoBody {
			t.Fatalf("a CONNECT with a body was accepted: %q", line)
		}
		a, err := canon.ParseAuthority(flow.Target, 0)
		if err != nil {
			return
		}
		if a.Host == "" || a.Port == 0 {
			t.Fatalf("%q gives %+v", flow.Target, a)
		}
		again := net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
		b, err := canon.ParseAuthority(again, 0)
		if err != nil || a != b {
			t.Fatalf("%q is %+v, said again as %q it is %+v (%v)", flow.Target, a, again, b, err)
		}
		if strings.ContainsAny(a.Host, "\x00\r\n \t@/\\*,%") {
			t.Fatalf("%q gives host %q", flow.Target, a.Host)
		}
	})
}

// FuzzClientHello: what is read ahead of a hello is kept to the byte, and
// reading it again gives the same names.
func FuzzClientHello(f *testing.F) {
	for _, cfg := range []*tls.Config{
		{ServerName: "api.allowed.test", NextProtos: []string{"h2", "http/1.1"}},
		{ServerName: "a.test", MaxVersion: tls.VersionTLS12},
		{InsecureSkipVerify: true},
	} {
		f.Add(firstFlight(f, cfg))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := &readOnly{r: bytes.NewReader(sent)}
		hello, err := intake.PeekHello(conn)
		if !bytes.HasPrefix(sent, hello.Raw) {
			t.Fatal("the bytes kept are not those that were sent")
		}
		if err != nil {
			return
		}
		again, err := intake.PeekHello(&readOnly{r: io.MultiReader(bytes.NewReader(hello.Raw), conn)})
		if err != nil || again.ServerName != hello.ServerName || again.ECH != hello.ECH {
			t.Fatalf("read again: %q, %v; was %q", again.ServerName, err, hello.ServerName)
		}
	})
}

func firstFlight(f *testing.F, cfg *tls.Config) []byte {
	f.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go func() { _ = tls.Client(theirs, cfg).Handshake() }()
	buf := make([]byte, 16<<10)
	n, err := ours.Read(buf)
	if err != nil {
		f.Fatal(err)
	}
	return buf[:n]
}

// readOnly is a connection that ends with its bytes.
type readOnly struct{ r io.Reader }

func (c *readOnly) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (c *readOnly) Close() error                     { return nil }
func (c *readOnly) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (c *readOnly) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (c *readOnly) SetDeadline(time.Time) error      { return nil }
func (c *readOnly) SetReadDeadline(time.Time) error  { return nil }
func (c *readOnly) SetWriteDeadline(time.Time) error { return nil }
