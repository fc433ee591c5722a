package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func TestMain(m *testing.M) {
	commands := map[string]func(){
		"aegrail-engine": main,
		"agent":          agentMain,
		"lookup":         lookupMain,
		"forbid":         forbidMain,
	}
	maps.Copy(commands, attackers())
	testscript.Main(apart(m), commands)
}

// patience is how long a script waits for what must happen: far beyond
// anything but a hang.
const patience = 20 * time.Second

// TestScripts runs the commands as users do. Besides testscript's own there are
//
//	exits CODE COMMAND…       run a command that must end with that code
//	origin                    start an https server; sets ORIGIN (127.0.0.1:port), ORIGIN_PORT, ORIGIN_ROOT
//	receiver                  start an http server that appends the bodies of POST /NAME to the file NAME; sets RECEIVER
//	expand FILE…              replace $VARIABLES in files
//	serve [VAR=value…] ARG…   start `aegrail-engine serve`, wait until it serves; sets PROXY, ADMIN, DNS
//	await FILE TEXT           wait until the file, or serve's standard error (-), holds the text
//	ready TEXT | ! ready TEXT wait until /readyz says so, with status 200 or not
//	metric PATTERN            wait until a line of /metrics matches the pattern
//	control …                 be aegrail-control (see cmdControl)
//	terminate                 SIGTERM to serve; its standard error becomes stderr
func TestScripts(t *testing.T) {
	runScripts(t, "script", nil)
}

// heedSignals gives commands of t the usual dispositions, also where these tests
// run under nohup or in a script's background: what is ignored there is inherited,
// and a shell cannot trap it. A signal that is caught here is at its default in a
// child.
func heedSignals(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} { // Go's runtime catches all others
		if signal.Ignored(s) {
			caught := make(chan os.Signal, 1)
			signal.Notify(caught, s)
			t.Cleanup(func() { signal.Stop(caught) })
		}
	}
}

// harnessEnv are the variables by which go test tells programs what to do: where
// coverage goes, and how the race detector behaves.
func harnessEnv() []string { return []string{"GOCOVERDIR", "GORACE"} }

// script is a command of a testscript.
type script = func(ts *testscript.TestScript, neg bool, args []string)

// runScripts runs testdata/dir with the commands of TestScripts and more.
func runScripts(t *testing.T, dir string, more map[string]script) {
	t.Helper()
	heedSignals(t)
	root := enginetest.NewRoot(t, "script origin root")
	tlsConfig := &tls.Config{Certificates: []tls.Certificate{root.Certificate(t, "127.0.0.1")}, NextProtos: []string{"http/1.1"}}
	cmds := map[string]script{
		"exits": cmdExits, "origin": cmdOrigin(tlsConfig, root.PEM), "expand": cmdExpand, "serve": cmdServe,
		"await": cmdAwait, "ready": cmdReady, "metric": cmdMetric, "receiver": cmdReceiver, "admin": cmdAdmin, "terminate": cmdTerminate, "hup": cmdHup,
		"control": cmdControl(enginetest.NewRoot(t, "namespace root"), enginetest.NewRoot(t, "control root"), t),
	}
	maps.Copy(cmds, more)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			for _, name := range harnessEnv() {
				e.Setenv(name, os.Getenv(name))
			}
			e.Values[serverKey{}] = new(server)
			e.Values[planeKey{}] = new(*plane)
			return nil
		},
		Cmds: cmds,
	})
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func cmdOrigin(config *tls.Config, rootPEM []byte) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 0 {
			ts.Fatalf("usage: origin")
		}
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		ts.Check(err)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.URL.Path == "/hangs" {
				<-r.Context().Done() // until the engine has gone
				return
			}
			fmt.Fprintf(w, "origin saw %s %s %s\n", r.Method, r.URL.RequestURI(), body)
		})}
		go server.Serve(tls.NewListener(ln, config))
		ts.Defer(func() { server.Close() })
		port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
		file := ts.MkAbs("origin-root.pem")
		ts.Check(os.WriteFile(file, rootPEM, 0o600))
		ts.Setenv("ORIGIN", "127.0.0.1:"+port)
		ts.Setenv("ORIGIN_PORT", port)
		ts.Setenv("ORIGIN_ROOT", file)
	}
}

