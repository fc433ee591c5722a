package clients

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/clients/origin"
)

// gatewayHost is a gateway's name in a cluster. It is this engine's here.
const gatewayHost = "aegrail-gateway-batch.aegrail-system.svc"

const httpxAsync = `
import asyncio, httpx
async def main():
    async with httpx.AsyncClient() as client:
        print((await client.get("https://models.test/hello")).text, end="")
asyncio.run(main())
`

// TestClientsReachAGatewayWithOneBundle: the proxy port is TLS, in the gateway's
// own name, by the authority that signs for the hosts too and for nothing else.
// The clients have the variables of deploy/manifests/gateway-agent.yaml.
func TestClientsReachAGatewayWithOneBundle(t *testing.T) {
	s := newStage(t)
	s.run(suite.engine, "ca", "init", "--dir", s.file("ca"), "--permit", gatewayHost, "--permit", "models.test", "--permit", "git.test").ok()
	s.repositories()
	d := s.serve("--listen-tls", "127.0.0.1:8443", "--listen-tls-name", gatewayHost)
	bundle := s.write("ca-bundle.pem", []byte(s.run(suite.engine, "ca", "bundle", "--ca", s.file("ca/ca.crt")).ok().stdout))

	pod, err := os.ReadFile("../../deploy/manifests/gateway-agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"env"}
	for _, m := range regexp.MustCompile(`(?m)^ +- \{name: (\w+), value: "?([^"}]+)"?\}$`).FindAllStringSubmatch(string(pod), -1) {
		value := strings.ReplaceAll(m[2], "/etc/aegrail/ca/ca-bundle.pem", bundle)
		// The test's origins are on loopback, and some clients take a proxy's password from its URL alone.
		value = strings.ReplaceAll(strings.ReplaceAll(value, "https://aegrail-", "https://aegrail:token@aegrail-"), "127.0.0.0/8,", "")
		env = append(env, m[1]+"="+value)
	}
	if len(env) < 10 {
		t.Fatalf("the pod has the variables %v", env)
	}
	modules := filepath.Join(suite.cache, "node", "node_modules")
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	node := filepath.Join(modules, "node-linux-"+arch, "bin", "node")
	for _, client := range []struct {
		what, want string
		args       []string
	}{
		{"requests", origin.Hello, []string{python, "-c", `import requests; print(requests.get("https://models.test/hello").text, end="")`}},
		// The other of its clients needs an httpcore that speaks TLS in TLS (pull 840 there); Debian's is from before.
		{"httpx, asynchronous", origin.Hello, []string{python, "-c", httpxAsync}},
		{"Node's fetch", origin.Hello, []string{node, "-e", `fetch("https://models.test/hello").then(r => r.text()).then(t => process.stdout.write(t))`}},
		{"Node's https module", origin.Hello, []string{node, "-e", `require("https").get("https://models.test/hello", r => r.pipe(process.stdout))`}},
		{"curl", origin.Hello, []string{"curl", "-sS", "--proxy-cacert", bundle, "https://models.test/hello"}},
		{"git", "refs/heads/main", []string{"git", "ls-remote", "https://git.test/project.git"}},
	} {
		t.Run(client.what, func(t *testing.T) {
			s.t = t
			if got := s.run(slices.Concat(env, client.args)...).ok(); !strings.Contains(got.stdout, client.want) {
				t.Errorf("%s", got.all())
			}
		})
	}
	s.t = t
	d.stop()
	s.check(append(times(5, "GET https://models.test/hello 200"), "GET https://git.test/project.git/info/refs 200", "POST https://git.test/project.git/git-upload-pack 200")...)
}
