package clients

import (
	"strings"
	"testing"
)

// What leaves is what was judged, and nothing of the engine's own: these are
// the bytes that an HTTP/1.1 origin gets.
func TestRawBytes(t *testing.T) {
	s := newStage(t)
	d := s.serve()
	fields := []string{"-H", "User-Agent: curl", "-H", "X-miXed-Case: Some  Value", "-H", "X-Twice: 1", "-H", "X-Twice: 2",
		"-H", "Proxy-Connection: keep-alive", "-H", "Connection: X-Hop", "-H", "X-Hop: dropped", "-H", "Accept:"}
	body := []string{"-d", "a=1&b=%20", "https://raw.test/capture?q=a%20b&q=%7e"}
	for _, c := range []struct {
		version string
		want    string
	}{
		{"--http1.1", "POST /capture?q=a%20b&q=%7e HTTP/1.1\r\nHost: raw.test\r\nUser-Agent: curl\r\nX-miXed-Case: Some  Value\r\n" +
			"X-Twice: 1\r\nX-Twice: 2\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\na=1&b=%20"},
		// Over HTTP/2 names have no case and come sorted.
		{"--http2", "POST /capture?q=a%20b&q=%7e HTTP/1.1\r\nHost: raw.test\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
			"User-Agent: curl\r\nX-Mixed-Case: Some  Value\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: 9\r\n\r\na=1&b=%20"},
	} {
		args := fields
		if c.version == "--http2" {
			args = fields[:8] // the rest is malformed in HTTP/2
			args = append(args, "-H", "Accept:")
		}
		r := s.curl(d, c.version).do(append(args, body...)...).ok()
		if r.stdout != "raw\n" || !strings.Contains(strings.ToLower(r.stderr), "< x-mixed-case: kept") {
			t.Errorf("%s: %s", c.version, r.all())
		}
		if got := suite.origins.Captured(); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: the origin got\n%q\nwant\n%q", c.version, got, c.want)
		}
	}
	// A denied request leaves no byte.
	s.curl(d, "--http1.1").do("https://raw.test/secret").ok()
	if got := suite.origins.Captured(); len(got) != 0 {
		t.Errorf("a denied request left %q", got)
	}
	d.stop()
	s.check("POST https://raw.test/capture 200", "POST https://raw.test/capture 200", "denied path_not_allowed GET https://raw.test/secret")
}
