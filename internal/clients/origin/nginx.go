package origin

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nginxConf has one process, so that nothing is left when it is killed, and
// all of its files in %[1]s. root is the one user of the suite's namespace.
const nginxConf = `daemon off;
master_process off;
user root root;
error_log %[1]s/nginx/error.log;
pid %[1]s/nginx/pid;
events { worker_connections 256; }
http {
	types { text/plain txt; }
	log_format seen '$scheme $request_method $request_uri $status $server_protocol';
	access_log %[1]s/nginx/seen.log seen;
	client_body_temp_path %[1]s/nginx/body;
	proxy_temp_path %[1]s/nginx/proxy;
	fastcgi_temp_path %[1]s/nginx/fastcgi;
	uwsgi_temp_path %[1]s/nginx/uwsgi;
	scgi_temp_path %[1]s/nginx/scgi;
	client_max_body_size 0;
	gzip on;
	gzip_types text/plain;
	server {
		listen %[2]s:443 ssl http2;
		server_name %[3]s;
		ssl_certificate %[1]s/nginx/tls.crt;
		ssl_certificate_key %[1]s/nginx/tls.key;
		root %[1]s/www;
		location = /empty { return 204; }
		location = /moved { return 301 https://%[3]s/file.txt; }
		location /uploads/ { root %[1]s; dav_methods PUT; }
	}
}
`

type nginxServer struct {
	log  string
	read int // bytes of the log that were returned
}

func (s *Servers) startNginx(c Config) error {
	cert, key, err := s.ca.leafPEM(Nginx)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"nginx/nginx.conf": fmt.Appendf(nil, nginxConf, c.Dir, address(Nginx), Nginx),
		"nginx/tls.crt":    cert, "nginx/tls.key": key, "www/file.txt": File(), "www/secret.txt": []byte("you should not see this\n"),
	}
	for name, data := range files {
		name = filepath.Join(c.Dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	s.nginx = &nginxServer{log: filepath.Join(c.Dir, "nginx/seen.log")}
	var stderr bytes.Buffer
	cmd := exec.Command(c.Nginx, "-c", filepath.Join(c.Dir, "nginx/nginx.conf"), "-e", filepath.Join(c.Dir, "nginx/error.log"))
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.closers = append(s.closers, func() error {
		_ = cmd.Process.Kill()
		<-ended
		return nil
	})
	return awaitPort(net.JoinHostPort(address(Nginx), "443"), func() error {
		select {
		case err := <-ended:
			ended <- err // for the closer
			return fmt.Errorf("%s ended: %w\n%s", c.Nginx, err, &stderr)
		default:
			return nil
		}
	})
}

// startTime bounds how long a server may take to listen.
const startTime = 20 * time.Second

// awaitPort waits until address takes connections, or failed says why it never
// will.
func awaitPort(address string, failed func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(startTime); ; <-tick.C {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		if ferr := failed(); ferr != nil {
			return ferr
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// answered parses what nginx has logged since the last call.
func (n *nginxServer) answered() ([]Request, error) {
	data, err := os.ReadFile(n.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data = data[n.read:]
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	n.read += len(data)
	var out []Request
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			continue // a connection that ended before a request
		}
		status, err := strconv.Atoi(f[3])
		if err != nil {
			return nil, fmt.Errorf("nginx logged %q", line)
		}
		path, _, _ := strings.Cut(f[2], "?")
		out = append(out, Request{Scheme: f[0], Method: f[1], Host: Nginx, Path: path, Status: status, Proto: f[4]})
	}
	return out, nil
}
