package clients

import (
	"embed"
	"io/fs"
	"path"
	"slices"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/clients/origin"
)

//go:embed testdata/python testdata/node testdata/java
var programs embed.FS

// python is Debian's, where the packages are; another one may come first in PATH.
const python = "/usr/bin/python3"

// uploadSize is the 5 MiB that the Python and Node clients upload.
const uploadSize = 5 << 20

// copyPrograms puts the client programs of a language into the working directory.
func (s *stage) copyPrograms(language string) {
	s.t.Helper()
	dir := path.Join("testdata", language)
	entries, err := fs.ReadDir(programs, dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		data, err := fs.ReadFile(programs, path.Join(dir, e.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(e.Name(), data)
	}
}

func TestPythonRequests(t *testing.T) {
	s := newStage(t)
	s.copyPrograms("python")
	c := s.exec(python, "requests_client.py").ok().said()
	c.is("get", origin.Hello)
	c.is("keep-alive", origin.Hello)
	c.is("plain http", origin.Hello)
	c.is("gzip", len(origin.File()))
	c.is("head", "1048576")
	c.is("204", 204)
	c.is("upload", []any{uploadSize, true, uploadSize})
	c.is("chunked upload", []any{uploadSize, true, -1})
	c.is("stream", []string{"0", "1", "2"})
	c.has("denied path", "403", "application/problem+json", "path_not_allowed", "this agent may send")
	c.has("denied upload", "403", "application/problem+json", "path_not_allowed")
	c.is("after a denial", origin.Hello)
	c.has("denied path, raised", "HTTPError: 403", "https://models.test/secret")
	c.has("denied host", "ProxyError", "403 aegrail: not_in_allowlist")
	c.has("denied host, plain http", "403", "application/problem+json", "not_in_allowlist")
	s.check(slices.Concat(
		times(5, "GET https://models.test/hello 200"),
		times(2, "POST https://models.test/echo 200"),
		times(2, "denied path_not_allowed POST https://models.test/secret"),
		[]string{
			"GET http://models.test/hello 200",
			"GET https://models.test/gzip 200",
			"HEAD https://models.test/file 200",
			"GET https://models.test/empty 204",
			"GET https://models.test/events/requests 200",
			"POST https://models.test/release/requests 204",
			"denied path_not_allowed GET https://models.test/secret",
			"denied not_in_allowlist CONNECT exfil.test:443",
			"denied not_in_allowlist POST http://exfil.test/",
		})...)
}

func TestPythonHTTPX(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		t.Run("HTTP"+version, func(t *testing.T) {
			s := newStage(t)
			s.copyPrograms("python")
			c := s.exec(python, "httpx_client.py", version).ok().said()
			hello := []string{origin.Hello, map[string]string{"1": "HTTP/1.1", "2": "HTTP/2"}[version]}
			c.is("get", hello)
			c.is("keep-alive", hello)
			c.is("gzip", len(origin.File()))
			c.is("upload", []any{uploadSize, true, uploadSize})
			c.is("upload of unknown length", []any{uploadSize, true, -1})
			c.is("stream", []string{"0", "1", "2"})
			c.has("denied path", "403", "application/problem+json", "path_not_allowed", "this agent may send")
			c.has("denied upload", "403", "application/problem+json", "path_not_allowed")
			c.is("after a denial", hello)
			c.has("denied path, raised", "HTTPStatusError", "403")
			c.has("denied host", "ProxyError: 403 aegrail: not_in_allowlist")
			want := slices.Concat(
				times(5, "GET https://models.test/hello 200"),
				times(2, "POST https://models.test/echo 200"),
				times(2, "denied path_not_allowed POST https://models.test/secret"),
				[]string{
					"GET https://models.test/gzip 200",
					"GET https://models.test/events/httpx" + version + " 200",
					"POST https://models.test/release/httpx" + version + " 204",
					"denied path_not_allowed GET https://models.test/secret",
					"denied not_in_allowlist CONNECT exfil.test:443",
				})
			if version == "1" {
				c.is("plain http", hello)
				want = append(want, "GET http://models.test/hello 200")
			}
			s.check(want...)
		})
	}
}
