package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a CA of the tests' own: one for the cluster's components, one
// for the world that the engine verifies.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if template.SerialNumber, err = serial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

func serial() (*big.Int, error) { return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) }

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue makes a leaf for servers and clients alike. A name that is an address becomes one.
func (a *authority) issue(subject pkix.Name, names ...string) (cert []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject: subject, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	if template.SerialNumber, err = serial(); err != nil {
		return nil, nil, err
	}
	cert, err = x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	return cert, key, err
}

// keyPEM is the form that all components read: the API server takes no PKCS #8
// for the key of its tokens.
func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// nodeIP is the node's address, and the API server's.
const nodeIP = "10.240.0.1"

// writePKI makes the certificates and kubeconfigs of every component, into dir.
func writePKI(dir string) error {
	ca, err := newAuthority("cluster")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	token, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // signs the tokens of service accounts
	if err != nil {
		return err
	}
	if err := writePair(dir, "ca", ca.cert.Raw, ca.key); err != nil {
		return err
	}
	if err := writePair(dir, "sa", nil, token); err != nil {
		return err
	}
	for _, leaf := range []struct {
		file, name, group string
		hosts             []string
	}{
		{"apiserver", "kube-apiserver", "", []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "10.96.0.1", nodeIP}},
		{"kubelet", "system:node:node1", "system:nodes", []string{"node1", nodeIP}},
		{"admin", "admin", "system:masters", nil},
		{"kubelet-client", "apiserver-kubelet-client", "system:masters", nil},
		{"kcm", "system:kube-controller-manager", "", nil},
		{"scheduler", "system:kube-scheduler", "", nil},
		{"proxy", "system:kube-proxy", "", nil},
	} {
		subject := pkix.Name{CommonName: leaf.name}
		if leaf.group != "" {
			subject.Organization = []string{leaf.group}
		}
		cert, key, err := ca.issue(subject, leaf.hosts...)
		if err != nil {
			return err
		}
		if err := writePair(dir, leaf.file, cert, key); err != nil {
			return err
		}
		if err := writeKubeconfig(dir, leaf.file); err != nil {
			return err
		}
	}
	return nil
}

// writePair writes name.crt, where there is a certificate, and name.key.
func writePair(dir, name string, cert []byte, key *ecdsa.PrivateKey) error {
	if cert != nil {
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
		if err := os.WriteFile(filepath.Join(dir, name+".crt"), block, 0o600); err != nil {
			return err
		}
	}
	block, err := keyPEM(key)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), block, 0o600)
}

func writeKubeconfig(dir, name string) error {
	file := func(suffix string) string { return filepath.Join(dir, suffix) }
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
		"clusters": []any{map[string]any{"name": "e2e", "cluster": map[string]any{
			"server": fmt.Sprintf("https://%s:6443", nodeIP), "certificate-authority": file("ca.crt"),
		}}},
		"users": []any{map[string]any{"name": name, "user": map[string]any{
			"client-certificate": file(name + ".crt"), "client-key": file(name + ".key"),
		}}},
		"contexts": []any{map[string]any{"name": "e2e", "context": map[string]any{"cluster": "e2e", "user": name}}},
	}
	data, err := json.MarshalIndent(config, "", " ") // which is YAML
	if err != nil {
		return err
	}
	return os.WriteFile(file(name+".kubeconfig"), data, 0o600)
}
