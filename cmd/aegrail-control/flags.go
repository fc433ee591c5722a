package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/arpitcoder/aegrail-engine/internal/flagenv"
	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

// linkPort is the port of the Service under which engines find control.
const linkPort = 8443

// options are the flags of serve as they were given.
type options struct {
	namespace, policy, tlsDir, publicRoots string
	link, webhooks, metrics, health        string
	issuer, kubeconfig                     string
	logLevel, logFormat                    string
	injected
}

func (o *options) define(f *pflag.FlagSet) {
	f.StringVar(&o.namespace, "namespace", "", "control's own `NAMESPACE`, in which the CAs are")
	f.StringVar(&o.policy, "policy", "", "policy `FILE`, a mounted ConfigMap; read again when it changes")
	f.StringVar(&o.tlsDir, "tls-dir", "", "`DIR` with tls.crt, tls.key and ca.crt: what webhooks and link present")
	f.StringVar(&o.publicRoots, "public-roots", "/etc/ssl/certs/ca-certificates.crt", "public roots in `FILE` (PEM), for the bundles")
	f.StringVar(&o.link, "link-listen", ":8443", "engines' connections on `ADDR`")
	f.StringVar(&o.webhooks, "webhook-listen", ":9443", "the API server's questions on `ADDR`")
	f.StringVar(&o.metrics, "metrics-listen", ":8080", "/metrics on `ADDR`")
	f.StringVar(&o.health, "health-listen", ":8081", "/healthz and /readyz on `ADDR`")
	f.StringVar(&o.issuer, "issuer", "", "cert-manager's `KIND/NAME` that signs the namespaces' CAs, like ClusterIssuer/vault; default: roots of control's own")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`FILE`; default: the pod's service account")
	f.StringVar(&o.logLevel, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "`FORMAT`: text or json")
	o.injected.define(f)
}

// injected are the flags that say what is injected; serve and render share them.
type injected struct {
	image, initImage, pullPolicy string
	enforcement, controlAddress  string
	denyCIDRs, engineArgs        []string
	resources, initResources     string
	logSize, logClaim            string
}

func (o *injected) define(f *pflag.FlagSet) {
	f.StringVar(&o.image, "image", "", "`IMAGE` of the engine")
	f.StringVar(&o.initImage, "init-image", "", "`IMAGE` of aegrail-init; default --image")
	f.StringVar(&o.pullPolicy, "pull-policy", "", "of both images: IfNotPresent, Always or Never")
	f.StringVar(&o.enforcement, "enforcement", string(inject.Transparent), "`HOW` pods are held: transparent, or advisory, which enforces nothing")
	f.StringVar(&o.controlAddress, "control-address", "", "`HOST:PORT` at which engines find control; default aegrail-control.NAMESPACE.svc:8443")
	f.StringSliceVar(&o.denyCIDRs, "deny-cidr", nil, "addresses that no agent may reach by name: pod, service and node `CIDR`s")
	f.StringArrayVar(&o.engineArgs, "engine-arg", nil, "one more `FLAG` of each engine's serve, like --audit-rotate-size=64Mi; may be repeated")
	f.StringVar(&o.resources, "engine-resources", "", "requests and limits of each engine, as `JSON`")
	f.StringVar(&o.initResources, "init-resources", "", "requests and limits of aegrail-init, as `JSON`")
	f.StringVar(&o.logSize, "log-size-limit", "", "`SIZE` of the emptyDir of each pod's log; default 1Gi")
	f.StringVar(&o.logClaim, "log-claim", "", "PersistentVolumeClaim `NAME` in the agents' namespaces, in place of an emptyDir")
}

// config is what is injected, with namespace as control's own.
func (o *injected) config(namespace string) (inject.Config, error) {
	c := inject.Config{
		Image: o.image, InitImage: o.initImage, PullPolicy: corev1.PullPolicy(o.pullPolicy),
		Enforcement: inject.Enforcement(o.enforcement), ControlAddress: o.controlAddress,
		DenyCIDRs: o.denyCIDRs, EngineArgs: o.engineArgs,
		Log: inject.LogVolume{Claim: o.logClaim}, UID: inject.DrawUID,
	}
	if c.ControlAddress == "" {
		c.ControlAddress = fmt.Sprintf("aegrail-control.%s.svc:%d", namespace, linkPort)
	}
	for _, r := range []struct {
		flag, text string
		to         *corev1.ResourceRequirements
	}{{"--engine-resources", o.resources, &c.Resources}, {"--init-resources", o.initResources, &c.InitResources}} {
		if r.text == "" {
			continue
		}
		d := json.NewDecoder(strings.NewReader(r.text))
		d.DisallowUnknownFields()
		if err := d.Decode(r.to); err != nil {
			return c, badInput(fmt.Errorf(`%s: %w; write it like {"limits":{"memory":"256Mi"}}`, r.flag, err))
		}
	}
	if o.logSize != "" {
		size, err := resource.ParseQuantity(o.logSize)
		if err != nil {
			return c, badInput(fmt.Errorf("--log-size-limit %q: %w; write it like 1Gi", o.logSize, err))
		}
		c.Log.SizeLimit = size
	}
	return c, nil
}

// settings are options that make sense.
type settings struct {
	options
	config          inject.Config
	namespaceIssuer *cmmeta.IssuerReference // nil: roots of control's own
}

func (o *options) parse() (settings, error) {
	s := settings{options: *o}
	for _, must := range []struct{ flag, value, why string }{
		{"--namespace", o.namespace, "the CAs are in it"},
		{"--policy", o.policy, "without one every engine denies everything"},
		{"--tls-dir", o.tlsDir, "webhooks and link are TLS or nothing"},
		{"--image", o.image, "it is what is injected"},
	} {
		if must.value == "" {
			return s, badInput(fmt.Errorf("%s is missing: %s", must.flag, must.why))
		}
	}
	var err error
	if s.namespaceIssuer, err = namespaces.ParseIssuer(o.issuer); err != nil {
		return s, badInput(fmt.Errorf("--issuer: %w", err))
	}
	if s.config, err = o.injected.config(o.namespace); err != nil {
		return s, err
	}
	probe := s.config
	probe.CAGeneration = 1 // of which namespace is not known yet
	return s, badInput(probe.Validate())
}

// readEnv gives each flag that was not on the command line the value of its
// variable.
func readEnv(f *pflag.FlagSet, getenv func(string) string) error {
	return badInput(flagenv.Read(f, "AEGRAIL_CONTROL_", nil, getenv))
}

// newLogger writes to w what level and format say.
func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, badInput(fmt.Errorf("--log-level %q: want debug, info, warn or error", level))
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, badInput(fmt.Errorf("--log-format %q: want text or json", format))
	}
}
