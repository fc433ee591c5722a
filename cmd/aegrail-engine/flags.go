package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/flagenv"
	"github.com/arpitcoder/aegrail-engine/internal/passage"
	"github.com/arpitcoder/aegrail-engine/internal/ship"
)

// envPrefix begins the variable of each flag of serve.
const envPrefix = "AEGRAIL_ENGINE_"

// defaultIdentity is what the aegrail project calls an engine that was given no
// name.
const defaultIdentity = "egress-proxy/v1"

// serveOptions are the flags of serve as they were given. settings is what
// they mean.
type serveOptions struct {
	policy, listen, listenTLS        string
	listenTLSNames                   []string
	transparent, dns, admin, pprof   string
	caCert, caKey, caDir             string
	upstreamRoots, upstreamProxy     string
	upstreamBypass, denyCIDRs        []string
	auditFile, durability, digestKey string
	auditStdout                      bool
	auditKey, rotateSize             string
	checkpointEvery, rotateAge       time.Duration
	auditAnchors, auditSinks         []string
	auditKeep                        int
	identity, rate                   string
	maxRequests                      int64
	observe                          bool
	leafCache                        int
	logLevel, logFormat              string
	podOptions
	controlOptions
	gatewayOptions

	allowlist []string // AEGRAIL_ENGINE_ALLOWLIST: hosts that every agent may reach, in place of a policy
}

func (o *serveOptions) define(f *pflag.FlagSet) {
	f.Var(&onePolicy{&o.policy}, "policy", "policy `FILE`; without it everything is denied")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "forward proxy on `ADDR`; empty: none")
	f.StringVar(&o.listenTLS, "listen-tls", "", "the forward proxy over TLS on `ADDR`")
	f.StringSliceVar(&o.listenTLSNames, "listen-tls-name", nil, "`NAME`s that clients of --listen-tls expect, the first where one names none of them; default its host")
	f.StringVar(&o.transparent, "transparent-listen", "", "connections that the kernel redirects, on `ADDR`")
	f.StringVar(&o.dns, "dns-listen", "", "DNS that the kernel redirects, over UDP and TCP on `ADDR`")
	f.StringVar(&o.admin, "admin-listen", "127.0.0.1:9090", "/metrics, /healthz and /readyz on `ADDR`; empty: none")
	f.StringVar(&o.pprof, "pprof-socket", "", "profiles on the unix socket `PATH`")
	f.StringVar(&o.caCert, "ca-cert", "", "CA certificate `FILE` (PEM, may hold the chain)")
	f.StringVar(&o.caKey, "ca-key", "", "CA key `FILE` (PEM)")
	f.StringVar(&o.caDir, "ca-dir", "", "`DIR` with tls.crt, tls.key and ca.crt, in place of --ca-cert and --ca-key")
	f.StringVar(&o.upstreamRoots, "upstream-roots", "", "roots to trust besides the system's, in `FILE` (PEM)")
	f.StringVar(&o.upstreamProxy, "upstream-proxy", "", "reach the world through the proxy at `URL`")
	f.StringSliceVar(&o.upstreamBypass, "upstream-proxy-bypass", nil, "`HOSTS` that are reached without it")
	f.StringSliceVar(&o.denyCIDRs, "deny-cidr", nil, "more addresses to refuse: pod, service and node `CIDR`s")
	f.StringVar(&o.auditFile, "audit-file", "", "write the audit log to `FILE`")
	f.BoolVar(&o.auditStdout, "audit-stdout", false, "write the audit log to standard output (the default without --audit-file)")
	f.StringVar(&o.durability, "audit-durability", "written", "a record counts when `written` (in the kernel) or strict (on disk)")
	f.StringVar(&o.digestKey, "audit-digest-key", "", "key `FILE`: body digests become HMACs, which nobody can look up")
	f.StringVar(&o.auditKey, "audit-key", "", "sign checkpoints with the key in `FILE`, which is made if it is not there; default the audit file with .key")
	f.DurationVar(&o.checkpointEvery, "audit-checkpoint-interval", 10*time.Second, "`TIME` between signed checkpoints of the log")
	f.StringVar(&o.rotateSize, "audit-rotate-size", "256Mi", "begin a new audit file when one has this `SIZE`; 0: never")
	f.DurationVar(&o.rotateAge, "audit-rotate-age", 0, "begin a new audit file when one is this `TIME` old; 0: never")
	f.IntVar(&o.auditKeep, "audit-keep", 0, "keep `N` full audit files; older ones go once every anchor and sink has them; 0: keep all")
	f.StringArrayVar(&o.auditAnchors, "audit-anchor", nil, "bring signed checkpoints to `FILE|URL`: a file elsewhere, or an http(s):// endpoint; may be repeated")
	f.StringArrayVar(&o.auditSinks, "audit-sink", nil, "send every record to `URL`: otlp://host:4318, otlps://, or an http(s):// webhook; may be repeated")
	f.StringVar(&o.identity, "agent-identity", defaultIdentity, "`NAME` of the agent in policy and log")
	o.definePod(f)
	o.defineControl(f)
	o.defineGateway(f)
	f.Int64Var(&o.maxRequests, "max-requests", 0, "requests in all before the agent is refused; 0: no limit")
	f.StringVar(&o.rate, "rate", "", "`N/unit` requests, unit sec, min or hour")
	f.BoolVar(&o.observe, "observe", false, "let pass what the policy denies, and record that it would have been denied")
	f.IntVar(&o.leafCache, "leaf-cache", 1024, "how many hosts' leaf certificates to keep")
	f.StringVar(&o.logLevel, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "`FORMAT`: text or json")
}

