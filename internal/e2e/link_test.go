package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// signCA asks control for an authority as an engine does, over gRPC, and
// returns the status (statuscodes.md of gRPC) and what is said with it.
func signCA(t *testing.T, token, revision string, csr []byte) (status, message string) {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(kubectl(t, "get", "configmap", "-n", "support", "aegrail-ca-bundle", "-o", `go-template={{index .data "control-ca.crt"}}`))) {
		t.Fatal("the bundle has no certificate of control")
	}
	ip := kubectl(t, "get", "service", "-n", control, "aegrail-control", "-o", "jsonpath={.spec.clusterIP}")
	port := kubectl(t, "get", "service", "-n", control, "aegrail-control", "-o", `jsonpath={.spec.ports[?(@.name=="link")].port}`)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "aegrail-control." + control + ".svc"}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()

	field := append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(csr))), csr...) // SignCARequest.csr_der
	field = append(append(field, 2<<3|2, byte(len(revision))), revision...)           // and revision
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(field))), field...)
	r, err := http.NewRequest("POST", "https://"+ip+":"+port+"/aegrail.engine.v1.Link/SignCA", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	got, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	io.Copy(io.Discard, got.Body) // trailers come after it
	for _, from := range []http.Header{got.Trailer, got.Header} {
		if s := from.Get("Grpc-Status"); s != "" {
			return s, from.Get("Grpc-Message")
		}
	}
	t.Fatalf("no gRPC status: %s %v", got.Status, got.Header)
	return "", ""
}

func TestK08OnlyAnInjectedPodsEngineGetsAnAuthority(t *testing.T) {
	a := injected(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "everything"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	// A pod like the agent's that has no engine, in a namespace that is not labelled.
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: agent, image: "docker.io/local/agent:1"}]
`)
	ready(t, "default", "stranger")
	token := func(args ...string) string {
		// Tokens for control are made for kubelet alone, which would ask for none of these.
		return strings.TrimSpace(kubectl(t, append([]string{"create", "token", "--as=e2e", "--as-group=system:masters", "--as-group=system:nodes"}, args...)...))
	}
	revision := a.revision(t)
	const audience = "--audience=aegrail-control"
	for _, attempt := range []struct{ who, token, want string }{
		{"nobody", "", "16"},
		{"a made-up token", "eyJhbGciOiJub25lIn0.e30.", "16"},
		{"the agent's own token", token("-n", a.namespace, "bot", "--bound-object-kind=Pod", "--bound-object-name="+a.pod), "16"},
		{"the agent's account, of no pod", token("-n", a.namespace, "bot", audience), "16 7"},
		{"a pod that has no engine", token("-n", "default", "default", audience, "--bound-object-kind=Pod", "--bound-object-name=stranger"), "16 7"},
		{"the engine's own token, with a request that is wider than its policy",
			token("-n", a.namespace, "bot", audience, "--bound-object-kind=Pod", "--bound-object-name="+a.pod), "3 7"},
	} {
		status, message := signCA(t, attempt.token, revision, wide)
		t.Logf("%s: %s %s", attempt.who, status, message)
		if !strings.Contains(" "+attempt.want+" ", " "+status+" ") {
			t.Errorf("%s: status %s (%s), want one of %s", attempt.who, status, message, attempt.want)
		}
	}
	said := kubectl(t, "logs", "-n", control, "--selector=app.kubernetes.io/component=control", "--tail=200")
	if strings.Count(said, "refused") < 2 {
		t.Errorf("control's log does not have the refusals:\n%s", tail(said, 10))
	}
	// The agent itself does not even get there.
	for _, address := range []string{"aegrail-control." + control + ".svc:8443", kubectl(t, "get", "service", "-n", control, "aegrail-control", "-o", "jsonpath={.spec.clusterIP}") + ":8443"} {
		var got answer
		a.exec(t, &got, "send", "-direct", "-insecure", "https://"+address+"/k08")
		if got.Error == "" {
			t.Errorf("the agent reaches control at %s: %+v", address, got)
		}
	}
}

// TestK08NobodyMintsATokenByWhichAPodIsKnown: who may create tokens, as the
// role "edit" may, could ask for one that is bound to an injected pod, and with
// it for an authority for a key of its own.
func TestK08NobodyMintsATokenByWhichAPodIsKnown(t *testing.T) {
	a := injected(t)
	mint := func(args ...string) error {
		_, err := command("", "kubectl", append([]string{"create", "token", "-n", a.namespace, "bot", "--bound-object-kind=Pod", "--bound-object-name=" + a.pod}, args...)...)
		return err
	}
	for _, audience := range []string{"aegrail-control", "aegrail-gateway"} {
		if err := mint("--audience=other", "--audience="+audience); err == nil || !strings.Contains(err.Error(), "minted by kubelet alone") {
			t.Errorf("a token for %s: %v", audience, err)
		}
	}
	for _, other := range [][]string{nil, {"--audience=other"}} {
		if err := mint(other...); err != nil {
			t.Errorf("a token that is no business of ours, %v: %v", other, err)
		}
	}
}

func TestDoctorFindsThatAnInjectedPodIsHeld(t *testing.T) {
	labelled(t, "doctored")
	kubectl(t, "create", "serviceaccount", "-n", "doctored", "bot")
	upgradeProduct(t, "--set", "doctor.namespace=doctored", "--set", "doctor.serviceAccountName=bot")
	out, err := command("", "helm", "test", "aegrail", "--namespace", control, "--timeout", "100s")
	if err != nil {
		out += err.Error()
	}
	held := 0
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "held "):
			held++
		case strings.HasPrefix(line, "OPEN ") && !strings.Contains(line, "sockets to the hypervisor"):
			// Those are the node's: what Debian's containerd 1.6 refuses by default does not include them.
			t.Error(line)
		}
	}
	if held < 25 {
		t.Errorf("doctor holds %d things for held, want 25 or more:\n%s", held, out)
	}
	upgradeProduct(t)
}
