package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// gatewayOptions are the flags of serve for an engine that serves every pod of
// a namespace.
type gatewayOptions struct {
	gateway         bool
	tlsCert, tlsKey string
}

func (o *gatewayOptions) defineGateway(f *pflag.FlagSet) {
	f.BoolVar(&o.gateway, "gateway", false, "serve every pod of a namespace, over --listen-tls alone: whose a connection is, --control says by the token for audience aegrail-gateway that it brings in Proxy-Authorization (Bearer, or Basic with the token as password), or by its address")
	f.StringVar(&o.tlsCert, "listen-tls-cert", "", "certificate `FILE` of --listen-tls (PEM), in place of a leaf of our own authority")
	f.StringVar(&o.tlsKey, "listen-tls-key", "", "its key `FILE` (PEM)")
}

// checkGateway refuses a gateway that anybody could use, and one that would not
// know who does.
func (o *serveOptions) checkGateway() error {
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return errors.New("--listen-tls-cert and --listen-tls-key belong together; one of them is missing")
	}
	if o.tlsCert != "" && o.listenTLS == "" {
		return errors.New("--listen-tls-cert and --listen-tls-key are of --listen-tls ADDR, which is missing")
	}
	if !o.gateway {
		return nil
	}
	switch {
	case o.control == "":
		return errors.New("--gateway: nobody says whose a connection is; give --control")
	case o.listenTLS == "":
		return errors.New("--gateway: callers send tokens, so give --listen-tls")
	case o.tlsCert == "" && len(o.listenTLSNames) == 0:
		return errors.New("--gateway: say by --listen-tls-name what callers know the gateway by, which is what control's authority signs for: aegrail-gateway-NAMESPACE.CONTROL-NAMESPACE.svc; or give --listen-tls-cert and --listen-tls-key")
	case o.transparent != "" || o.dns != "":
		return errors.New("--gateway: connections that are redirected belong to a sidecar; leave --transparent-listen and --dns-listen out")
	case o.enforcement == "":
		return errors.New("--gateway: say what holds the agents: --enforcement network where a NetworkPolicy leaves them the gateway alone, else --enforcement advisory")
	}
	o.listen = "" // without TLS, and for nobody
	return nil
}

// ask says whose a connection to the gateway is.
func (f *fromControl) ask(ctx context.Context, token string, addr netip.Addr) (identity.Principal, error) {
	serves := f.who.Load()
	if serves == nil {
		return identity.Principal{}, fmt.Errorf("aegrail-control has not said yet which namespace this gateway serves: %w", identity.ErrLater)
	}
	pod, err := f.client.Review(ctx, token, addr)
	var r *link.Refusal
	switch {
	case errors.As(err, &r) && (r.Kind == link.Denied || r.Kind == link.Invalid):
		return identity.Principal{}, err
	case err != nil:
		return identity.Principal{}, fmt.Errorf("%w: %w", err, identity.ErrLater)
	case pod.Namespace != serves.Namespace:
		return identity.Principal{}, fmt.Errorf("the caller is of namespace %s, this gateway serves %s", pod.Namespace, serves.Namespace)
	}
	return principalOf(pod), nil
}

func principalOf(pod link.Pod) identity.Principal {
	return identity.Principal{Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount, Pod: pod.Name, Claimed: pod.Claimed}
}
