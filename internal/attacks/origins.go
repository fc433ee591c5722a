package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

//go:embed origin.js
var nodeOrigin []byte

//go:embed origin.py
var pythonOrigin []byte

// origin is a server whose parser is asked. It answers each request with its
// reading.
type origin struct {
	name  string
	start func(ctx context.Context, l *lab) (addr, version string, stop func(), err error)
}

func origins() []origin {
	return []origin{{"Go net/http", startGo}, {"nginx", startNginx}, {"Node", startNode}, {"Python h11", startPython}}
}

// readBack answers with what was read. Behind nginx the method and the path are
// in fields, since what nginx read is the question.
func readBack(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	one := reading{r.Method, []byte(r.URL.Path), body}
	if path := r.Header.Get("X-Nginx-Uri"); path != "" {
		one.Path = []byte(path)
	}
	answer, err := json.Marshal(one)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(answer) // a client that left
}

func startGo(context.Context, *lab) (addr, version string, stop func(), err error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", "", nil, err
	}
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(readBack)}
	go func() { _ = srv.Serve(ln) }()
	return ln.Addr().String(), runtime.Version(), func() { _ = srv.Close() }, nil
}

const nginxText = `daemon off;
master_process off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 512; }
http {
  access_log off;
  merge_slashes off;
  client_body_temp_path %[1]s/b;
  proxy_temp_path %[1]s/p;
  fastcgi_temp_path %[1]s/f;
  uwsgi_temp_path %[1]s/u;
  scgi_temp_path %[1]s/s;
  server {
    listen %[2]s;
    location / {
      proxy_pass http://%[3]s;
      proxy_set_header X-Nginx-Uri $uri;
    }
  }
}
`

// startNginx puts nginx before the Go origin: nginx has read a request, body and
// all, before it passes it on.
func startNginx(ctx context.Context, l *lab) (addr, version string, stop func(), err error) {
	path, version, err := debian(ctx, "nginx", "nginx-light", "-v")
	if err != nil {
		return "", "", nil, err
	}
	behind, _, stopGo, err := startGo(ctx, l)
	if err != nil {
		return "", "", nil, err
	}
	run, err := l.start(ctx, proxy{name: "nginx", command: func(_ *lab, dir, addr string) (*exec.Cmd, error) {
		conf := filepath.Join(dir, "nginx.conf")
		return exec.Command(path, "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", conf), os.WriteFile(conf, fmt.Appendf(nil, nginxText, dir, addr, behind), 0o644)
	}})
	if err != nil {
		stopGo()
		return "", "", nil, err
	}
	return run.addr, version, func() { run.stop(); stopGo() }, nil
}

func startNode(ctx context.Context, l *lab) (addr, version string, stop func(), err error) {
	path, version, err := debian(ctx, "node", "nodejs", "--version")
	if err != nil {
		return "", "", nil, err
	}
	return l.script(ctx, path, version, "origin.js", nodeOrigin)
}

// startPython uses the system's Python, for which Debian packages h11.
func startPython(ctx context.Context, l *lab) (addr, version string, stop func(), err error) {
	const python = "/usr/bin/python3"
	ask := func() (string, error) {
		out, err := exec.CommandContext(ctx, python, "-c", "import h11, platform; print(h11.__version__, 'on Python', platform.python_version())").Output()
		return strings.TrimSpace(string(out)), err
	}
	version, err = ask()
	if err != nil && os.Geteuid() == 0 {
		install := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", "python3", "python3-h11")
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := install.CombinedOutput(); err != nil {
			return "", "", nil, fmt.Errorf("installing python3-h11: %w: %s", err, lastLine(out))
		}
		version, err = ask()
	}
	if err != nil {
		return "", "", nil, fmt.Errorf("%s has no h11; `apt-get install python3-h11` brings it", python)
	}
	return l.script(ctx, python, version, "origin.py", pythonOrigin)
}

// script runs an origin that takes its port as its argument.
func (l *lab) script(ctx context.Context, interpreter, version, name string, text []byte) (string, string, func(), error) {
	run, err := l.start(ctx, proxy{name: name, command: func(_ *lab, dir, addr string) (*exec.Cmd, error) {
		file := filepath.Join(dir, name)
		return exec.Command(interpreter, file, portOf(addr)), os.WriteFile(file, text, 0o644)
	}})
	if err != nil {
		return "", "", nil, err
	}
	return run.addr, version, run.stop, nil
}

func lastLine(out []byte) string {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return string(lines[len(lines)-1])
}
