package origin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The origins' names.
const (
	Models = "models.test"
	GRPC   = "grpc.test"
	Socket = "socket.test"
	Git    = "git.test"
	Nginx  = "nginx.test"
	Raw    = "raw.test"
)

func names() []string { return []string{Models, GRPC, Socket, Git, Nginx, Raw} }

// address is where the origin called name is.
func address(name string) string {
	for i, n := range names() {
		if n == name {
			return fmt.Sprintf("127.0.10.%d", i+1)
		}
	}
	panic("no origin is called " + name)
}

// Hosts is an /etc/hosts that knows the origins.
func Hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, n := range names() {
		fmt.Fprintf(&b, "%s %s\n", address(n), n)
	}
	return b.String()
}

// Config says what the origins that are programs of their own need.
type Config struct {
	Dir   string // an empty directory to work in
	Nginx string // the program
}

// Servers are all origins, running.
type Servers struct {
	RootsPEM []byte // the root to trust for them
	Uploads  string // the directory that nginx stores in
	GitRoot  string // the directory of the repositories, for tests to fill

	ca      *authority
	raw     *rawServer
	nginx   *nginxServer
	streams *streams
	closers []func() error

	mu   sync.Mutex
	seen []Request // guarded by mu
}

// Request is one request that an origin answered.
type Request struct {
	Scheme, Method, Host, Path string
	Status                     int
	Proto                      string // as the origin got it: HTTP/1.1 or HTTP/2.0
}

// String is the request without the protocol, as tests write it down.
func (r Request) String() string {
	return fmt.Sprintf("%s %s://%s%s %d", r.Method, r.Scheme, r.Host, r.Path, r.Status)
}

// Start starts every origin. The caller is in a network namespace where the
// ports are free, with Hosts as its /etc/hosts.
func Start(c Config) (_ *Servers, err error) {
	s := &Servers{Uploads: filepath.Join(c.Dir, "uploads"), GitRoot: filepath.Join(c.Dir, "git"), streams: newStreams()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, dir := range []string{s.Uploads, s.GitRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if s.ca, err = newAuthority(); err != nil {
		return nil, err
	}
	s.RootsPEM = s.ca.pem()
	gitHandler, err := s.gitHandler()
	if err != nil {
		return nil, err
	}
	for _, h := range []struct {
		name    string
		handler http.Handler
		plain   bool // on port 80 too
		h2      bool
	}{
		{Models, s.modelsHandler(), true, true},
		{Socket, s.socketHandler(), true, false},
		{Git, gitHandler, false, true},
	} {
		if err := s.serveHTTP(h.name, s.note(h.name, h.handler), h.plain, h.h2); err != nil {
			return nil, fmt.Errorf("starting %s: %w", h.name, err)
		}
	}
	if err := s.startGRPC(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", GRPC, err)
	}
	if err := s.startRaw(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", Raw, err)
	}
	if err := s.startNginx(c); err != nil {
		return nil, fmt.Errorf("starting %s: %w", Nginx, err)
	}
	return s, nil
}

// serveHTTP runs Go's server for name with TLS on 443 and, if plain, without
// on 80.
func (s *Servers) serveHTTP(name string, h http.Handler, plain, h2 bool) error {
	leaf, err := s.ca.leaf(name)
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(h2)
	server := &http.Server{
		Handler: h, Protocols: protocols, TLSConfig: &tls.Config{Certificates: []tls.Certificate{leaf}},
		ReadHeaderTimeout: 30 * time.Second,
	}
	s.closers = append(s.closers, func() error { _ = server.Close(); return nil }) // it closes its listeners twice and says so
	secure, err := net.Listen("tcp", net.JoinHostPort(address(name), "443"))
	if err != nil {
		return err
	}
	go func() { _ = server.ServeTLS(secure, "", "") }()
	if !plain {
		return nil
	}
	open, err := net.Listen("tcp", net.JoinHostPort(address(name), "80"))
	if err != nil {
		return err
	}
	// A server of its own: one that serves plainly first never speaks HTTP/2 over TLS, which it offers all the same.
	unprotected := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	s.closers = append(s.closers, unprotected.Close)
	go func() { _ = unprotected.Serve(open) }()
	return nil
}

// note records what h answers, when it has answered.
func (s *Servers) note(name string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := &noting{ResponseWriter: w, status: http.StatusOK}
		// Deferred: a WebSocket's handler ends long after its status is known.
		defer func() {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			s.saw(Request{Scheme: scheme, Method: r.Method, Host: name, Path: r.URL.EscapedPath(), Status: n.status, Proto: r.Proto})
		}()
		h.ServeHTTP(n, r)
	})
}

func (s *Servers) saw(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r)
}

// Seen returns what the origins answered since the last call.
func (s *Servers) Seen() ([]Request, error) {
	nginx, err := s.nginx.answered()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := append(s.seen, nginx...)
	s.seen = nil
	return out, nil
}

// Close ends every origin.
func (s *Servers) Close() error {
	var err error
	for _, c := range s.closers {
		err = errors.Join(err, c())
	}
	return err
}

// noting remembers the final status.
type noting struct {
	http.ResponseWriter
	status int
}

func (n *noting) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		n.status = status
	}
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find Flush and Hijack.
func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }
