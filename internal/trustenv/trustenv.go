// Package trustenv knows which environment variable makes which runtime use the engine as its proxy and trust its CA. It is
// pure: it takes an environment as os.Environ returns it, and returns another one.
//
// The variables are advice to a program, not a boundary. Whoever runs in that environment can unset them; what holds a program
// back is the network (exec's namespaces, the pod's redirect). They are there so that a well-behaved program works at once.
//
// # Proxy
//
//	HTTP_PROXY HTTPS_PROXY     Python (urllib, requests, httpx), Go net/http, Rust reqwest, .NET HttpClient, Ruby, git, npm, pip, cargo
//	http_proxy https_proxy     the same and curl and wget, which read http_proxy in lower case alone; gRPC C core and grpc-js
//	ALL_PROXY all_proxy        curl, reqwest, httpx: for every other scheme
//	NO_PROXY no_proxy          all of them; loopback alone, see below
//	NODE_USE_ENV_PROXY         Node.js from 24.0 (fetch), 24.5 and 22.21 (http and https modules) read the four above only with
//	                           this set (nodejs.org, "Enterprise Network Configuration"); an older Node.js needs a library
//	JAVA_TOOL_OPTIONS          each JVM, whoever starts it (JVMTI specification): -Dhttp.proxyHost, -Dhttp.proxyPort, the two for
//	                           https, -Dhttp.nonProxyHosts, which serves both (Java Networking Guide, "Java Networking and Proxies")
//
// # Trust
//
// All of them name one PEM file that holds the system's roots, the engine's root and what the user's own variables named,
// since most of them replace the runtime's list and do not add to it.
//
//	SSL_CERT_FILE                      OpenSSL's default file, so Python ssl, httpx, Ruby, PHP, Perl; Go on Linux and BSD (crypto/x509);
//	                                   rustls-native-certs (uv, deno with the system store); .NET on Linux
//	REQUESTS_CA_BUNDLE                 Python requests ("SSL Cert Verification"), which otherwise uses certifi
//	CURL_CA_BUNDLE                     curl (curl(1), ENVIRONMENT), requests as second choice
//	NODE_EXTRA_CA_CERTS                Node.js (cli documentation), read once at start; Bun; Deno from 2.8. Adds to the built-in list
//	AWS_CA_BUNDLE                      AWS CLI, boto3, AWS SDKs (shared configuration reference, ca_bundle)
//	GIT_SSL_CAINFO                     git over https (git-config, http.sslCAInfo)
//	PIP_CERT                           pip (each option has a PIP_ variable)
//	CARGO_HTTP_CAINFO                  cargo (cargo reference, http.cainfo)
//	DENO_CERT                          Deno (environment variables)
//	GRPC_DEFAULT_SSL_ROOTS_FILE_PATH   gRPC C core: C++, Python, Ruby, PHP; grpc-js (grpc, doc/environment_variables.md)
//	JAVA_TOOL_OPTIONS                  -Djavax.net.ssl.trustStore, trustStoreType=PKCS12 and trustStorePassword (JSSE reference guide)
//
// # What the user had set
//
// A proxy or bundle of the user's is replaced, since a second proxy is a way round the engine; the certificates of the bundle
// are kept, by way of UserBundles. NO_PROXY is replaced for the same reason. Variables of single tools that beat the general
// ones (PIP_PROXY, npm's, yarn's, gRPC's) are removed, or pointed at the bundle if they name one. JAVA_TOOL_OPTIONS is kept
// and ours come after it, because of two -D for one property the JVM takes the later. Dropped lists what is lost, for the
// user to read. A program's own command line (java -D, curl --proxy, git -c) still beats its environment.
package trustenv

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Settings say where the engine and its trust bundle are, as the program will see them.
type Settings struct {
	// ProxyURL is the engine's forward proxy, http://HOST:PORT. Required unless Redirected.
	ProxyURL string
	// Redirected says that the kernel leads every connection to the engine. Then no proxy is set and the user's are removed:
	// what is sent to a proxy would end at the engine as well, in a form that it does not expect there.
	Redirected bool
	// BundlePEM is the path of the PEM bundle. Required: without it every https request of the program would fail.
	BundlePEM string
	// BundleP12 is the path of the PKCS #12 trust store, and P12Password its password (which is no secret: the store holds
	// certificates alone, and the password is readable in the environment). Empty: Java gets the proxy and no trust store.
	BundleP12   string
	P12Password string
}

