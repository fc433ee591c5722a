package upstream

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestUpstreamTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.leaf(t, nil)
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }

	selfKey := newKey(t)
	self := sign(t, template("self", func(c *x509.Certificate) { c.DNSNames = []string{originName} }), selfKey, nil, nil)
	middleKey := newKey(t)
	middle := sign(t, template("middle", func(c *x509.Certificate) { c.IsCA = true }), middleKey, ca.cert, ca.key)
	below := (&authority{cert: middle, key: middleKey}).leaf(t, func(c *x509.Certificate) {
		c.IssuingCertificateURL = []string{"http://ca.test/middle.crt"}
	})
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := sign(t, template("", func(c *x509.Certificate) { c.DNSNames = []string{originName} }), weakKey, ca.cert, ca.key)

	chain := good
	chain.Certificate = append([][]byte(nil), good.Certificate...)
	parent, parentKey := ca.cert, ca.key
	for i := range 100 {
		c := sign(t, template(fmt.Sprint("link ", i), func(c *x509.Certificate) { c.IsCA = true }), middleKey, parent, parentKey)
		parent, parentKey = c, middleKey
		chain.Certificate = append([][]byte{c.Raw}, chain.Certificate...)
	}
	end := (&authority{cert: parent, key: parentKey}).leaf(t, nil)
	chain.Certificate = append(end.Certificate, chain.Certificate[:100]...)
	chain.PrivateKey, chain.Leaf = end.PrivateKey, nil

	many := func(n int) *tls.Config {
		return with(ca.leaf(t, func(c *x509.Certificate) {
			for i := range n {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("name-%d.example.test", i))
			}
		}))
	}
	stapled := many(900).Certificates[0] // as many as may be
	stapled.OCSPStaple = make([]byte, 60<<10)
	sha1 := sha1Leaf(t, ca)

	for _, row := range []struct {
		id   string
		conf *tls.Config
		want string
	}{
		{"T1 expired", with(ca.leaf(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		})), ReasonCertExpired},
		{"T2 not yet valid", with(ca.leaf(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })), ReasonCertNotYetValid},
		{"T3 wrong name", with(ca.leaf(t, func(c *x509.Certificate) { c.DNSNames = []string{"else.test"} })), ReasonCertName},
		{"T4 self-signed", with(tls.Certificate{Certificate: [][]byte{self.Raw}, PrivateKey: selfKey}), ReasonCertSelfSigned},
		{"T5 unknown root", with(other.leaf(t, nil)), ReasonCertUnknownRoot},
		{"T6 missing intermediate", with(below), ReasonCertIncomplete},
		{"T7 CN only", with(ca.leaf(t, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.Subject.CommonName = nil, nil, originName
		})), ReasonCertNoSAN},
		{"T8 SHA-1", with(sha1), ReasonCertWeakSignature},
		{"T9 RSA-1024", with(tls.Certificate{Certificate: [][]byte{weak.Raw}, PrivateKey: weakKey}), ReasonCertWeakKey},
		{"T10 clientAuth only", with(ca.leaf(t, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})), ReasonCertUsage},
		{"T11 2000 SANs", many(2000), ReasonCertTooLarge},
		{"T11 10 000 SANs", many(10000), ReasonCertTooLarge},
		{"T11 a good leaf in a handshake that is larger than may be held", with(stapled), ReasonCertTooLarge},
		{"T12 a chain of 100", with(chain), ReasonCertTooLarge},
		{"T13 TLS 1.1", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ReasonTLSVersion},
		{"T14 client certificate, TLS 1.3", &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert}, ReasonClientCertWanted},
		{"T14 client certificate, TLS 1.2", &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, ReasonClientCertWanted},
		{"none of our curves", &tls.Config{Certificates: []tls.Certificate{good}, CurvePreferences: []tls.CurveID{tls.CurveP521}}, ReasonTLS},
	} {
		t.Run(row.id, func(t *testing.T) {
			w := newWorld(t, ca, nil)
			o := listen(t, row.conf, script(reply("no")))
			_, err := w.send(o, "GET / HTTP/1.1", nil)
			wantReason(t, err, row.want+" 502")
			if w.idle() != 0 {
				t.Error("kept")
			}
			// The next connection is inspected as before.
			_, err = w.send(o, "GET / HTTP/1.1", nil)
			wantReason(t, err, row.want+" 502")
			ok := listen(t, with(good), script(reply("ok")))
			w.get(ok, "ok")
		})
	}
}

func TestT14OptionalClientCertificateIsAnsweredWithNone(t *testing.T) {
	ca := newAuthority(t)
	o := listen(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}, ClientAuth: tls.RequestClientCert}, script(reply("ok")))
	newWorld(t, ca, nil).get(o, "ok")
}

