// Command demo is the engine at work in half a minute, without a network.
//
//	go run ./deploy/demo
//
// It starts a model server on loopback, builds the real aegrail-engine, and
// runs an agent behind it with `aegrail-engine exec`. The agent makes calls
// that its policy allows, one of them streamed, and calls that it does not.
// Then the log is verified and shown, and a copy with one changed byte is
// verified too.
//
// Every line of its output is checked: if the engine did anything else than
// what is printed, demo says what, and exits with 1.
//
// The same program is the agent: demo runs itself with the argument "agent"
// (agent.go). The model server is part of the first process (server.go).
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// patience bounds the whole demo but for building the engine: nothing here
// takes longer than a moment unless it hangs.
const patience = time.Minute

func main() {
	if len(os.Args) == 3 && os.Args[1] == "agent" {
		agent(os.Args[2], os.Getenv("HTTPS_PROXY"), os.Getenv("SSL_CERT_FILE"))
		return
	}
	if err := run(newPrinter(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is the stage: a directory with everything, and the parts in it.
type demo struct {
	*printer
	dir    string
	engine string // the program under demonstration
	server *server
}

// run shows one part after the other, and stops where one does not do what it is
// there to show.
func run(p *printer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "aegrail-demo-")
	if err != nil {
		return fmt.Errorf("making a directory to work in: %w", err)
	}
	defer os.RemoveAll(dir)
	d := &demo{printer: p, dir: dir, engine: filepath.Join(dir, "aegrail-engine")}
	d.title("aegrail-engine", "an agent nobody reviewed, a model server, and the engine between them")
	if err := d.build(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if d.server, err = startServer(d.file("server-root.pem")); err != nil {
		return err
	}
	defer d.server.Close()
	for _, act := range []func(context.Context) error{d.showAgent, d.showServer, d.showLog, d.showTampering, d.showCut} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }

// build makes the program that users run.
func (d *demo) build(ctx context.Context) error {
	d.note("building aegrail-engine, which takes a minute or two the first time …")
	c := exec.CommandContext(ctx, "go", "build", "-o", d.engine, "github.com/arpitcoder/aegrail-engine/cmd/aegrail-engine")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building aegrail-engine (run the demo inside its repository): %w\n%s", err, out)
	}
	return nil
}

// modelHost is the model server's name.
const modelHost = "model.localhost"

// policyText is the whole policy. Names below localhost are loopback everywhere
// (RFC 6761), so the demo needs no DNS; and loopback is refused unless a rule
// names it.
const policyText = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: demo}
spec:
  rules:
    - name: chat
      hosts: [` + modelHost + `]
      ports: [%d]
      addresses: [127.0.0.1/32, "::1/128"]
      methods: [POST]
      paths: [/v1/chat/completions]
`

// showAgent runs the agent and compares what it got with what it should have got.
func (d *demo) showAgent(ctx context.Context) error {
	if err := os.WriteFile(d.file("policy.yaml"), fmt.Appendf(nil, policyText, d.server.port), 0o600); err != nil {
		return fmt.Errorf("writing the policy: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	c := exec.CommandContext(ctx, d.engine, "exec", "--policy", "policy.yaml", "--audit-file", "audit.log",
		"--upstream-roots", "server-root.pem", "--", self, "agent", fmt.Sprintf("https://%s:%d", modelHost, d.server.port))
	c.Dir = d.dir
	var stderr bytes.Buffer
	c.Stderr = &stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		return fmt.Errorf("running the agent: %w", err)
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("running the agent: %w", err)
	}
	d.section("The policy allows the agent POST /v1/chat/completions at the model server and nothing else. It tried:")
	results, wrong := d.watch(stdout)
	if err := c.Wait(); err != nil {
		return fmt.Errorf("aegrail-engine exec: %w\n%s", err, &stderr)
	}
	if wrong == nil && results != len(calls("")) {
		wrong = fmt.Errorf("the agent made %d of %d calls", results, len(calls("")))
	}
	if wrong != nil {
		return fmt.Errorf("%w\n%s", wrong, &stderr)
	}
	return nil
}

// watch reads what the agent reports, a JSON object a line, until it ends.
func (d *demo) watch(agent io.Reader) (results int, wrong error) {
	lines := bufio.NewScanner(agent)
	for lines.Scan() {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("the agent said %q", lines.Text()))
			continue
		}
		if r.FirstEvent {
			// The server holds the rest of the stream back until now: had the
			// engine held back the beginning, the demo would end here.
			d.server.releaseStream()
			continue
		}
		results++
		d.call(r)
		wrong = errors.Join(wrong, r.check())
	}
	return results, errors.Join(wrong, lines.Err())
}

// showServer compares what the agent's calls were worth with what arrived.
func (d *demo) showServer(context.Context) error {
	seen := d.server.requests()
	want := []string{"POST /v1/chat/completions", "POST /v1/chat/completions"}
	if strings.Join(seen, ", ") != strings.Join(want, ", ") {
		return fmt.Errorf("the model server saw %q, the policy allows %q", seen, want)
	}
	d.section(fmt.Sprintf("The model server saw %d requests, each %s.", len(seen), seen[0]))
	return nil
}

// showLog verifies the log and shows it.
func (d *demo) showLog(ctx context.Context) error {
	shown, err := d.output(ctx, "audit", "show", "audit.log")
	if err != nil {
		return err
	}
	d.section("The log has a decision for each call, and an end for each that was sent:")
	d.command("aegrail-engine audit show audit.log", shown)
	for _, want := range []string{"/v1/files", "exfil.example", "DELETE"} {
		if !strings.Contains(shown, want) {
			return fmt.Errorf("audit show does not show %q", want)
		}
	}
	key, err := d.output(ctx, "audit", "key", "audit.log.key")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.file("key.pub"), []byte(key), 0o600); err != nil {
		return fmt.Errorf("writing the verifier key: %w", err)
	}
	verified, err := d.output(ctx, "audit", "verify", "audit.log", "--key", "key.pub")
	if err != nil {
		return fmt.Errorf("a sound log does not verify: %w", err)
	}
	d.command("aegrail-engine audit verify audit.log --key key.pub", verified)
	return nil
}

// showTampering turns a denial of a copy of the log into something milder, and
// shows that this is found.
func (d *demo) showTampering(ctx context.Context) error {
	log, err := os.ReadFile(d.file("audit.log"))
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	at := bytes.Index(log, []byte("exfil.example"))
	if at < 0 {
		return errors.New("the log does not name exfil.example")
	}
	log[at+len("ex")] = 'F'
	line := bytes.Count(log[:at], []byte("\n")) + 1
	if err := os.WriteFile(d.file("tampered.log"), log, 0o600); err != nil {
		return fmt.Errorf("writing the changed copy: %w", err)
	}
	d.section(fmt.Sprintf("One byte of line %d changed in a copy (exfil.example to exFil.example):", line))
	out, err := d.output(ctx, "audit", "verify", "tampered.log")
	d.command("aegrail-engine audit verify tampered.log", out)
	if err == nil {
		return errors.New("a changed log verifies")
	}
	if !strings.Contains(out, fmt.Sprintf("line %d", line)) {
		return fmt.Errorf("audit verify does not name line %d", line)
	}
	return nil
}

// showCut cuts the end off a copy of the log, which leaves a chain without a
// fault, and shows that it is missed where one checkpoint was kept elsewhere.
func (d *demo) showCut(ctx context.Context) error {
	log, err := os.ReadFile(d.file("audit.log"))
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(log, []byte("\n")), []byte("\n"))
	last := len(lines) - 1 // the engine's last word is a checkpoint
	kept, cut := lines[last], bytes.Join(lines[:last-3], nil)
	for name, data := range map[string][]byte{"kept-elsewhere": append(kept, '\n'), "cut.log": cut} {
		if err := os.WriteFile(d.file(name), data, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	d.section("The last four records cut off a copy. The chain is whole; what was kept elsewhere, one signed line, knows better:")
	out, err := d.output(ctx, "audit", "verify", "cut.log", "--anchor", "kept-elsewhere", "--key", "key.pub")
	d.command("aegrail-engine audit verify cut.log --anchor kept-elsewhere --key key.pub", out)
	if err == nil {
		return errors.New("a log without its end verifies")
	}
	if !strings.Contains(out, "cut off") {
		return errors.New("audit verify does not say that the end was cut off")
	}
	return nil
}

// output runs the engine with args and returns what it printed, both streams.
func (d *demo) output(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, d.engine, args...)
	c.Dir = d.dir
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("aegrail-engine %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}
