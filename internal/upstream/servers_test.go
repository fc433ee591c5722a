package upstream

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// authority is a CA for the origins of one test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	pem  []byte
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	a := &authority{key: key, pool: x509.NewCertPool()}
	a.cert = sign(t, template("test root", func(c *x509.Certificate) { c.IsCA = true }), key, nil, nil)
	a.pool.AddCert(a.cert)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	return a
}

func template(cn string, edit func(*x509.Certificate)) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
	}
	if edit != nil {
		edit(c)
	}
	if c.IsCA {
		c.KeyUsage = x509.KeyUsageCertSign
	}
	return c
}

func sign(t testing.TB, c *x509.Certificate, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatalf("signing %s: %v", c.Subject, err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// leaf is a certificate for the origin's name, edited.
func (a *authority) leaf(t testing.TB, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := sign(t, template("", func(c *x509.Certificate) {
		c.DNSNames = []string{originName}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if edit != nil {
			edit(c)
		}
	}), key, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// origin is a server whose every byte a test writes by itself.
type origin struct {
	addr  netip.AddrPort
	conns atomic.Int32
}

// listen serves each connection with serve, which owns it until it returns.
func listen(t testing.TB, conf *tls.Config, serve func(conn net.Conn)) *origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{addr: netip.MustParseAddrPort(ln.Addr().String())}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns = map[net.Conn]bool{}
	)
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			o.conns.Add(1)
			mu.Lock()
			conns[raw] = true
			mu.Unlock()
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer raw.Close()
				conn := raw
				if conf != nil {
					conn = tls.Server(raw, conf)
				}
				serve(conn)
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return o
}

// script answers the n-th request of each connection with replies[n], as it
// stands; "" closes. It reads requests without a body.
func script(replies ...string) func(net.Conn) {
	return func(conn net.Conn) {
		br := bufio.NewReader(conn)
		for _, reply := range replies {
			if _, err := readHead(br); err != nil {
				return
			}
			if reply == "" {
				return
			}
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, br)
	}
}

func readHead(br *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := br.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// serveHTTP serves a handler over HTTP/1.1 and, with TLS, HTTP/2.
func serveHTTP(t testing.TB, conf *tls.Config, h2 bool, h http.Handler) *origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{addr: netip.MustParseAddrPort(ln.Addr().String())}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			o.conns.Add(1)
		}
	}}
	srv.Protocols.SetHTTP1(!h2)
	srv.Protocols.SetHTTP2(h2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conf == nil {
			_ = srv.Serve(ln)
			return
		}
		srv.TLSConfig = conf.Clone()
		_ = srv.ServeTLS(ln, "", "")
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return o
}
