package e2e

import (
	"context"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
)

// installCertManager installs cert-manager's own chart as its documentation
// says, and waits until its webhook takes what it is there to take.
func installCertManager() error {
	_, err := command("", "helm", "install", "cert-manager", filepath.Join(filepath.Dir(suite.stack), "cert-manager-"+certManager+".tgz"),
		"--namespace", "cert-manager", "--create-namespace", "--set", "crds.enabled=true", "--set", "startupapicheck.enabled=false",
		"--wait", "--timeout", "100s")
	if err != nil {
		return err
	}
	// The chart is ready a moment before its webhook is.
	return until("cert-manager's webhook answers", func(context.Context) error {
		_, err := command(selfSigned, "kubectl", "apply", "-f", "-")
		return err
	})
}

const selfSigned = `
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: self-signed}
spec: {selfSigned: {}}
`

// certificateOfCA is a namespace's authority, as a user without control asks for it.
const certificateOfCA = `
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: agents-ca, namespace: NAMESPACE}
spec:
  isCA: true
  commonName: NAMESPACE agents
  secretName: agents-ca
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Never}
  issuerRef: {name: self-signed, kind: ClusterIssuer}
`

func TestACertificateAuthorityIsIssuedForANamespace(t *testing.T) {
	namespace(t, "issued")
	issueCA(t, "issued")
	for _, key := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if secret(t, "issued", "agents-ca", key) == "" {
			t.Errorf("the Secret has no %s", key)
		}
	}
}

// issueCA has cert-manager make a namespace's authority, in the Secret agents-ca.
func issueCA(t *testing.T, namespace string) {
	t.Helper()
	apply(t, strings.ReplaceAll(certificateOfCA, "NAMESPACE", namespace))
	kubectl(t, "wait", "-n", namespace, "certificate/agents-ca", "--for=condition=Ready", "--timeout=60s")
}

// secret is one value of a Secret.
func secret(t *testing.T, namespace, name, key string) string {
	t.Helper()
	out := kubectl(t, "get", "secret", "-n", namespace, name, "-o", `go-template={{index .data "`+key+`"}}`)
	data, err := base64.StdEncoding.DecodeString(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
