package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// The world, as the cluster sees it: names, and the addresses in the node's
// network namespace that answer for them.
const (
	modelHost = "api.model.example" // what policy allows
	otherHost = "files.other.example"
)

func world() map[string]string {
	return map[string]string{modelHost: "1.2.3.4", otherHost: "1.2.3.5"}
}

// seen is a request that arrived at an origin.
type seen struct {
	Host, Method, Path, From string
	BodySHA256               string
	Fields                   string // of the head, as Go prints them
}

// origins answer for every host of the world, over TLS, and plainly where a
// client dials an address and speaks no TLS: what arrives there got past the engine.
type origins struct {
	ca      *authority
	servers []*http.Server
	udp     []net.PacketConn

	mu       sync.Mutex
	requests []seen
	packets  []string // datagrams: where they went
}

func startOrigins() (*origins, error) {
	ca, err := newAuthority("the world")
	if err != nil {
		return nil, err
	}
	o := &origins{ca: ca}
	der, key, err := ca.issue(pkix.Name{CommonName: "origins"}, modelHost, otherHost, "*.model.example")
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	for _, address := range []string{"1.2.3.4:443", "1.2.3.5:443", "[2606:e2e::4]:443", "1.2.3.4:80", "[2606:e2e::4]:80", "1.2.3.4:9999"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("an origin at %s: %w", address, err)
		}
		s := &http.Server{Handler: http.HandlerFunc(o.answer), TLSConfig: config}
		o.servers = append(o.servers, s)
		if _, port, _ := net.SplitHostPort(address); port == "443" {
			go s.ServeTLS(l, "", "")
		} else {
			go s.Serve(l)
		}
	}
	for _, address := range []string{"1.2.3.4:443", "1.2.3.4:53", "1.2.3.4:9999", "[2606:e2e::4]:443"} {
		p, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil, fmt.Errorf("an origin at %s: %w", address, err)
		}
		o.udp = append(o.udp, p)
		go o.echo(p)
	}
	return o, nil
}

// echo answers datagrams until p is closed.
func (o *origins) echo(p net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := p.ReadFrom(buffer)
		if err != nil {
			return
		}
		o.mu.Lock()
		o.packets = append(o.packets, p.LocalAddr().String()+" from "+from.String())
		o.mu.Unlock()
		p.WriteTo(buffer[:n], from)
	}
}

// datagrams are those that arrived so far.
func (o *origins) datagrams() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.packets...)
}

// forget has datagrams be as if none had arrived.
func (o *origins) forget() {
	o.mu.Lock()
	o.packets = nil
	o.mu.Unlock()
}

func (o *origins) stop() {
	for _, p := range o.udp {
		p.Close()
	}
	for _, s := range o.servers {
		s.Close()
	}
}

// answer says what arrived, and repeats it.
func (o *origins) answer(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	body := io.TeeReader(r.Body, hash)
	data, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err == nil {
		_, err = io.Copy(io.Discard, body)
	}
	if err != nil {
		return // the client is gone
	}
	o.mu.Lock()
	o.requests = append(o.requests, seen{r.Host, r.Method, r.URL.Path, r.RemoteAddr, hex.EncodeToString(hash.Sum(nil)), fmt.Sprint(r.Header)})
	o.mu.Unlock()
	fmt.Fprintf(w, "%s %s %s\n%s", r.Method, r.Host, r.URL.Path, data)
}

// arrived are the requests so far that match.
func (o *origins) arrived(match func(seen) bool) (out []seen) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.requests {
		if match(r) {
			out = append(out, r)
		}
	}
	return out
}

// dialFromNode sends text to an address of the cluster and returns what is answered first.
func dialFromNode(address, text string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	return string(answer[:n]), err
}