// loopback is what need not pass the engine: the program's own helpers, which the engine would refuse to dial anyway. Both
// spellings of ::1, because some clients split a bare one at its last colon.
const loopback = "localhost,127.0.0.1,::1,[::1]"

const javaOptions = "JAVA_TOOL_OPTIONS"

// bundleVariables are set to the PEM bundle, in the order of the package comment.
func bundleVariables() []string {
	return []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO",
		"PIP_CERT", "CARGO_HTTP_CAINFO", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	}
}

// bundleIfSet are tools' own variables that beat those above: pointed at the bundle if the user has them, else left unset.
func bundleIfSet() []string {
	return []string{
		"npm_config_cafile", "NPM_CONFIG_CAFILE", // npm: config cafile replaces the list and NODE_EXTRA_CA_CERTS with it
		"YARN_HTTPS_CA_FILE_PATH",            // Yarn 2 and later, httpsCaFilePath
		"NIX_SSL_CERT_FILE",                  // OpenSSL and Git as Nix builds them
		"HTTPLIB2_CA_CERTS",                  // Python httplib2
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // gcloud
		"BUNDLE_SSL_CA_CERT",                 // Ruby Bundler
		"PERL_LWP_SSL_CA_FILE",               // Perl LWP
	}
}

func proxyVariables() []string {
	return []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}
}

func noProxyVariables() []string { return []string{"NO_PROXY", "no_proxy"} }

// removed are tools' own proxy variables that beat the general ones.
func removed() []string {
	return []string{
		"grpc_proxy", "no_grpc_proxy", // gRPC C core and grpc-js read them first
		"PIP_PROXY",
		"CARGO_HTTP_PROXY",
		"npm_config_proxy", "npm_config_https_proxy", "npm_config_noproxy",
		"NPM_CONFIG_PROXY", "NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_NOPROXY",
		"YARN_HTTP_PROXY", "YARN_HTTPS_PROXY",
	}
}

// Build returns base with the variables of s. Variables it does not know keep their value and place; those it sets come at
// the end, each once, so that no first or last duplicate can win. base is not modified. What Build returned, Build returns
// again. It fails only for Settings that a program could not use.
func Build(base []string, s Settings) ([]string, error) {
	host, port, err := s.proxy()
	if err != nil {
		return nil, err
	}
	set := s.variables()
	for _, name := range bundleIfSet() {
		if _, ok := lookup(base, name); ok {
			set = append(set, name+"="+s.BundlePEM)
		}
	}
	java, err := s.java(host, port)
	if err != nil {
		return nil, err
	}
	users, _ := lookup(base, javaOptions)
	if before, again := strings.CutSuffix(users, java); again {
		users = strings.TrimSuffix(before, " ")
	}
	if strings.TrimSpace(users) != "" {
		java = strings.TrimSuffix(users+" "+java, " ")
	}
	if java != "" {
		set = append(set, javaOptions+"="+java)
	}

	ours := removed()
	if s.Redirected {
		ours = slices.Concat(ours, proxyVariables(), noProxyVariables())
	}
	for _, kv := range set {
		ours = append(ours, nameOf(kv))
	}
	out := make([]string, 0, len(base)+len(set))
	for _, kv := range base {
		if !slices.Contains(ours, nameOf(kv)) {
			out = append(out, kv)
		}
	}
	return append(out, set...), nil
}

