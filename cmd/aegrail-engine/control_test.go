package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// said is a standard error that can be read while it is written.
type said struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// sidecar is `serve --control` in this process, an origin that it may reach as
// localhost and as 127.0.0.1, and the control that says so.
type sidecar struct {
	*plane
	log    *said
	proxy  *url.URL
	origin string // port
}

func startSidecar(t *testing.T) *sidecar {
	t.Helper()
	originRoot := enginetest.NewRoot(t, "origin root")
	dir := t.TempDir()
	s := &sidecar{log: new(said), plane: newPlane(t, dir, enginetest.NewRoot(t, "namespace root"), enginetest.NewRoot(t, "control root"))}
	s.origin = answering(t, originRoot)
	if err := s.knows("the pod's token"); err != nil {
		t.Fatal(err)
	}
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop() })
	roots := originRoot.WriteFile(t, dir)
	// All of serve but its hardening, which is of a process: this one is a test's.
	o, c := new(serveOptions), new(cobra.Command)
	o.define(c.Flags())
	args := append(s.flags(), "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--upstream-roots="+roots, "--audit-file="+filepath.Join(dir, "audit.log"))
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	settings, err := readSettings(c, o, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	d, err := assemble(settings, io.Discard, newLogger(s.log, settings))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	s.await(t, "msg=serving")
	s.proxy = &url.URL{Scheme: "http", Host: attr(s.log.String(), "listen")}
	return s
}

// answering is an origin that answers 204 to everything, and its port.
func answering(t *testing.T, root *enginetest.Root) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	go server.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{root.Certificate(t, "localhost", "127.0.0.1")}}))
	t.Cleanup(func() { server.Close() })
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (s *sidecar) await(t *testing.T, text string) {
	t.Helper()
	if !enginetest.Eventually(func() bool { return strings.Contains(s.log.String(), text) }) {
		t.Fatalf("the engine never said %q:\n%s", text, s.log.String())
	}
}

// allows puts a policy in force that allows hosts, and returns at once.
func (s *sidecar) allows(t *testing.T, revision string, hosts ...string) {
	t.Helper()
	text := "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec:\n  agents: {namespaces: [support]}\n  rules:\n"
	for i, h := range hosts {
		text += fmt.Sprintf("    - {name: r%d, hosts: [%q], noSNI: allow, ports: [%s], addresses: [127.0.0.0/8, \"::1/128\"]}\n", i, h, s.origin)
	}
	if err := s.rules(revision, text); err != nil {
		t.Fatal(err)
	}
}

// client is an agent's program: it read its trust when it started.
func (s *sidecar) client(keepAlive bool) *http.Client {
	return &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			Proxy: http.ProxyURL(s.proxy), DisableKeepAlives: !keepAlive,
			TLSClientConfig: &tls.Config{RootCAs: s.namespace.Pool},
		},
	}
}

// get is one request to host.
func (s *sidecar) get(c *http.Client, host string) error {
	resp, err := c.Get("https://" + host + ":" + s.origin + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s %s", resp.Status, resp.Header.Get("X-Aegrail-Reason"))
	}
	return nil
}

// under has agents send requests to localhost, on kept and on new connections,
// while during runs. Not one may fail.
func (s *sidecar) under(t *testing.T, during func()) (sent int64) {
	t.Helper()
	var done atomic.Bool
	var count atomic.Int64
	var agents sync.WaitGroup
	for i := range 4 {
		c := s.client(i%2 == 0)
		agents.Go(func() {
			defer c.CloseIdleConnections()
			for !done.Load() {
				if err := s.get(c, "localhost"); err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	during()
	done.Store(true)
	agents.Wait()
	return count.Load()
}

// A policy changes while agents work. None of their requests fails, and a host
// that is allowed from now on never fails for want of a certificate.
func TestAPolicyFromControlChangesUnderLoad(t *testing.T) {
	s := startSidecar(t)
	s.allows(t, "first", "localhost")
	s.await(t, "revision=first")
	other := s.client(false)
	sent := s.under(t, func() {
		for i := range 8 {
			gained, lost := fmt.Sprintf("gained-%d", i), fmt.Sprintf("lost-%d", i)
			s.allows(t, gained, "localhost", "127.0.0.1/32")
			// Before: CONNECT is refused by policy. Never: no leaf, or an alert. Asked with
			// pauses, as refusals have a budget.
			var err error
			enginetest.Eventually(func() bool {
				err = s.get(other, "127.0.0.1")
				return err == nil || !strings.Contains(err.Error(), "not_in_allowlist")
			})
			if err != nil {
				t.Errorf("the host that was gained: %v", err)
				return
			}
			s.allows(t, lost, "localhost")
			s.await(t, "revision="+lost)
		}
	})
	if sent < 10 {
		t.Errorf("only %d requests were sent meanwhile", sent)
	}
}

// K2: the intermediate is renewed under the hands of clients that started
// before, and that know the root alone.
func TestK02TheIntermediateIsRenewedUnderLoad(t *testing.T) {
	s := startSidecar(t)
	s.set(func() { s.life = 3 * time.Second })
	s.allows(t, "first", "localhost")
	s.await(t, "revision=first")
	renewed := func(n int) func() bool {
		return func() (ok bool) {
			s.set(func() { ok = s.signed >= n })
			return ok
		}
	}
	sent := s.under(t, func() {
		if !enginetest.Eventually(renewed(4)) {
			t.Error("it is not renewed")
		}
	})
	if sent < 10 {
		t.Errorf("only %d requests were sent meanwhile", sent)
	}
}

// Control may be killed, hang or fail to sign: requests do not notice.
func TestARequestDoesNotWaitForControl(t *testing.T) {
	s := startSidecar(t)
	s.allows(t, "first", "localhost")
	s.await(t, "revision=first")
	s.under(t, func() {
		hang := make(chan struct{})
		s.set(func() { s.hang = hang })
		s.allows(t, "hangs", "localhost", "127.0.0.1/32")
		c := s.client(false)
		for range 20 {
			if err := s.get(c, "localhost"); err != nil {
				t.Errorf("while control hangs: %v", err)
			}
		}
		s.set(func() { s.hang = nil })
		close(hang)
		s.await(t, "revision=hangs")
		s.stop()
		for range 20 {
			if err := s.get(c, "localhost"); err != nil {
				t.Errorf("while control is gone: %v", err)
			}
		}
		if err := s.begin(); err != nil {
			t.Error(err)
		}
		s.allows(t, "back", "localhost")
		s.await(t, "revision=back")
	})
}

// Without control, an authority ends in its time and nothing passes: the
// refusal is in words where the client still reads them.
func TestAnAuthorityThatIsNotRenewedEnds(t *testing.T) {
	s := startSidecar(t)
	s.set(func() { s.life = 3 * time.Second })
	s.allows(t, "first", "localhost")
	s.await(t, "revision=first")
	c := s.client(false)
	if err := s.get(c, "localhost"); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.fault = fmt.Errorf("cert-manager is away") })
	last := ""
	if !enginetest.Eventually(func() bool {
		err := s.get(c, "localhost")
		if err != nil {
			last = err.Error()
		}
		return strings.Contains(last, "leaf_not_minted")
	}) {
		t.Fatalf("after its end: %s", last)
	}
	s.await(t, "what=ca")
	s.set(func() { s.fault = nil })
	if !enginetest.Eventually(func() bool { return s.get(c, "localhost") == nil }) {
		t.Error("it does not come back")
	}
}
