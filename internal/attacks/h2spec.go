package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// Row H9: h2spec against the engine, and against the standard library's server
// in the same run. The engine must not pass less.

const (
	h2specName   = "h2spec"
	h2serverName = "net/http"
	h2specModule = "github.com/summerwind/h2spec"
	h2specFile   = "h2spec.json"
	// h2specAddr is where the upstream of h2spec's requests is. h2spec connects
	// to localhost, so that name has to mean the engine for it and another
	// address for the engine.
	h2specAddr = "127.0.0.3"
)

// h2case is one case of h2spec.
type h2case struct {
	ID, What string
	Passed   bool
	Expected []string
	Got      string
}

// serveH2spec is what this program is with -role h2spec: h2spec prints as it
// goes and ends the process where it cannot connect.
func serveH2spec(o options) error {
	port, err := strconv.Atoi(portOf(o.listen))
	if err != nil {
		return err
	}
	c := &config.Config{Host: "localhost", Port: port, Path: "/", Timeout: 5 * time.Second, MaxHeaderLen: 4000, TLS: true, Insecure: true}
	var all []h2case
	for _, g := range []*spec.TestGroup{generic.Spec(), h2.Spec(), hpack.Spec()} {
		g.Test(c)
		all = collect(all, g)
	}
	out, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.dir, h2specFile), out, 0o600)
}

func collect(all []h2case, g *spec.TestGroup) []h2case {
	for i, t := range g.Tests {
		if t.Result == nil {
			continue
		}
		c := h2case{ID: fmt.Sprintf("%s/%d", g.ID(), i+1), What: t.Desc, Passed: !t.Result.Failed && !t.Result.Skipped}
		var failed *spec.TestError
		if errors.As(t.Result.Error, &failed) {
			c.Expected, c.Got = failed.Expected, failed.Actual
		} else if t.Result.Error != nil {
			c.Got = t.Result.Error.Error()
		}
		all = append(all, c)
	}
	for _, sub := range g.Groups {
		all = collect(all, sub)
	}
	return all
}

// conformance is what h2spec found.
type conformance struct {
	version          string
	engine, standard []h2case
}

func failures(all []h2case) (failed []h2case) {
	return slices.DeleteFunc(slices.Clone(all), func(c h2case) bool { return c.Passed })
}

// conform runs h2spec against both.
func (l *lab) conform(ctx context.Context) (*conformance, error) {
	f := &conformance{version: moduleVersion(h2specModule)}
	direct, err := l.h2Server("127.0.0.1:0", true)
	if err != nil {
		return nil, err
	}
	defer direct.Close()
	if f.standard, err = l.h2spec(ctx, direct.Addr); err != nil {
		return nil, err
	}
	entrance, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer entrance.Close()
	port := portOf(entrance.Addr().String())
	behind, err := l.h2Server(net.JoinHostPort(h2specAddr, port), false)
	if err != nil {
		return nil, err
	}
	defer behind.Close()
	l.morePolicy = fmt.Sprintf("    - {name: h2spec, hosts: [localhost], ports: [%s], paths: [\"/**\"], addresses: [%s/32]}\n", port, h2specAddr)
	r, err := l.start(ctx, enginePeer(""))
	if err != nil {
		return nil, err
	}
	defer r.stop()
	go enter(entrance, r.addr, "localhost:"+port)
	f.engine, err = l.h2spec(ctx, entrance.Addr().String())
	return f, err
}

// h2Server is the standard library's, with a certificate for localhost.
func (l *lab) h2Server(addr string, http2 bool) (*http.Server, error) {
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{
		Addr: ln.Addr().String(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{l.keys.good}},
		Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)   // a body that breaks off is h2spec's
			_, _ = w.Write(make([]byte, 64<<10)) // enough for its tests of windows
		}),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(http2)
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	return srv, nil
}

// enter makes a CONNECT to target for each connection that ln takes, so that a
// client without a proxy setting comes to the engine.
func enter(ln net.Listener, engine, target string) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", engine)
			if err != nil {
				return
			}
			defer out.Close()
			shorten(in, out)
			if _, err := fmt.Fprintf(out, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
				return
			}
			r := bufio.NewReader(out)
			resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
			if err != nil || resp.StatusCode != http.StatusOK {
				return
			}
			go func() {
				_, _ = io.Copy(out, in) // either side's end is the tunnel's
				endWrites(out)
			}()
			_, _ = io.Copy(in, r)
		}()
	}
}

// shorten gives both sides of an entrance little room, or it would read for a
// client that does not.
func shorten(in, out net.Conn) {
	const room = 16 << 10
	if c, ok := in.(*net.TCPConn); ok {
		_ = c.SetWriteBuffer(room) // what the kernel does not take is as it was
	}
	if c, ok := out.(*net.TCPConn); ok {
		_ = c.SetReadBuffer(room)
	}
}

// h2spec runs it against addr, in a process.
func (l *lab) h2spec(ctx context.Context, addr string) (all []h2case, err error) {
	dir, err := os.MkdirTemp(l.dir, h2specName)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, l.self, "-role", h2specName, "-listen", addr, "-dir", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("h2spec: %w: %s", err, lastLine(out))
	}
	data, err := os.ReadFile(filepath.Join(dir, h2specFile))
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(data, &all)
}

// lower says whether the engine passes less than the standard library.
func (f *conformance) lower() bool {
	return len(failures(f.engine)) > len(failures(f.standard))
}

func (f *conformance) print(w io.Writer) {
	for _, side := range []struct {
		name string
		all  []h2case
	}{{h2serverName, f.standard}, {engineName, f.engine}} {
		failed := failures(side.all)
		fmt.Fprintf(w, "h2spec %s: %s passes %d of %d\n", f.version, side.name, len(side.all)-len(failed), len(side.all))
		for _, c := range failed {
			fmt.Fprintf(w, "  %s %s: expected %s, got %s\n", c.ID, c.What, strings.Join(c.Expected, " or "), c.Got)
		}
	}
}
