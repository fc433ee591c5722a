package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/clients/origin"
)

// curl is curl with a proxy and a CA given on its command line.
type curl struct {
	*stage
	args []string
}

// curl returns one that uses d and speaks version (--http1.1, --http2).
func (s *stage) curl(d *daemon, version string) curl {
	return curl{s, []string{"curl", "-sSv", "--proxy", "http://" + d.addr, "--cacert", d.ca, version}}
}

// do runs curl. -v and so the heads of all answers are in stderr.
func (c curl) do(args ...string) ran {
	c.t.Helper()
	return c.run(slices.Concat(c.args, args)...)
}

// status is the status of the last answer that curl's -v shows, and its version.
func (r ran) status() string {
	all := regexp.MustCompile(`(?m)^< (HTTP/[0-9.]+ \d+)`).FindAllStringSubmatch(r.stderr, -1)
	if len(all) == 0 {
		return "no answer"
	}
	return all[len(all)-1][1]
}

// want fails the test unless curl succeeded with this status and body.
func (r ran) want(status, body string) {
	r.t.Helper()
	r.ok()
	if r.status() != status {
		r.t.Errorf("status %q, want %q: %s", r.status(), status, r.stderr)
	}
	if r.stdout != body {
		r.t.Errorf("%d bytes of body, want %d; the first that differ:\n%.200q\n%.200q", len(r.stdout), len(body), r.stdout, body)
	}
}

// echoed reads the answer of /echo.
func (r ran) echoed() origin.Echoed {
	r.t.Helper()
	var e origin.Echoed
	if err := json.Unmarshal([]byte(r.ok().stdout), &e); err != nil {
		r.t.Fatalf("%v: %s", err, r.all())
	}
	return e
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// big is 20 MiB that compress badly and repeat nowhere.
func big() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 20<<20; i++ {
		h := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		b.Write(h[:])
	}
	return b.Bytes()
}

func TestCurl(t *testing.T) {
	for _, v := range []struct{ flag, version string }{{"--http1.1", "HTTP/1.1"}, {"--http2", "HTTP/2"}} {
		t.Run(strings.TrimLeft(v.flag, "-"), func(t *testing.T) {
			s := newStage(t)
			d := s.serve()
			c := s.curl(d, v.flag)
			curlReads(c, v.version)
			curlWrites(c, v.version)
			curlIsDenied(c, v.version)
			d.stop()
			s.check(slices.Concat(
				times(4, "GET https://models.test/hello 200"), // 1, and 3 on one connection
				times(3, "PUT https://models.test/echo 200"),
				times(2, "GET https://models.test/file 206"),
				times(2, "denied path_not_allowed GET https://models.test/secret"),
				[]string{
					"HEAD https://models.test/file 200",
					"GET https://models.test/file 200",
					"GET https://models.test/file 304",
					"GET https://models.test/empty 204",
					"GET https://models.test/trailers 200",
					"GET https://models.test/hints 200",
					"GET https://models.test/gzip 200",
					"POST https://models.test/echo 200",
					"GET https://models.test/redirect 302",
					"GET http://models.test/hello 200",
					"denied path_not_allowed PUT https://models.test/secret",
					"denied method_not_allowed DELETE https://models.test/hello",
					"denied path_not_allowed GET http://models.test/secret",
					"denied not_in_allowlist CONNECT exfil.test:443",
					"denied not_in_allowlist GET http://exfil.test/",
				})...)
		})
	}
}

func curlReads(c curl, version string) {
	c.t.Helper()
	file := string(origin.File())
	c.do("https://models.test/hello").want(version+" 200", origin.Hello)
	keep := c.do("-w", "%{num_connects}\n", "https://models.test/hello", "https://models.test/hello", "https://models.test/hello")
	keep.want(version+" 200", origin.Hello+"1\n"+origin.Hello+"0\n"+origin.Hello+"0\n")
	c.do("https://models.test/file").want(version+" 200", file)
	head := c.do("-I", "https://models.test/file").ok()
	if !strings.Contains(strings.ToLower(head.stdout), "content-length: 1048576\r\n") {
		c.t.Errorf("HEAD has no Content-Length: %s", head.all())
	}
	c.do("-r", "1000-1999", "https://models.test/file").want(version+" 206", file[1000:2000])
	c.do("-r", "-10", "https://models.test/file").want(version+" 206", file[len(file)-10:])
	c.do("-H", `If-None-Match: "one"`, "https://models.test/file").want(version+" 304", "")
	c.do("https://models.test/empty").want(version+" 204", "")
	trailer := c.do("-H", "TE: trailers", "-o", c.file("body"), "-D", "-", "https://models.test/trailers").ok()
	if !strings.Contains(strings.ToLower(trailer.stdout), "\nx-checksum: "+sum([]byte(origin.Hello))) {
		c.t.Errorf("the trailer did not arrive: %s", trailer.all())
	}
	hints := c.do("https://models.test/hints")
	hints.want(version+" 200", origin.Hello)
	if !strings.Contains(hints.stderr, "< "+version+" 103") {
		c.t.Errorf("103 Early Hints did not arrive: %s", hints.stderr)
	}
	c.do("--compressed", "https://models.test/gzip").want(version+" 200", file)
	c.do("http://models.test/hello").want("HTTP/1.1 200", origin.Hello)
}

