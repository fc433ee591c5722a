package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

// controlOptions are the flags of serve for an engine that aegrail-control
// serves.
type controlOptions struct {
	control, controlCA, controlToken, controlTrust string
}

func (o *controlOptions) defineControl(f *pflag.FlagSet) {
	f.StringVar(&o.control, "control", "", "policy and certificate authority from aegrail-control at `HOST:PORT`, in place of --policy and --ca-dir")
	f.StringVar(&o.controlCA, "control-ca", "", "`FILE` (PEM) that control's certificate is verified by, for HOST")
	f.StringVar(&o.controlToken, "control-token", "", "`FILE` with the service account token for audience aegrail-control")
	f.StringVar(&o.controlTrust, "control-trust", "", "bundle `FILE` that the pod's clients trust: an authority whose root is not in it is refused; default ca-bundle.pem beside --control-ca, where there is one")
}

// bundleFile is what the bundle is called beside control's roots.
const bundleFile = "ca-bundle.pem"

// trustFile is the bundle that the pod's clients trust, "" if it is not known.
func (o *controlOptions) trustFile() string {
	if o.controlTrust != "" {
		return o.controlTrust
	}
	beside := filepath.Join(filepath.Dir(o.controlCA), bundleFile)
	if _, err := os.Stat(beside); err != nil {
		return ""
	}
	return beside
}

// checkControl refuses two sources of one thing: which of them is in force must
// not depend on who reads the flags.
func (o *serveOptions) checkControl() error {
	if o.control == "" {
		if o.controlCA+o.controlToken+o.controlTrust != "" {
			return errors.New("--control-ca, --control-token and --control-trust belong to --control HOST:PORT, which is missing")
		}
		return nil
	}
	if host, port, err := net.SplitHostPort(o.control); err != nil || host == "" || port == "" {
		return fmt.Errorf("--control %q: want HOST:PORT, like aegrail-control.aegrail-system.svc:8443", o.control)
	}
	if o.controlCA == "" || o.controlToken == "" {
		return errors.New("--control needs --control-ca, which it is verified by, and --control-token, which it knows us by")
	}
	for _, other := range []struct {
		flag string
		set  bool
	}{
		{"--policy", o.policy != ""},
		{"--ca-dir", o.caDir != ""},
		{"--ca-cert and --ca-key", o.caCert+o.caKey != ""},
		{envPrefix + "ALLOWLIST", len(o.allowlist) > 0},
	} {
		if other.set {
			return fmt.Errorf("--control and %s: policy and certificate authority come from one place; give one of them", other.flag)
		}
	}
	if o.observe {
		return errors.New("--control and --observe: control gives an authority for what its policy allows, so say mode: observe there")
	}
	if o.listenTLS != "" && o.tlsCert == "" && !o.gateway {
		return errors.New("--control and --listen-tls: an authority from control signs for allowed hosts and, but for a gateway, not for the engine; use --listen, or give --listen-tls-cert and --listen-tls-key")
	}
	return nil
}
