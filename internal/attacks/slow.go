package main

import (
	"context"
	"crypto/tls"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Row R1, by a tool that others use for it. slowhttptest knows no CONNECT and
// names no server in its ClientHello: it comes to the engine by an entrance that
// makes the CONNECT for it, under a rule that allows that. As with h2spec, the name
// localhost means the entrance for it and another address for the engine.

const (
	slowConns = 1000
	slowRate  = 250 // connections a second
	slowTime  = 15 * time.Second
	slowSize  = 1 << 20 // bytes of what is read slowly
)

// slowRuns are the scenarios of slowhttptest. Where it is not and cannot be
// installed, that is the error.
func slowRuns(ctx context.Context) ([]attackRun, error) {
	path, version, err := debian(ctx, "slowhttptest", "slowhttptest", "-h")
	if err != nil {
		return nil, err
	}
	run := func(what string, args ...string) attackRun {
		s := &slow{path: path, args: args}
		return attackRun{id: "R1", what: fmt.Sprintf("slowhttptest %s: %s", version, what), lasts: slowTime, prepare: s.prepare, attack: s.attack}
	}
	return []attackRun{
		run("slow heads", "-H", "-i", "2"),
		run("slow bodies", "-B", "-i", "2", "-s", "100000", "-t", "POST"),
		run("slow reading of 1 MiB", "-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "32"),
	}, nil
}

// slow is one scenario.
type slow struct {
	path     string
	args     []string
	entrance net.Listener
}

// prepare starts the server behind the engine and the entrance before it.
func (s *slow) prepare(l *lab) (end func(), err error) {
	if s.entrance, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	port := portOf(s.entrance.Addr().String())
	ln, err := net.Listen("tcp4", net.JoinHostPort(h2specAddr, port))
	if err != nil {
		return nil, errors.Join(err, s.entrance.Close())
	}
	large := make([]byte, slowSize)
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{l.keys.good}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // a body that breaks off is the attack's
			_, _ = w.Write(large)
		}),
	}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	l.morePolicy = fmt.Sprintf("    - {name: slow, hosts: [localhost], ports: [%s], methods: [GET, POST], paths: [\"/**\"], noSNI: allow, addresses: [%s/32]}\n", port, h2specAddr)
	return func() {
		l.morePolicy = ""
		_, _ = s.entrance.Close(), srv.Close()
	}, nil
}

// attack runs slowhttptest for slowTime and says what became of its connections.
func (s *slow) attack(ctx context.Context, f *flooder) (int64, string, error) {
	go enter(s.entrance, f.addr, "localhost:"+portOf(s.entrance.Addr().String()))
	dir, err := os.MkdirTemp("", "aegrail-slow-")
	if err != nil {
		return 0, "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, s.path, append([]string{
		"-c", strconv.Itoa(slowConns), "-r", strconv.Itoa(slowRate), "-l", fmt.Sprint(slowTime.Seconds()),
		"-p", "5", "-g", "-o", filepath.Join(dir, "slow"), "-u", "https://localhost:" + portOf(s.entrance.Addr().String()) + "/",
	}, s.args...)...)
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return 0, "", fmt.Errorf("slowhttptest: %w", err)
	}
	yields := giveWay(cmd.Process.Pid) // as the other attackers
	if err := errors.Join(yields, cmd.Wait()); err != nil {
		return 0, "", fmt.Errorf("slowhttptest: %w: %s", err, &said)
	}
	return slowFound(filepath.Join(dir, "slow.csv"))
}

// slowFound reads slowhttptest's own account, a line a second: second, closed,
// pending, connected, and whether its probe was answered.
func slowFound(file string) (int64, string, error) {
	in, err := os.Open(file)
	if err != nil {
		return 0, "", err
	}
	defer in.Close()
	rows, err := csv.NewReader(in).ReadAll()
	if err != nil {
		return 0, "", err
	}
	if len(rows) < 2 || len(rows[0]) < 4 {
		return 0, "", errors.New("slowhttptest says nothing of its connections")
	}
	most, closed := 0, 0
	for _, r := range rows[1:] {
		open, _ := strconv.Atoi(r[3]) // its own format
		closed, _ = strconv.Atoi(r[1])
		most = max(most, open)
	}
	return int64(most + closed), fmt.Sprintf("at most %d open at once, %d closed on it", most, closed), nil
}
