package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
)

// tokens gives each call the token as it is then: kubelet replaces it under way.
type tokens struct{ read func() (string, error) }

func (t tokens) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := t.read()
	if err != nil {
		return nil, fmt.Errorf("reading the token for aegrail-control: %w", err)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, errors.New("the token for aegrail-control is empty")
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity keeps gRPC from sending the token in the clear.
func (tokens) RequireTransportSecurity() bool { return true }

// verified is TLS 1.3 to a server whose certificate is for name, by roots that
// are read anew for each connection: cert-manager replaces control's under way.
type verified struct {
	name  string
	roots func() (*x509.CertPool, error)
}

func (v verified) ClientHandshake(ctx context.Context, _ string, nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pool, err := v.roots()
	if err == nil && pool == nil {
		err = errors.New("no roots, which would be those of the system")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the roots that aegrail-control is verified by: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: v.name}
	return credentials.NewTLS(config).ClientHandshake(ctx, v.name, nc)
}

func (verified) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("link: an engine's end is not a server")
}

func (verified) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (v verified) Clone() credentials.TransportCredentials { return v }

// OverrideServerName is of no use here: the name is the one that was dialled.
func (verified) OverrideServerName(string) error {
	return errors.New("link: the server's name is not to be overridden")
}