func TestT15CutWithoutCloseNotify(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	until := "HTTP/1.1 200 OK\r\n\r\nall of it?"
	cut := listen(t, conf, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, until)
		_ = conn.(*tls.Conn).NetConn().Close()
	})
	w := newWorld(t, ca, nil)
	res, err := w.send(cut, "GET / HTTP/1.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = readAll(res)
	wantReason(t, err, "upstream_truncated 502")
	res.Close()
	whole := listen(t, conf, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, until)
		_ = conn.Close()
	})
	w.get(whole, "all of it?")
	silent := listen(t, nil, func(net.Conn) {})
	_, err = w.send(silent, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_truncated 502")
	http := listen(t, nil, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	_, err = w.send(http, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_tls 502")
}

func TestCloseNotifyBehindTheAnswerIsNotSurplus(t *testing.T) {
	ca := newAuthority(t)
	closed := make(chan struct{}, 3)
	o := listen(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		_ = conn.Close()
		closed <- struct{}{}
	})
	w := newWorld(t, ca, nil)
	for i := range 3 {
		if i > 0 {
			<-closed // a request that overtakes the close would rightly fail
		}
		if res := w.get(o, ""); res.Status != 204 || res.Reused {
			t.Errorf("%+v", res)
		}
	}
}

func TestRootsAndPinsOfARule(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	leaf := other.leaf(t, nil)
	o := listen(t, &tls.Config{Certificates: []tls.Certificate{leaf}}, script(reply("ok"), reply("ok")))
	w := newWorld(t, ca, nil)
	_, err := w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_cert_unknown_root 502")
	plain := w.rule
	w.rule.roots = other.pem
	w.get(o, "ok")
	rooted := w.rule
	w.rule.pins = [][32]byte{sha256.Sum256(leaf.Leaf.RawSubjectPublicKeyInfo)}
	if res := w.get(o, "ok"); res.Reused {
		t.Error("a connection that was not held to the pins was used")
	}
	w.rule.pins = [][32]byte{sha256.Sum256(other.cert.RawSubjectPublicKeyInfo)}
	w.get(o, "ok")
	w.rule.pins = [][32]byte{{1}}
	_, err = w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_cert_pin 502")
	// D8, for roots: neither the connection nor the TLS session serves a rule without them.
	w.rule = plain
	_, err = w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_cert_unknown_root 502")
	w.rule = rooted
	if res := w.get(o, "ok"); !res.Reused {
		t.Error("not reused")
	}
}

func TestSessionsAreResumed(t *testing.T) {
	ca := newAuthority(t)
	resumed := make(chan bool, 4)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	o := listen(t, conf, func(conn net.Conn) {
		_, _ = readHead(bufio.NewReader(conn))
		resumed <- conn.(*tls.Conn).ConnectionState().DidResume
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	w := newWorld(t, ca, nil)
	w.get(o, "")
	w.get(o, "")
	if <-resumed || !<-resumed {
		t.Error("the second handshake was a full one")
	}
	res, err := w.send(o, "GET / HTTP/1.1", &SendOptions{Principal: "another"})
	w.expect(res, err, "")
	if <-resumed {
		t.Error("one principal's ticket was shown for another")
	}
}

func TestHandshakeEnds(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	o := listen(t, nil, func(net.Conn) { <-stop })
	w := newWorld(t, nil, func(c *Config) { c.HandshakeTimeout = 20 * time.Millisecond })
	_, err := w.send(o, "GET / HTTP/1.1", nil)
	wantReason(t, err, "upstream_timeout 504")
	seen := make(chan struct{})
	o2 := listen(t, nil, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		close(seen)
		<-stop
	})
	w = newWorld(t, nil, nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-seen; cancel() }()
	_, err = w.sendTo(ctx, o2.url("https"), "GET / HTTP/1.1", nil)
	wantReason(t, err, "canceled 502")
}

// sha1Leaf is a leaf signed with SHA-1, which crypto/x509 does not make any
// more: the signature algorithm's last byte (1.2.840.113549.1.1.11 is SHA-256
// with RSA, .5 is SHA-1) is changed in both places. The signature then is wrong
// too, but a verifier must not get as far.
func sha1Leaf(t *testing.T, _ *authority) tls.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	root := sign(t, template("rsa root", func(c *x509.Certificate) { c.IsCA = true }), key, nil, nil)
	c := sign(t, template("", func(c *x509.Certificate) { c.DNSNames = []string{originName} }), key, root, key)
	oid := "\x2a\x86\x48\x86\xf7\x0d\x01\x01"
	raw := strings.ReplaceAll(string(c.Raw), oid+"\x0b", oid+"\x05")
	return tls.Certificate{Certificate: [][]byte{[]byte(raw)}, PrivateKey: key}
}