// aliases are variables besides AEGRAIL_ENGINE_<FLAG>, tried after it: those
// of the aegrail project.
func aliases(flag string) []string {
	switch flag {
	case "ca-cert":
		return []string{envPrefix + "MITM_CA_CERT_FILE"}
	case "ca-key":
		return []string{envPrefix + "MITM_CA_KEY_FILE"}
	case "rate":
		return []string{envPrefix + "RATE_LIMIT"}
	case "agent-identity":
		return []string{"AEGRAIL_AGENT_IDENTITY"}
	default:
		return nil
	}
}

// readEnv gives each flag that was not on the command line the value of its
// variable, and takes what only a variable can say.
func (o *serveOptions) readEnv(f *pflag.FlagSet, getenv func(string) string) error {
	if v := getenv(envPrefix + "MAX_TOKENS"); v != "" && v != "0" {
		return fmt.Errorf("%sMAX_TOKENS=%s: this engine has no token budgets yet, and to ignore a limit would be to lift it; unset the variable, or limit --max-requests or --rate", envPrefix, v)
	}
	for host := range strings.SplitSeq(getenv(envPrefix+"ALLOWLIST"), ",") {
		if host = strings.TrimSpace(host); host != "" {
			o.allowlist = append(o.allowlist, host)
		}
	}
	if err := o.knowEnv(f); err != nil {
		return err
	}
	return flagenv.Read(f, envPrefix, aliases, getenv)
}

// knowEnv refuses a variable of ours that nobody reads: what its writer meant to
// limit would not be.
func (o *serveOptions) knowEnv(f *pflag.FlagSet) error {
	name := flagenv.Unknown(f, envPrefix, aliases, []string{envPrefix + "ALLOWLIST", envPrefix + "MAX_TOKENS"}, os.Environ())
	if name == "" {
		return nil
	}
	flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
	if near := nearestFlag(f, flag); near != "" {
		return fmt.Errorf("%s is no variable of serve, did you mean %s?", name, flagenv.Variable(envPrefix, near))
	}
	return fmt.Errorf("%s is no variable of serve; each flag has one, as --audit-file has %s; unset it", name, flagenv.Variable(envPrefix, "audit-file"))
}

// preferFlags resolves what a flag and another flag's variable say about the
// same thing: --ca-dir on the command line beats a CA in the environment.
func (o *serveOptions) preferFlags(f *pflag.FlagSet) error {
	files := f.Changed("ca-cert") || f.Changed("ca-key")
	switch {
	case o.caDir == "" || o.caCert == "" && o.caKey == "":
	case f.Changed("ca-dir") && !files:
		o.caCert, o.caKey = "", ""
	case files && !f.Changed("ca-dir"):
		o.caDir = ""
	default:
		return fmt.Errorf("--ca-dir and --ca-cert/--ca-key name two authorities; give one of them")
	}
	if (o.caCert == "") != (o.caKey == "") {
		return fmt.Errorf("--ca-cert and --ca-key belong together; one of them is missing")
	}
	if o.caDir == "" && o.caCert == "" && o.control == "" {
		return fmt.Errorf("no certificate authority: make one with `aegrail-engine ca init --dir ca` and give --ca-dir ca")
	}
	return nil
}