// variables are those whose value does not depend on the user's environment.
func (s Settings) variables() []string {
	var set []string
	if !s.Redirected {
		for _, name := range proxyVariables() {
			set = append(set, name+"="+s.ProxyURL)
		}
		for _, name := range noProxyVariables() {
			set = append(set, name+"="+loopback)
		}
	}
	for _, name := range bundleVariables() {
		set = append(set, name+"="+s.BundlePEM)
	}
	if !s.Redirected {
		set = append(set, "NODE_USE_ENV_PROXY=1")
	}
	return set
}

// proxy checks s and splits the proxy's address.
func (s Settings) proxy() (host, port string, err error) {
	u, err := url.Parse(s.ProxyURL)
	switch {
	case err != nil:
		return "", "", fmt.Errorf("proxy URL: %w", err)
	case s.Redirected && s.ProxyURL != "":
		return "", "", fmt.Errorf("proxy URL %q: the kernel redirects, and no proxy is set; give one or the other", u.Redacted())
	case !s.Redirected && (u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || u.User != nil || u.Path != "" || u.RawQuery != ""):
		return "", "", fmt.Errorf("proxy URL %q: must be http://HOST:PORT and no more", u.Redacted())
	case s.BundlePEM == "":
		return "", "", fmt.Errorf("no path of the trust bundle: every https request would fail")
	case strings.ContainsRune(s.BundlePEM, 0):
		return "", "", fmt.Errorf("path of the trust bundle %q: holds a NUL byte", s.BundlePEM)
	}
	return u.Hostname(), u.Port(), nil
}

// java is our part of JAVA_TOOL_OPTIONS, which may be nothing.
func (s Settings) java(host, port string) (string, error) {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	var options []string
	if !s.Redirected {
		options = []string{
			"-Dhttp.proxyHost=" + host, "-Dhttp.proxyPort=" + port,
			"-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port,
			"-Dhttp.nonProxyHosts=localhost|127.*|[::1]",
		}
	}
	if s.BundleP12 != "" {
		options = append(options, "-Djavax.net.ssl.trustStore="+s.BundleP12, "-Djavax.net.ssl.trustStoreType=PKCS12",
			"-Djavax.net.ssl.trustStorePassword="+s.P12Password)
	}
	for i, o := range options {
		quoted, err := quoteJava(o)
		if err != nil {
			return "", err
		}
		options[i] = quoted
	}
	return strings.Join(options, " "), nil
}

// quoteJava quotes an option: the JVM splits the variable at white space outside single or double quotes, which cannot be escaped
// (HotSpot, Arguments::parse_options_buffer).
func quoteJava(option string) (string, error) {
	switch {
	case strings.ContainsRune(option, 0):
		return "", fmt.Errorf("java option %q: holds a NUL byte", option)
	case !strings.ContainsAny(option, " \t\n\v\f\r\"'"):
		return option, nil
	case !strings.Contains(option, `"`):
		return `"` + option + `"`, nil
	case !strings.Contains(option, `'`):
		return `'` + option + `'`, nil
	}
	return "", fmt.Errorf("java option %q: has both kinds of quotes; choose another path or password", option)
}

// UserBundles returns the files in which the user's environment keeps certificates, each once, in a stable order. Their
// content belongs into the bundle, or what the program trusted before it would trust no more. A path may be missing, or a
// directory (REQUESTS_CA_BUNDLE allows one): to read them is the caller's part.
func UserBundles(environ []string) []string {
	var out []string
	for _, name := range append(bundleVariables(), bundleIfSet()...) {
		if path, ok := lookup(environ, name); ok && path != "" && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	return out
}

// lookup returns the last value of a variable, which is what os/exec would pass on.
func lookup(environ []string, name string) (string, bool) {
	for _, kv := range slices.Backward(environ) {
		if nameOf(kv) == name {
			_, value, _ := strings.Cut(kv, "=")
			return value, true
		}
	}
	return "", false
}

// nameOf is what is before the first "=", or all of an entry that has none.
func nameOf(kv string) string {
	name, _, _ := strings.Cut(kv, "=")
	return name
}
