package trustenv

import (
	"slices"
	"strings"
	"testing"
)

var settings = Settings{ProxyURL: "http://127.0.0.1:8080", BundlePEM: "/run/t/bundle.pem", BundleP12: "/run/t/bundle.p12", P12Password: "changeit"}

func build(t *testing.T, base ...string) []string {
	t.Helper()
	out, err := Build(base, settings)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// value returns a variable's value and that it is there exactly once.
func value(t *testing.T, environ []string, name string) string {
	t.Helper()
	var found []string
	for _, kv := range environ {
		if n, v, _ := strings.Cut(kv, "="); n == name {
			found = append(found, v)
		}
	}
	if len(found) != 1 {
		t.Errorf("%s is there %d times: %q", name, len(found), found)
		return ""
	}
	return found[0]
}

func TestEveryRuntimeGetsItsVariables(t *testing.T) {
	out := build(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		if got := value(t, out, name); got != "http://127.0.0.1:8080" {
			t.Errorf("%s=%s", name, got)
		}
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if got := value(t, out, name); got != "localhost,127.0.0.1,::1,[::1]" {
			t.Errorf("%s=%s", name, got)
		}
	}
	for _, name := range []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT",
		"CARGO_HTTP_CAINFO", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	} {
		if got := value(t, out, name); got != "/run/t/bundle.pem" {
			t.Errorf("%s=%s", name, got)
		}
	}
	if got := value(t, out, "NODE_USE_ENV_PROXY"); got != "1" {
		t.Errorf("NODE_USE_ENV_PROXY=%s", got)
	}
	want := "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8080 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8080 " +
		"-Dhttp.nonProxyHosts=localhost|127.*|[::1] -Djavax.net.ssl.trustStore=/run/t/bundle.p12 " +
		"-Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
	if got := value(t, out, "JAVA_TOOL_OPTIONS"); got != want {
		t.Errorf("JAVA_TOOL_OPTIONS=%s", got)
	}
}

func TestWhatTheUserSetIsMerged(t *testing.T) {
	base := []string{
		"PATH=/bin", "odd entry without a value", "NO_PROXY=first", "no_proxy=.corp", "NO_PROXY=last", "EMPTY=", "HTTPS_PROXY=http://corp:3128",
		"JAVA_TOOL_OPTIONS=-Xmx1g -Dx='a b'", "SSL_CERT_FILE=/corp.pem", "npm_config_cafile=/npm.pem", "PIP_PROXY=http://corp:3128",
		"no_grpc_proxy=*", "A=b=c", "SSL_CERT_FILE_=mine",
	}
	before := slices.Clone(base)
	out := build(t, base...)
	if !slices.Equal(base, before) {
		t.Error("base was modified")
	}
	kept := []string{"PATH=/bin", "odd entry without a value", "EMPTY=", "A=b=c", "SSL_CERT_FILE_=mine"}
	if !slices.Equal(out[:len(kept)], kept) {
		t.Errorf("begins with %q", out[:len(kept)])
	}
	if got := value(t, out, "JAVA_TOOL_OPTIONS"); !strings.HasPrefix(got, "-Xmx1g -Dx='a b' -Dhttp.proxyHost=127.0.0.1 ") {
		t.Errorf("JAVA_TOOL_OPTIONS=%s", got)
	}
	for name, want := range map[string]string{
		"NO_PROXY": loopback, "no_proxy": loopback, "HTTPS_PROXY": settings.ProxyURL, "SSL_CERT_FILE": settings.BundlePEM, "npm_config_cafile": settings.BundlePEM,
	} {
		if got := value(t, out, name); got != want {
			t.Errorf("%s=%s", name, got)
		}
	}
	for _, kv := range out {
		if name := nameOf(kv); name == "PIP_PROXY" || name == "no_grpc_proxy" || name == "NIX_SSL_CERT_FILE" {
			t.Errorf("%s is there", kv)
		}
	}
	if again := build(t, out...); len(again) != len(out) {
		t.Errorf("an engine inside an engine: %d variables become %d", len(out), len(again))
	}
}