func curlWrites(c curl, version string) {
	c.t.Helper()
	data := big()
	file := c.write("big", data)
	got := c.do("-T", file, "https://models.test/echo?a=b&c=%64").echoed()
	if got.Bytes != int64(len(data)) || got.SHA256 != sum(data) || got.Length != int64(len(data)) || got.Query != "a=b&c=%64" {
		c.t.Errorf("20 MiB: the origin got %+v", got)
	}
	// curl waits a second for the 100; that one comes is in the answer's heads.
	expect := c.do("-T", file, "-H", "Expect: 100-continue", "https://models.test/echo")
	if got = expect.echoed(); got.SHA256 != sum(data) {
		c.t.Errorf("Expect: the origin got %+v", got)
	}
	if version == "HTTP/1.1" && !strings.Contains(expect.stderr, "< HTTP/1.1 100 Continue") {
		c.t.Errorf("no 100 Continue came: %s", expect.stderr)
	}
	got = c.do("-T", file, "-H", "Transfer-Encoding: chunked", "https://models.test/echo").echoed()
	if got.Bytes != int64(len(data)) || got.SHA256 != sum(data) {
		c.t.Errorf("chunked: the origin got %+v", got)
	}
	got = c.do("-d", "x=1", "-H", "X-Test: Käse", "https://models.test/echo").echoed()
	if got.Bytes != 3 || got.Method != "POST" || got.Test != "Käse" {
		c.t.Errorf("POST: the origin got %+v", got)
	}
}

func curlIsDenied(c curl, version string) {
	c.t.Helper()
	problem := func(r ran, status, reason string) {
		c.t.Helper()
		var p struct{ Title, Detail, Reason, Ask string }
		if err := json.Unmarshal([]byte(r.ok().stdout), &p); err != nil || p.Reason != reason || p.Title == "" || p.Ask == "" {
			c.t.Errorf("the body is %+v (%v), want a problem with reason %s: %s", p, err, reason, r.all())
		}
		if r.status() != status || !strings.Contains(strings.ToLower(r.stderr), "x-aegrail-reason: "+reason) {
			c.t.Errorf("status %s, want %s and the reason among the fields: %s", r.status(), status, r.stderr)
		}
	}
	problem(c.do("https://models.test/secret"), version+" 403", "path_not_allowed")
	problem(c.do("-X", "DELETE", "https://models.test/hello"), version+" 403", "method_not_allowed")
	problem(c.do("-T", c.file("big"), "https://models.test/secret"), version+" 403", "path_not_allowed")
	problem(c.do("-L", "https://models.test/redirect"), version+" 403", "path_not_allowed")
	problem(c.do("http://models.test/secret"), "HTTP/1.1 403", "path_not_allowed")
	problem(c.do("http://exfil.test/"), "HTTP/1.1 403", "not_in_allowlist")
	r := c.do("https://exfil.test/")
	if r.code == 0 {
		c.t.Errorf("a denied host: %s", r.all())
	}
	r.stderrHas("< HTTP/1.1 403 aegrail: not_in_allowlist", "CONNECT tunnel failed, response 403")
}

// curl takes everything from its environment, for plain http through a tunnel
// too.
func TestCurlExec(t *testing.T) {
	s := newStage(t)
	s.exec("curl", "-sSv", "https://models.test/hello").want("HTTP/2 200", origin.Hello)
	s.exec("curl", "-sSv", "http://models.test/hello").want("HTTP/1.1 200", origin.Hello)
	s.exec("curl", "-sSvp", "http://models.test/hello").want("HTTP/1.1 200", origin.Hello)
	denied := s.exec("curl", "-sS", "--fail-with-body", "https://models.test/secret")
	if denied.code != 22 || !strings.Contains(denied.stdout, "path_not_allowed") {
		t.Errorf("a denied path: %s", denied.all())
	}
	denied.engineHas("denied GET https://models.test/secret", "path_not_allowed")
	host := s.exec("curl", "-sS", "https://exfil.test/")
	if host.code == 0 {
		t.Errorf("a denied host: %s", host.all())
	}
	host.engineHas("denied CONNECT exfil.test", "not_in_allowlist")
	s.check(
		"GET https://models.test/hello 200",
		"GET http://models.test/hello 200",
		"GET http://models.test/hello 200",
		"denied path_not_allowed GET https://models.test/secret",
		"denied not_in_allowlist CONNECT exfil.test:443",
	)
}

