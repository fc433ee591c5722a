package clients

import (
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/clients/origin"
)

func TestJava(t *testing.T) {
	s := newStage(t)
	s.copyPrograms("java")
	s.run("javac", "-d", s.dir, s.file("Client.java")).ok()
	c := s.exec("java", "-cp", s.dir, "Client").ok().said()
	zeros := sum(make([]byte, uploadSize))
	line := strings.TrimSpace(origin.Hello)
	var want []string
	for _, version := range []string{"HTTP_1_1", "HTTP_2"} {
		c.is(version+" get", version+" "+origin.Hello)
		c.is(version+" keep-alive", origin.Hello)
		c.is(version+" plain http", origin.Hello)
		c.has(version+" upload", zeros, `5242880`)
		c.is(version+" stream", "0 1 2")
		c.has(version+" denied path", "403 path_not_allowed", "this agent may send")
		c.has(version+" denied upload", "403", "path_not_allowed")
		c.is(version+" after a denial", origin.Hello)
		c.has(version+" denied host", "Tunnel failed, got: 403") // it keeps the reason to itself
		want = slices.Concat(want, times(5, "GET https://models.test/hello 200"), []string{
			"GET http://models.test/hello 200",
			"POST https://models.test/echo 200",
			"GET https://models.test/events/" + version + " 200",
			"POST https://models.test/release/" + version + " 204",
			"denied path_not_allowed GET https://models.test/secret",
			"denied path_not_allowed POST https://models.test/secret",
			"denied not_in_allowlist CONNECT exfil.test:443",
		})
	}
	c.is("URLConnection get", line)
	c.is("URLConnection plain http", line)
	c.has("URLConnection upload", zeros, `5242880`)
	c.has("URLConnection denied path", "403", "path_not_allowed", "this agent may send")
	c.has("URLConnection denied path, raised", "403", "https://models.test/secret")
	c.ran.engineHas("denied CONNECT exfil.test", "not_in_allowlist")
	c.has("URLConnection denied host", "Unable to tunnel through proxy", "403 aegrail: not_in_allowlist")
	s.check(slices.Concat(want, times(2, "denied path_not_allowed GET https://models.test/secret"), []string{
		"GET https://models.test/hello 200",
		"GET http://models.test/hello 200",
		"POST https://models.test/echo 200",
		"denied not_in_allowlist CONNECT exfil.test:443",
	})...)
}