// parse reads the flags that are more than text.
func (o *serveOptions) parse() (settings, error) {
	s := settings{serveOptions: *o}
	if err := errors.Join(o.checkControl(), o.checkGateway()); err != nil {
		return s, err
	}
	s.listen = o.listen
	if o.listen == "" && o.listenTLS == "" && o.transparent == "" {
		return s, fmt.Errorf("no way in: give --listen, --listen-tls or --transparent-listen")
	}
	if !o.auditStdout && o.auditFile == "" {
		s.auditStdout = true
	}
	switch o.durability {
	case "written":
	case "strict":
		if o.auditFile == "" {
			return s, fmt.Errorf("--audit-durability strict syncs a file: give --audit-file")
		}
		s.strict = true
	default:
		return s, fmt.Errorf("--audit-durability %q: want written or strict", o.durability)
	}
	for _, cidr := range o.denyCIDRs {
		p, err := netip.ParsePrefix(strings.TrimSpace(cidr))
		if err != nil {
			return s, fmt.Errorf("--deny-cidr %q: want an address range like 10.0.0.0/8 or fd00::/8", cidr)
		}
		s.deny = append(s.deny, p.Masked())
	}
	if o.upstreamProxy != "" {
		u, err := url.Parse(o.upstreamProxy)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return s, fmt.Errorf("--upstream-proxy: want a URL like http://proxy.example:3128")
		}
		s.proxy = u
	}
	if len(o.upstreamBypass) > 0 && s.proxy == nil {
		return s, fmt.Errorf("--upstream-proxy-bypass without --upstream-proxy")
	}
	if err := errors.Join(s.parseAudit(), s.parsePod()); err != nil {
		return s, err
	}
	if o.leafCache < 1 {
		return s, fmt.Errorf("--leaf-cache %d: want at least 1", o.leafCache)
	}
	if o.maxRequests < 0 {
		return s, fmt.Errorf("--max-requests %d: want 0 (no limit) or more", o.maxRequests)
	}
	if o.identity == "" {
		return s, fmt.Errorf("--agent-identity is empty: nobody is denied everything")
	}
	if err := s.level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return s, fmt.Errorf("--log-level %q: want debug, info, warn or error", o.logLevel)
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return s, fmt.Errorf("--log-format %q: want text or json", o.logFormat)
	}
	return s, s.parseRate()
}

// parseAudit reads how the log is signed and rotated.
func (s *settings) parseAudit() error {
	if s.checkpointEvery < time.Second {
		return fmt.Errorf("--audit-checkpoint-interval %s: want 1s or more", s.checkpointEvery)
	}
	if s.rotateAge < 0 || s.rotateAge > 0 && s.rotateAge < time.Minute {
		return fmt.Errorf("--audit-rotate-age %s: want 0 (never), or 1m or more", s.rotateAge)
	}
	if s.rotateSize != "0" {
		size, err := v1alpha1.ParseBytes(s.rotateSize)
		if err != nil {
			return fmt.Errorf("--audit-rotate-size: %w", err)
		}
		if s.rotate.Size = int64(size); s.rotate.Size < minRotate {
			return fmt.Errorf("--audit-rotate-size %s: want 0 (never), or 64Ki or more", s.rotateSize)
		}
	}
	s.rotate.Age = s.rotateAge
	if s.auditFile == "" {
		s.rotate = audit.Rotation{}
	} else if s.auditKey == "" {
		s.auditKey = s.auditFile + keySuffix
	}
	return s.parseShipping()
}

// minRotate is the smallest audit file that is worth a name.
const minRotate = 64 << 10 // 64 KiB

// settings are serveOptions that make sense.
type settings struct {
	serveOptions
	strict  bool
	rotate  audit.Rotation
	anchors []ship.Target
	sinks   []ship.Target
	deny    []netip.Prefix
	proxy   *url.URL
	level   slog.Level
	perTime v1alpha1.Rate   // zero: no limit
	way     *passage.Client // nil: what is dialled needs no mark
}

// parseRate reads "10/sec", "100/min" or "1000/hour": the aegrail project's
// spelling, which the limits of a policy share.
func (s *settings) parseRate() (err error) {
	if s.rate == "" {
		return nil
	}
	if s.perTime, err = v1alpha1.ParseRate(s.rate); err != nil {
		return fmt.Errorf("--rate: %w", err)
	}
	return nil
}

// readSettings is the whole way from flags and environment to settings.
func readSettings(c *cobra.Command, o *serveOptions, getenv func(string) string) (settings, error) {
	if err := o.readEnv(c.Flags(), getenv); err != nil {
		return settings{}, badInput(err)
	}
	if err := o.preferFlags(c.Flags()); err != nil {
		return settings{}, badInput(err)
	}
	s, err := o.parse()
	return s, badInput(err)
}