func TestUserBundles(t *testing.T) {
	got := UserBundles([]string{
		"NODE_EXTRA_CA_CERTS=/node.pem", "SSL_CERT_FILE=/old.pem", "REQUESTS_CA_BUNDLE=/corp.pem", "CURL_CA_BUNDLE=", "SSL_CERT_FILE=/corp.pem",
		"NPM_CONFIG_CAFILE=/npm.pem", "PATH=/bin",
	})
	if want := []string{"/corp.pem", "/node.pem", "/npm.pem"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := UserBundles(nil); got != nil {
		t.Errorf("%q of nothing", got)
	}
}

func TestSettingsThatNoProgramCouldUse(t *testing.T) {
	for name, edit := range map[string]func(*Settings){
		"no proxy":                func(s *Settings) { s.ProxyURL = "" },
		"a proxy and a redirect":  func(s *Settings) { s.Redirected = true },
		"no URL":                  func(s *Settings) { s.ProxyURL = "http://a b:1\x00" },
		"no port":                 func(s *Settings) { s.ProxyURL = "http://127.0.0.1" },
		"no host":                 func(s *Settings) { s.ProxyURL = "http://:8080" },
		"https":                   func(s *Settings) { s.ProxyURL = "https://127.0.0.1:8080" },
		"password":                func(s *Settings) { s.ProxyURL = "http://u:secret@127.0.0.1:8080" },
		"path":                    func(s *Settings) { s.ProxyURL = "http://127.0.0.1:8080/x" },
		"no bundle":               func(s *Settings) { s.BundlePEM = "" },
		"NUL in the bundle":       func(s *Settings) { s.BundlePEM = "/a\x00b" },
		"NUL in the trust store":  func(s *Settings) { s.BundleP12 = "/a\x00b" },
		"both quotes in the path": func(s *Settings) { s.BundleP12 = `/a"b'c` },
	} {
		s := settings
		edit(&s)
		out, err := Build([]string{"PATH=/bin"}, s)
		if err == nil || out != nil {
			t.Errorf("%s is taken: %q", name, out)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

func TestJavaOptions(t *testing.T) {
	for name, row := range map[string]struct {
		edit func(*Settings)
		want string
	}{
		"white space":   {func(s *Settings) { s.BundleP12 = "/my files/t.p12" }, `"-Djavax.net.ssl.trustStore=/my files/t.p12"`},
		"double quote":  {func(s *Settings) { s.BundleP12 = `/a"b` }, `'-Djavax.net.ssl.trustStore=/a"b'`},
		"single quote":  {func(s *Settings) { s.BundleP12 = `/a'b` }, `"-Djavax.net.ssl.trustStore=/a'b"`},
		"IPv6 listener": {func(s *Settings) { s.ProxyURL = "http://[::1]:8080" }, `-Dhttps.proxyHost=[::1]`},
	} {
		s := settings
		row.edit(&s)
		out, err := Build(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		java := value(t, out, javaOptions)
		if !strings.Contains(java, row.want) {
			t.Errorf("%s: %s", name, java)
		}
		// What the JVM makes of it is what was meant.
		if words := splitJava(java); len(words) != 8 || words[5] != "-Djavax.net.ssl.trustStore="+s.BundleP12 {
			t.Errorf("%s: the JVM reads %q", name, words)
		}
	}
	s := settings
	s.BundleP12 = ""
	out, err := Build(nil, s)
	if err != nil || strings.Contains(value(t, out, javaOptions), "trustStore") {
		t.Errorf("a trust store without a path: %v", err)
	}
}

func TestDropped(t *testing.T) {
	got := Dropped([]string{
		"PATH=/bin", "HTTPS_PROXY=http://user:secret@corp:3128", "https_proxy=user:secret@corp:3128", "all_proxy=socks5://corp:1080",
		"NO_PROXY=localhost, .corp,127.0.0.1,10.0.0.0/8 *,::1,[::1]:80,127.0.0.0/8,127.9.9.9:80,app.localhost:3000,0.0.0.0/0,127.0.0.0/1,::/0,[::1],::1/128",
		"npm_config_noproxy=*", "PIP_PROXY=", "SSL_CERT_FILE=/corp.pem",
		`JAVA_TOOL_OPTIONS=-Xmx1g "-Djavax.net.ssl.trustStore=/my files/corp.jks" -Dhttp.nonProxyHosts=*.corp -Dhttp.nonProxyHosts=*.corp`,
	})
	want := []string{
		"HTTPS_PROXY: http://user:xxxxx@corp:3128 dropped: the engine is the proxy; give a proxy behind it with --upstream-proxy",
		"all_proxy: socks5://corp:1080 dropped: the engine is the proxy; give a proxy behind it with --upstream-proxy",
		"https_proxy: xxxxx@corp:3128 dropped: the engine is the proxy; give a proxy behind it with --upstream-proxy",
		"npm_config_noproxy: * dropped: it would be a way round the engine",
		"NO_PROXY: .corp dropped: it would be a way round the engine",
		"NO_PROXY: 10.0.0.0/8 dropped: it would be a way round the engine",
		"NO_PROXY: * dropped: it would be a way round the engine",
		"NO_PROXY: 0.0.0.0/0 dropped: it would be a way round the engine",
		"NO_PROXY: 127.0.0.0/1 dropped: it would be a way round the engine",
		"NO_PROXY: ::/0 dropped: it would be a way round the engine",
		"JAVA_TOOL_OPTIONS: -Djavax.net.ssl.trustStore=/my files/corp.jks dropped: the engine's trust store comes after it; its certificates are not taken over",
		"JAVA_TOOL_OPTIONS: -Dhttp.nonProxyHosts=*.corp dropped: the engine's own value comes after it",
	}
	lines := make([]string, len(got))
	for i, d := range got {
		lines[i] = d.String()
	}
	slices.Sort(lines)
	slices.Sort(want)
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if got := Dropped(nil); got != nil {
		t.Errorf("%v of nothing", got)
	}
}

func TestSplitJava(t *testing.T) {
	got := splitJava("  -a\t'b c' \"\" -Dx=\"y 'z'\"w \n")
	if want := []string{"-a", "b c", "", "-Dx=y 'z'w"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

var redirected = Settings{Redirected: true, BundlePEM: "/run/t/bundle.pem", BundleP12: "/run/t/bundle.p12", P12Password: "changeit"}

func TestARedirectedProgramGetsTrustAndNoProxy(t *testing.T) {
	out, err := Build([]string{"HTTPS_PROXY=http://corp:3128", "no_proxy=.corp", "PIP_PROXY=http://corp:3128", "LANG=C", javaOptions + "=-Xmx1g"}, redirected)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range out {
		if name := nameOf(kv); slices.Contains(slices.Concat(proxyVariables(), noProxyVariables(), removed()), name) || name == "NODE_USE_ENV_PROXY" {
			t.Errorf("%s is set: the connection to it would be redirected", kv)
		}
	}
	if got := value(t, out, "SSL_CERT_FILE"); got != redirected.BundlePEM {
		t.Errorf("SSL_CERT_FILE=%s", got)
	}
	const java = "-Xmx1g -Djavax.net.ssl.trustStore=/run/t/bundle.p12 -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
	if got := value(t, out, javaOptions); got != java {
		t.Errorf("%s=%s", javaOptions, got)
	}
	if got := value(t, out, "LANG"); got != "C" {
		t.Errorf("LANG=%s", got)
	}
}

func TestJavaIsLeftAloneWhereThereIsNothingToSay(t *testing.T) {
	s := Settings{Redirected: true, BundlePEM: "/b.pem"}
	out, err := Build([]string{"A=1"}, s)
	if _, set := lookup(out, javaOptions); set || err != nil {
		t.Errorf("%v, %v", out, err)
	}
	out, err = Build([]string{javaOptions + "=-Xmx1g"}, s)
	if got := value(t, out, javaOptions); got != "-Xmx1g" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWhatBuildReturnedItReturnsAgain(t *testing.T) {
	for _, s := range []Settings{settings, redirected, {Redirected: true, BundlePEM: "/b.pem"}} {
		for _, base := range [][]string{
			nil,
			{"A=1", "HTTP_PROXY=http://corp:3128", "B=2"},
			{javaOptions + "=-Xmx1g", "NIX_SSL_CERT_FILE=/n.pem", "SSL_CERT_FILE=/own.pem"},
			{javaOptions + "= "},
		} {
			once, err := Build(base, s)
			if err != nil {
				t.Fatal(err)
			}
			twice, err := Build(once, s)
			if err != nil || !slices.Equal(once, twice) {
				t.Errorf("%q becomes\n%q and then\n%q, %v", base, once, twice, err)
			}
		}
	}
}