func cmdReceiver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: receiver")
	}
	dir, mu := ts.MkAbs("."), new(sync.Mutex)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(body)
		}
		f, err := os.OpenFile(filepath.Join(dir, path.Base(r.URL.Path)), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = io.Copy(f, body)
			if r.Header.Get("Content-Type") == "text/plain" {
				_, _ = f.WriteString("\n") // notes are parted by one empty line
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	ts.Defer(server.Close)
	ts.Setenv("RECEIVER", strings.TrimPrefix(server.URL, "http://"))
}

func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// server is the serve of a script.
type server struct {
	cmd    *exec.Cmd
	exited chan error

	mu     sync.Mutex
	stderr strings.Builder // guarded by mu
}

type serverKey struct{}

func serverOf(ts *testscript.TestScript) *server { return ts.Value(serverKey{}).(*server) }

func (s *server) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.String()
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	if neg || s.cmd != nil {
		ts.Fatalf("usage: serve [VAR=value…] ARG…, once until terminate")
	}
	*s = server{}
	env := []string{
		"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "TMPDIR=" + ts.Getenv("TMPDIR"),
		envPrefix + "LISTEN=127.0.0.1:0", envPrefix + "ADMIN_LISTEN=127.0.0.1:0",
	}
	for _, name := range harnessEnv() {
		env = append(env, name+"="+ts.Getenv(name))
	}
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	path, err := exec.LookPath("aegrail-engine")
	ts.Check(err)
	s.cmd = &exec.Cmd{Path: path, Args: append([]string{"aegrail-engine", "serve"}, args...), Env: env, Dir: ts.MkAbs(".")}
	out, err := os.Create(ts.MkAbs("serve.out"))
	ts.Check(err)
	defer out.Close()
	s.cmd.Stdout = out
	stderr, err := s.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	s.exited = make(chan error, 1)
	go func() {
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			s.mu.Lock()
			s.stderr.WriteString(line)
			s.mu.Unlock()
			if err != nil {
				s.exited <- s.cmd.Wait()
				return
			}
		}
	}()
	ts.Defer(func() {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
	})
	if !enginetest.Eventually(func() bool { return strings.Contains(s.said(), "msg=serving") || len(s.exited) > 0 }) || len(s.exited) > 0 {
		ts.Fatalf("serve did not start:\n%s", s.said())
	}
	ts.Setenv("PROXY", attr(s.said(), "listen"))
	_, tlsPort, _ := strings.Cut(attr(s.said(), "listen_tls"), ":")
	ts.Setenv("PROXY_TLS_PORT", tlsPort)
	ts.Setenv("ADMIN", attr(s.said(), "admin"))
	ts.Setenv("DNS", attr(s.said(), "dns"))
}

// attr is the value of an attribute in the text form of slog.
func attr(log, name string) string {
	_, rest, _ := strings.Cut(log, " "+name+"=")
	end := strings.IndexAny(rest, " \n")
	if end < 0 {
		return ""
	}
	return rest[:end]
}

func cmdTerminate(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-s.exited:
		s.cmd = nil
		fmt.Fprint(ts.Stderr(), s.said())
		if (err != nil) != neg {
			ts.Fatalf("serve ended with %v:\n%s", err, s.said())
		}
	case <-time.After(patience):
		ts.Fatalf("serve did not stop:\n%s", s.said())
	}
}

func cmdHup(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(serverOf(ts).cmd.Process.Signal(syscall.SIGHUP))
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE|- TEXT")
	}
	text := func() string {
		if args[0] == "-" {
			return serverOf(ts).said()
		}
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil {
			return ""
		}
		return string(data)
	}
	if !enginetest.Eventually(func() bool { return strings.Contains(text(), args[1]) }) {
		ts.Fatalf("no %q in %s:\n%s", args[1], args[0], text())
	}
}

func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] ready TEXT")
	}
	want, last := http.StatusOK, ""
	if neg {
		want = http.StatusServiceUnavailable
	}
	if !enginetest.Eventually(func() bool {
		resp, err := http.Get("http://" + ts.Getenv("ADMIN") + "/readyz")
		if err != nil {
			last = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last = resp.Status + "\n" + string(body)
		return resp.StatusCode == want && strings.Contains(string(body), args[0])
	}) {
		ts.Fatalf("/readyz: %s", last)
	}
}

func cmdAdmin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: admin PATH FILE")
	}
	resp, err := http.Get("http://" + ts.Getenv("ADMIN") + args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s: %s", args[0], resp.Status, body)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o600))
}

func cmdMetric(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: metric PATTERN")
	}
	want, err := regexp.Compile("(?m)^" + args[0] + "$")
	ts.Check(err)
	last := ""
	if !enginetest.Eventually(func() bool {
		resp, err := http.Get("http://" + ts.Getenv("ADMIN") + "/metrics")
		if err != nil {
			last = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last = string(body)
		return want.MatchString(last)
	}) {
		ts.Fatalf("no line like %q in /metrics: %s", args[0], last)
	}
}

// agentMain is an agent: it makes one request the way programs do, by the
// variables of its environment alone.
//
//	agent METHOD URL [BODY]
func agentMain() {
	if err := agent(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(3)
	}
}

// lookupMain asks a DNS server for the addresses of a name.
//
//	lookup udp|tcp SERVER NAME
func lookupMain() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: lookup udp|tcp SERVER NAME")
		os.Exit(2)
	}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, os.Args[1], os.Args[2])
	}}
	addrs, err := r.LookupNetIP(ctx, "ip", os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, "lookup:", err)
		os.Exit(3)
	}
	for _, a := range addrs {
		fmt.Println(a)
	}
}

func agent(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: agent METHOD URL [BODY]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body := strings.Join(args[2:], " ")
	req, err := http.NewRequestWithContext(ctx, args[0], args[1], strings.NewReader(body))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		roots.AppendCertsFromPEM(data)
	}
	// Go's own reading of the variables leaves localhost out, which is where the
	// scripts' origins are.
	proxy, err := url.Parse(os.Getenv("HTTPS_PROXY"))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if _, port, _ := net.SplitHostPort(addr); strings.HasPrefix(addr, "proxy.internal.test:") {
				addr = "127.0.0.1:" + port // the name that --listen-tls-name gives the proxy
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Printf("%s\n%s", resp.Status, answer)
	return err
}