// A client that does not trust our certificate says so in an alert, which OpenSSL
// does not encrypt in TLS 1.3.
func TestCurlWithoutOurCA(t *testing.T) {
	s := newStage(t)
	d := s.serve()
	for _, version := range []string{"1.2", "1.3"} {
		r := s.run("curl", "-sS", "--proxy", "http://"+d.addr, "--cacert", suite.roots, "--tlsv"+version, "--tls-max", version, "https://models.test/hello")
		if r.code != 60 {
			t.Errorf("TLS %s: curl ended with %d, want 60, a certificate that it does not trust: %s", version, r.code, r.all())
		}
	}
	d.stop()
	s.check(times(2, "error client_rejected_certificate https://models.test")...)
}

// An upload that its client gives up must not look whole to the origin, least
// of all one whose length nobody knew.
func TestCurlGivesUp(t *testing.T) {
	for _, version := range []string{"--http1.1", "--http2"} {
		t.Run(strings.TrimLeft(version, "-"), func(t *testing.T) {
			s := newStage(t)
			d := s.serve()
			c := s.curl(d, version)
			file := s.write("big", big())
			for _, field := range []string{"X-Length: known", "Transfer-Encoding: chunked"} {
				r := c.do("-m", "1", "--limit-rate", "1M", "-T", file, "-H", field, "https://models.test/echo")
				if r.code != 28 {
					t.Fatalf("curl ended with %d, want 28, its time-out: %s", r.code, r.all())
				}
			}
			d.stop()
			logged, _ := s.logged()
			if logged["error client_aborted PUT https://models.test/echo"] != 2 {
				t.Errorf("the log has\n%swant 2 × error client_aborted PUT https://models.test/echo", logged)
			}
			if seen := s.seen(tally{"of any status": 2}); seen["PUT https://models.test/echo 200"] > 0 {
				t.Errorf("the origin took what it got for the whole: %s", seen)
			}
		})
	}
}

func TestNginx(t *testing.T) {
	for _, v := range []struct{ flag, version string }{{"--http1.1", "HTTP/1.1"}, {"--http2", "HTTP/2"}} {
		t.Run(strings.TrimLeft(v.flag, "-"), func(t *testing.T) {
			s := newStage(t)
			d := s.serve()
			c := s.curl(d, v.flag)
			file := string(origin.File())
			whole := c.do("https://nginx.test/file.txt")
			whole.want(v.version+" 200", file)
			etag := regexp.MustCompile(`(?mi)^< etag: (\S+)`).FindStringSubmatch(whole.stderr)
			if etag == nil {
				t.Fatalf("no ETag: %s", whole.stderr)
			}
			c.do("-H", "If-None-Match: "+etag[1], "https://nginx.test/file.txt").want(v.version+" 304", "")
			c.do("-r", "5-9", "https://nginx.test/file.txt").want(v.version+" 206", file[5:10])
			c.do("--compressed", "https://nginx.test/file.txt").want(v.version+" 200", file)
			c.do("https://nginx.test/empty").want(v.version+" 204", "")
			c.do("-L", "https://nginx.test/moved").want(v.version+" 200", file)
			head := c.do("-I", "https://nginx.test/file.txt").ok()
			if !strings.Contains(strings.ToLower(head.stdout), "content-length: 1048576\r\n") {
				t.Errorf("HEAD has no Content-Length: %s", head.all())
			}
			data := big()
			up := fmt.Sprintf("https://nginx.test/uploads/%s", strings.ReplaceAll(v.version, "/", "-"))
			c.do("-T", c.write("big", data), up).want(v.version+" 201", "")
			c.do("-T", c.file("big"), "-H", "Transfer-Encoding: chunked", up).want(v.version+" 204", "")
			if got := s.uploaded(up); sum(got) != sum(data) {
				t.Errorf("nginx stored %d bytes that are not those that were sent", len(got))
			}
			denied := c.do("https://nginx.test/secret.txt")
			if denied.status() != v.version+" 403" || !strings.Contains(denied.stdout, "path_not_allowed") {
				t.Errorf("a denied path: %s", denied.all())
			}
			d.stop()
			s.check(
				"GET https://nginx.test/file.txt 200", "GET https://nginx.test/file.txt 200", "GET https://nginx.test/file.txt 200",
				"GET https://nginx.test/file.txt 304", "GET https://nginx.test/file.txt 206", "HEAD https://nginx.test/file.txt 200",
				"GET https://nginx.test/empty 204", "GET https://nginx.test/moved 301",
				"PUT "+up+" 201", "PUT "+up+" 204",
				"denied path_not_allowed GET https://nginx.test/secret.txt",
			)
		})
	}
}
