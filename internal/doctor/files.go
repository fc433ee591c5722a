//go:build linux

package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/trustenv"
)

// What is the engine's alone, and where.
const (
	audience  = "aegrail-control" // of the token that control believes
	tokenDir  = "var/run/secrets" // and below it what kubelet mounts
	logDir    = "var/log/aegrail"
	engineDir = "etc/aegrail" // the bundle, which is everybody's; key and policy, which are not
)

const fixTrust = "inject the pod, or start the program by exec; a program that sets these variables itself must name the same bundle. " +
	"A bundle that does not verify is another namespace's, or from before its root was changed: restart the pod"

func (p *patient) fileChecks() []check {
	never := func(run func() outcome) func(context.Context) outcome {
		return func(context.Context) outcome { return run() }
	}
	return []check{
		{"E5", "the engine's token", "mount the volume aegrail-token in the engine alone, and no token for the audience " + audience + " anywhere else", never(p.token)},
		{"E5", "private keys", "mount the namespace's CA and the log's key in the engine alone", never(p.keys)},
		{"E5", "the audit log", "mount the volume aegrail-log in the engine alone", never(p.log)},
		{"E5", "the policy", "make the policy's files another user's, or mount them read-only", never(p.policy)},
		{"P1", "the trust bundle in the environment", fixTrust, p.trust},
		{"P2", "the proxy variables", "leave them as injection or exec sets them", never(p.proxies)},
	}
}

// token looks for tokens that control would believe.
func (p *patient) token() outcome {
	found := ""
	n := 0
	for _, dir := range []string{tokenDir, "run/secrets"} {
		p.files(dir, func(name string, data []byte) {
			n++
			if slices.Contains(audiences(data), audience) {
				found = name
			}
		})
	}
	if found != "" {
		return open("%s is a token for control", found)
	}
	return held("none of %d files below /%s is a token for control", n, tokenDir)
}

// audiences are those of a JSON Web Token; none where data is something else.
func audiences(data []byte) []string {
	parts := strings.Split(strings.TrimSpace(string(data)), ".")
	if len(parts) != 3 {
		return nil
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var many struct {
		Aud []string `json:"aud"`
	}
	if json.Unmarshal(claims, &many) == nil {
		return many.Aud
	}
	var one struct {
		Aud string `json:"aud"`
	}
	if json.Unmarshal(claims, &one) == nil {
		return []string{one.Aud}
	}
	return nil
}

// keys looks for private keys where the engine has its own.
func (p *patient) keys() outcome {
	found := ""
	for _, dir := range []string{engineDir, logDir, tokenDir} {
		p.files(dir, func(name string, data []byte) {
			if bytes.Contains(data, []byte("PRIVATE KEY")) {
				found = name
			}
		})
	}
	if found != "" {
		return open("%s holds a private key", found)
	}
	return held("no private key is in reach below /%s and /%s", engineDir, logDir)
}

func (p *patient) log() outcome {
	found := ""
	p.files(logDir, func(name string, _ []byte) { found = name })
	switch {
	case found != "":
		return open("%s can be read", found)
	case unix.Access(p.path(logDir), unix.W_OK) == nil && p.mounted(logDir):
		return open("/%s can be written", logDir)
	default:
		return held("/%s is out of reach", logDir)
	}
}

// mounted reports whether something is mounted at the directory. The engine's
// image has one of its own at the log's place, which nobody mounts.
func (p *patient) mounted(dir string) bool {
	name := "proc/self/mountinfo"
	if p.PID != 0 {
		name = filepath.Join("proc", strconv.Itoa(p.PID), "mountinfo")
	}
	data, err := p.read(name, maxProc)
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/"+dir { // proc_pid_mountinfo(5)
			return true
		}
	}
	return err != nil // not known: it may be
}

// policy looks for policies that this process could write, where the engine
// reads them and where the caller says.
func (p *patient) policy() outcome {
	all := slices.Clone(p.Policies)
	p.files(engineDir, func(name string, data []byte) {
		if bytes.Contains(data, []byte("AgentPolicy")) {
			all = append(all, name)
		}
	})
	for _, name := range all {
		if unix.Access(p.path(name), unix.W_OK) == nil {
			return open("%s can be written", name)
		}
	}
	if len(all) == 0 {
		return held("no policy is in reach")
	}
	return held("%s cannot be written", strings.Join(all, ", "))
}

