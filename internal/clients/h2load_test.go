package clients

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// relay stands between h2load, which knows no proxy, and the engine: it begins
// each connection with CONNECT target and passes on what follows as it is.
// h2load's TLS ends at the engine.
func (s *stage) relay(proxy, target string) string {
	s.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go relayOne(client, proxy, target)
		}
	}()
	return ln.Addr().String()
}

func relayOne(client net.Conn, proxy, target string) {
	defer client.Close()
	engine, err := net.Dial("tcp", proxy)
	if err != nil {
		return
	}
	defer engine.Close()
	fmt.Fprintf(engine, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target)
	in := bufio.NewReader(engine)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(engine, client)
		_ = engine.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(client, in)
		_ = client.(*net.TCPConn).CloseWrite()
	})
	both.Wait()
}

// Many streams at a time on few connections, which is where a protocol goes
// wrong that one request at a time does not show.
func TestH2load(t *testing.T) {
	for _, version := range []string{"h2", "http/1.1"} {
		t.Run(strings.ReplaceAll(version, "/", "-"), func(t *testing.T) {
			s := newStage(t)
			d := s.serve()
			relay := s.relay(d.addr, "models.test:443")
			load := func(args ...string) string {
				t.Helper()
				line := []string{"h2load", "--npn-list", version, "--connect-to", relay, "-c", "4"}
				if version == "h2" {
					line = append(line, "-m", "16")
				}
				r := s.run(append(line, args...)...).ok()
				if version == "h2" && !strings.Contains(r.stdout, "Application protocol: h2") {
					t.Errorf("h2load did not speak HTTP/2: %s", r.stdout)
				}
				return r.stdout
			}
			for _, c := range []struct {
				args []string
				want string
			}{
				{[]string{"-n", "1000", "https://models.test/hello"}, "1000 2xx, 0 3xx, 0 4xx, 0 5xx"},
				{[]string{"-n", "40", "https://models.test/file"}, "40 2xx, 0 3xx, 0 4xx, 0 5xx"},
				{[]string{"-n", "200", "-d", s.write("body", big()[:100<<10]), "https://models.test/echo"}, "200 2xx, 0 3xx, 0 4xx, 0 5xx"},
				{[]string{"-n", "100", "https://models.test/secret"}, "0 2xx, 0 3xx, 100 4xx, 0 5xx"},
			} {
				if out := load(c.args...); !strings.Contains(out, "status codes: "+c.want) || !strings.Contains(out, " 0 errored, 0 timeout") {
					t.Errorf("h2load %v: want %s\n%s", c.args, c.want, out)
				}
			}
			d.stop()
			s.check(slices.Concat(
				times(1000, "GET https://models.test/hello 200"),
				times(40, "GET https://models.test/file 200"),
				times(200, "POST https://models.test/echo 200"),
				times(100, "denied path_not_allowed GET https://models.test/secret"),
			)...)
		})
	}
}