// environment is Environ as a map; the last of a name counts, as for getenv of
// most runtimes.
func (p *patient) environment() map[string]string {
	out := map[string]string{}
	for _, kv := range p.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			out[name] = value
		}
	}
	return out
}

// expected is the environment as injection or exec would leave it, for the
// bundle and the proxy that this one names.
func (p *patient) expected() (map[string]string, error) {
	env := p.environment()
	s := trustenv.Settings{BundlePEM: env["SSL_CERT_FILE"], ProxyURL: env["HTTPS_PROXY"]}
	s.Redirected = s.ProxyURL == ""
	if _, store, ok := strings.Cut(env["JAVA_TOOL_OPTIONS"], "-Djavax.net.ssl.trustStore="); ok {
		s.BundleP12, _, _ = strings.Cut(strings.Trim(store, `"'`), " ")
		s.BundleP12 = strings.TrimRight(s.BundleP12, `"'`)
		_, password, _ := strings.Cut(env["JAVA_TOOL_OPTIONS"], "-Djavax.net.ssl.trustStorePassword=")
		s.P12Password, _, _ = strings.Cut(password, " ")
	}
	built, err := trustenv.Build(p.Environ, s)
	if err != nil {
		return nil, err
	}
	return (&patient{Config{Environ: built}}).environment(), nil
}

// trust checks that every variable names one bundle, and that it is one.
func (p *patient) trust(ctx context.Context) outcome {
	env := p.environment()
	bundle := env["SSL_CERT_FILE"]
	if bundle == "" {
		return open("SSL_CERT_FILE is not set: programs do not trust the engine")
	}
	want, err := p.expected()
	if err != nil {
		return open("%v", err)
	}
	var off []string
	for name, value := range want {
		if value == bundle && env[name] != value {
			off = append(off, name)
		}
	}
	if slices.Sort(off); len(off) > 0 {
		return open("not every variable names %s, as SSL_CERT_FILE does: %s", bundle, strings.Join(off, ", "))
	}
	data, err := p.read(bundle, 16<<20) // 16 MiB: a bundle of all public roots is a quarter of one
	if err != nil {
		return open("%v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return open("%s holds no certificate", bundle)
	}
	if p.Host == "" {
		return held("every variable names %s", bundle)
	}
	return p.verifies(ctx, bundle, roots)
}

// verifies checks the engine's certificate for Host against the bundle.
func (p *patient) verifies(ctx context.Context, bundle string, roots *x509.CertPool) outcome {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(nobody4(), 443).String())
	if err != nil {
		return open("the engine cannot be asked for a certificate (%v)", short(err))
	}
	defer conn.Close()
	if err := tls.Client(conn, &tls.Config{ServerName: p.Host, RootCAs: roots, MinVersion: tls.VersionTLS12}).HandshakeContext(ctx); err != nil {
		return open("%s does not verify what answers for %s: %v", bundle, p.Host, err)
	}
	return held("every variable names %s, which verifies the engine's certificate for %s", bundle, p.Host)
}

// proxies checks that the variables agree, and lead to the engine or nowhere.
func (p *patient) proxies() outcome {
	env := p.environment()
	var set []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		if env[name] != "" {
			set = append(set, name)
		}
	}
	if len(set) == 0 && p.Advisory {
		return open("no proxy variable is set, and nothing else leads to the engine")
	}
	if len(set) == 0 {
		if _, ok := p.listener(p.Transparent); !ok {
			return open("none is set, and nobody listens on port %d, which the kernel would redirect to", p.Transparent)
		}
		return held("none is set, and none is needed: the kernel redirects")
	}
	for _, name := range set {
		u, err := url.Parse(env[name])
		if err != nil {
			return open("%s is no URL", name)
		}
		if !p.isForward(u.Host) {
			return open("%s leads to %s, which is not the engine's forward proxy", name, u.Host)
		}
	}
	want, err := p.expected()
	if err != nil {
		return open("%v", err)
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy"} {
		if env[name] != want[name] {
			return open("%s is %q; the others want %q", name, env[name], want[name])
		}
	}
	return held("all of them lead to the engine's forward proxy")
}

func (p *patient) isForward(host string) bool {
	name, portText, err := net.SplitHostPort(host)
	if err != nil {
		return false
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	addr, aerr := netip.ParseAddr(name)
	return err == nil && p.Forward != 0 && uint16(port) == p.Forward && (name == "localhost" || aerr == nil && addr.IsLoopback())
}
