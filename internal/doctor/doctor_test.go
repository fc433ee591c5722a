//go:build linux

package doctor

import (
	"context"
	"crypto/tls"
	"encoding/base64"

	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/resolver"
	"github.com/arpitcoder/aegrail-engine/internal/trustenv"
)

// The checks as a whole run in pods that the tests of cmd/aegrail-engine make.
// Here is what each of them makes of what it sees.

// machine is a patient whose files are those given, by name.
func machine(t *testing.T, c Config, files map[string]string) *patient {
	t.Helper()
	c.Root = t.TempDir()
	if c.Patience == 0 {
		c.Patience = 20 * time.Second
	}
	for name, text := range files {
		full := filepath.Join(c.Root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil { //nolint:gosec // a test's
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil { //nolint:gosec // likewise
			t.Fatal(err)
		}
	}
	return &patient{c}
}

// finds checks an outcome.
func finds(t *testing.T, o outcome, isHeld bool, text string) {
	t.Helper()
	if o.held != isHeld || !strings.Contains(o.found, text) {
		t.Errorf("held: %v, %s; want %v, %s", o.held, o.found, isHeld, text)
	}
}

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000 2000000777        0 101 1
   1: 0100007F:3A99 02004D0A:9C41 01 00000000:00000000 00:00000000 00000000 2000000777        0 102 1
   2: broken
   3: 0100007F:ZZZZ 02004D0A:9C42 01 00000000:00000000 00:00000000 00000000 2000000777        0 103 1
`

const tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:3A99 000077FD000000000000000002000000:9C43 01 00000000:00000000 00:00000000 00000000 2000000777        0 104 1
   1: 0000000000000000FFFF00000100007F:3A99 0000000000000000FFFF000002004D0A:9C44 01 00000000:00000000 00:00000000 00000000 2000000777        0 105 1
`

func TestAConnectionLandedWhereItsOtherEndIsTheEngines(t *testing.T) {
	p := machine(t, Config{Transparent: 15001}, map[string]string{"proc/net/tcp": tcpTable, "proc/net/tcp6": tcp6Table})
	for end, want := range map[string]bool{
		"10.77.0.2:40001": true, "[fd77::2]:40003": true, "[::ffff:10.77.0.2]:40004": true,
		"10.77.0.2:40002": false, "10.77.0.3:40001": false, "0.0.0.0:0": false,
	} {
		if got := p.landed(netip.MustParseAddrPort(end)); got != want {
			t.Errorf("%s: %v", end, got)
		}
	}
	if uid, ok := p.listener(15001); uid != 2000000777 || !ok {
		t.Errorf("the listener is %d's, %v", uid, ok)
	}
	if _, ok := p.listener(15002); ok {
		t.Error("nobody listens there")
	}
	p.Transparent = 15002
	if p.landed(netip.MustParseAddrPort("10.77.0.2:40001")) {
		t.Error("landed at a port that is not the engine's")
	}
}

func TestPrivilegesAreJudgedByWhatTheyLeadTo(t *testing.T) {
	status := func(effective, bounding, noNew string) map[string]string {
		return parseStatus([]byte("Name:\tx\nCapInh:\t0\nCapPrm:\t" + effective + "\nCapEff:\t" + effective + "\nCapBnd:\t" + bounding + "\nCapAmb:\t0\nNoNewPrivs:\t" + noNew + "\n"))
	}
	for name, c := range map[string]struct {
		status map[string]string
		held   bool
		says   string
	}{
		"nothing":                      {status("0", "0", "1"), true, "no capability"},
		"harmless ones":                {status("0000000000000400", "ffffffffff", "1"), true, "no capability"},
		"NET_ADMIN":                    {status("1000", "1000", "1"), false, "this process has NET_ADMIN"},
		"several":                      {status("00000000a80425fb", "0", "1"), false, "this process has CHOWN, NET_RAW, SETFCAP, SETGID, SETUID"},
		"by a program":                 {status("0", "80", "0"), false, "a program with the set-user-ID bit or with capabilities gives SETUID"},
		"a program of the engine's":    {status("0", "0", "0"), false, "makes whoever runs it its owner"},
		"what cannot be read":          {map[string]string{}, false, `CapEff is ""`},
		"what is no number":            {status("many", "0", "1"), false, `CapEff is "many"`},
		"an old kernel without a word": {map[string]string{"CapEff": "0", "CapPrm": "0", "CapInh": "0", "CapAmb": "0", "CapBnd": "0"}, false, "escalation is allowed"},
	} {
		t.Run(name, func(t *testing.T) { finds(t, judgePrivileges(c.status), c.held, c.says) })
	}
}

func TestTheEnginesProcessIsFoundByItsUser(t *testing.T) {
	files := map[string]string{
		"proc/100000001/status": "Name:\tsidecar\nUid:\t2000000777\t2000000777\n", "proc/100000001/environ": "A=b",
		"proc/100000002/status": "Name:\taegrail-engine\nUid:\t5\t5\n", "proc/100000002/environ": "A=b", "proc/100000002/mem": "",
		"proc/self/status": "Name:\tx\n", "proc/100000003/cmdline": "ended",
	}
	finds(t, machine(t, Config{EngineUID: 2000000777}, files).process(), false, "/proc/100000001/environ can be read")
	finds(t, machine(t, Config{}, files).process(), false, "/proc/100000002/environ can be read")
	finds(t, machine(t, Config{EngineUID: 9}, files).process(), true, "not in sight")
	delete(files, "proc/100000002/environ")
	finds(t, machine(t, Config{}, files).process(), false, "/proc/100000002/mem can be read")
	delete(files, "proc/100000002/mem")
	finds(t, machine(t, Config{}, files).process(), true, "1 process is in sight, and cannot be traced or read")
	files["proc/100000002/root/etc/passwd"] = ""
	finds(t, machine(t, Config{}, files).process(), false, "/proc/100000002/root can be read")
}

// jwt is a token with these claims and no signature.
func jwt(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature")) + "\n"
}

func TestATokenForControlIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		held bool
	}{
		"the API server's":     {jwt(`{"aud":["https://kubernetes.default.svc"]}`), true},
		"control's":            {jwt(`{"aud":["a","aegrail-control"]}`), false},
		"control's, as a word": {jwt(`{"aud":"aegrail-control"}`), false},
		"no audience":          {jwt(`{}`), true},
		"no token":             {"aegrail-control", true},
		"no base64":            {"a.%.c", true},
		"no claims":            {jwt(`[]`), true},
	} {
		t.Run(name, func(t *testing.T) {
			p := machine(t, Config{}, map[string]string{"var/run/secrets/kubernetes.io/serviceaccount/token": c.text, "var/run/secrets/x/namespace": "n"})
			finds(t, p.token(), c.held, "token")
		})
	}
}

func TestWhatIsTheEnginesAloneIsFound(t *testing.T) {
	const pair = "-----BEGIN EC PRIVATE KEY-----\n"
	p := machine(t, Config{}, map[string]string{"etc/aegrail/ca/ca-bundle.pem": "-----BEGIN CERTIFICATE-----\n"})
	finds(t, p.keys(), true, "no private key")
	finds(t, p.log(), true, "out of reach")
	finds(t, p.policy(), true, "no policy is in reach")
	p = machine(t, Config{}, map[string]string{
		"etc/aegrail/key/tls.key": pair, "var/log/aegrail/audit.log": "{}", "etc/aegrail/policy/policy.yaml": "kind: AgentPolicy",
	})
	finds(t, p.keys(), false, "/etc/aegrail/key/tls.key holds a private key")
	finds(t, p.log(), false, "/var/log/aegrail/audit.log can be read")
	finds(t, p.policy(), false, "/etc/aegrail/policy/policy.yaml can be written")
	p = machine(t, Config{Policies: []string{"/nowhere/policy.yaml"}}, nil)
	finds(t, p.policy(), true, "/nowhere/policy.yaml cannot be written")
	if err := os.MkdirAll(p.path(logDir), 0o755); err != nil { //nolint:gosec // a test's
		t.Fatal(err)
	}
	finds(t, p.log(), false, "/var/log/aegrail can be written") // what is mounted there cannot be told
	p = machine(t, Config{}, map[string]string{"proc/self/mountinfo": "1 2 0:1 / / rw - overlay overlay rw\n", "var/log/aegrail/.keep": ""})
	if err := os.Remove(p.path("var/log/aegrail/.keep")); err != nil {
		t.Fatal(err)
	}
	finds(t, p.log(), true, "out of reach") // the image's own, and empty
	p = machine(t, Config{PID: 7}, map[string]string{
		"proc/7/mountinfo": "1 2 0:1 / /var/log/aegrail rw - tmpfs tmpfs rw\n", "proc/7/root/etc/aegrail/key/tls.key": pair, "proc/7/status": "Name:\tagent\n",
	})
	finds(t, p.keys(), false, "/etc/aegrail/key/tls.key holds a private key")
	if err := os.MkdirAll(p.path(logDir), 0o755); err != nil { //nolint:gosec // a test's
		t.Fatal(err)
	}
	finds(t, p.log(), false, "/var/log/aegrail can be written")
	if s, err := p.status(); err != nil || s["Name"] != "agent" {
		t.Errorf("%v, %v", s, err)
	}
}

// environ is what injection or exec makes of an image's own environment.
func environ(t *testing.T, s trustenv.Settings, more ...string) []string {
	t.Helper()
	s.BundlePEM = "/etc/aegrail/ca/ca-bundle.pem"
	out, err := trustenv.Build([]string{"PATH=/bin", "npm_config_cafile=/x.pem"}, s)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, more...)
}

func TestTheBundleIsOneAndTheSame(t *testing.T) {
	redirected := trustenv.Settings{Redirected: true, BundleP12: "/etc/aegrail/ca/ca-bundle.p12", P12Password: "changeit"}
	root := string(enginetest.NewRoot(t, "doctor").PEM)
	for name, c := range map[string]struct {
		environ []string
		bundle  string
		held    bool
		says    string
	}{
		"as injected":         {environ(t, redirected), root, true, "every variable names /etc/aegrail/ca/ca-bundle.pem"},
		"as by exec":          {environ(t, trustenv.Settings{ProxyURL: "http://127.0.0.1:15080"}), root, true, "every variable names"},
		"none":                {nil, root, false, "SSL_CERT_FILE is not set"},
		"another":             {environ(t, redirected, "PIP_CERT=/x.pem", "AWS_CA_BUNDLE=/y.pem"), root, false, "AWS_CA_BUNDLE, PIP_CERT"},
		"an empty file":       {environ(t, redirected), "", false, "holds no certificate"},
		"a proxy that is odd": {environ(t, redirected, "HTTPS_PROXY=socks5://127.0.0.1"), root, false, "proxy URL"},
	} {
		t.Run(name, func(t *testing.T) {
			p := machine(t, Config{Environ: c.environ}, map[string]string{"etc/aegrail/ca/ca-bundle.pem": c.bundle})
			finds(t, p.trust(t.Context()), c.held, c.says)
		})
	}
	finds(t, machine(t, Config{Environ: environ(t, redirected)}, nil).trust(t.Context()), false, "no such file")
}

func TestProxyVariablesLeadToTheEngineOrNowhere(t *testing.T) {
	advisory := trustenv.Settings{ProxyURL: "http://127.0.0.1:15080"}
	for name, c := range map[string]struct {
		environ  []string
		advisory bool
		held     bool
		says     string
	}{
		"redirected":               {environ(t, trustenv.Settings{Redirected: true}), false, true, "the kernel redirects"},
		"advisory":                 {environ(t, advisory), true, true, "all of them lead"},
		"advisory, none":           {nil, true, false, "nothing else leads"},
		"somebody else's":          {[]string{"http_proxy=http://proxy.example:3128"}, false, false, "http_proxy leads to proxy.example:3128"},
		"somebody else on this":    {[]string{"https_proxy=http://127.0.0.1:3128"}, false, false, "https_proxy leads to 127.0.0.1:3128"},
		"the engine's port afar":   {[]string{"https_proxy=http://10.1.2.3:15080"}, false, false, "https_proxy leads to 10.1.2.3:15080"},
		"no port":                  {[]string{"https_proxy=http://127.0.0.1"}, false, false, "https_proxy leads to 127.0.0.1"},
		"no URL":                   {[]string{"ALL_PROXY=http://%"}, false, false, "ALL_PROXY is no URL"},
		"one of them is missing":   {environ(t, advisory, "https_proxy="), true, false, `https_proxy is ""`},
		"a way round by exception": {environ(t, advisory, "NO_PROXY=*"), true, false, `NO_PROXY is "*"`},
		"only some, in lower case": {[]string{"https_proxy=http://127.0.0.1:15080", "SSL_CERT_FILE=/x"}, true, false, "https_proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			p := machine(t, Config{Environ: c.environ, Transparent: 15001, Forward: 15080, Advisory: c.advisory}, map[string]string{"proc/net/tcp": tcpTable, "proc/net/tcp6": tcp6Table})
			finds(t, p.proxies(), c.held, c.says)
		})
	}
	finds(t, machine(t, Config{Transparent: 15001, Forward: 15080}, nil).proxies(), false, "nobody listens on port 15001")
}

// listens calls serve for each connection to a new port of loopback.
func listens(t *testing.T, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return addrOf(ln.Addr())
}

// says answers the first bytes of a connection.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
	}
}

func TestAConnectionThatIsMadeIsNotHeldForThat(t *testing.T) {
	p := machine(t, Config{Transparent: 1, DNS: 2}, nil)
	finds(t, p.tcpOnce(t.Context(), listens(t, says("SSH-2.0-x\r\n"))), false, "the engine is not at its end")
	// Who can make a certificate for a name that does not exist is an engine, and so is who refuses one as it does.
	root := enginetest.NewRoot(t, "doctor")
	finds(t, p.tcpOnce(t.Context(), listens(t, func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			leaf := root.Certificate(t, h.ServerName)
			return &leaf, nil
		}}).Handshake()
	})), true, "which inspects a host that no policy should name")
	finds(t, p.tcpOnce(t.Context(), listens(t, says("\x15\x03\x03\x00\x02\x02\x70"))), true, "which refuses the host")
	finds(t, p.tcpOnce(t.Context(), listens(t, says("\x15\x03\x03\x00\x02\x02\x28"))), false, "is not at its end")
	finds(t, p.tcpOnce(t.Context(), listens(t, func(c net.Conn) {
		leaf := root.Certificate(t, "another.test")
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{leaf}}).Handshake()
	})), false, "is not at its end")
	closed := listens(t, func(net.Conn) {})
	p.Root = "/" // where the kernel says who listens
	finds(t, p.undialled(closed, &net.OpError{Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), false, "nobody listens on the engine's port 1")
}

func TestTheEnginesPortsByHand(t *testing.T) {
	p := machine(t, Config{Patience: 20 * time.Second}, nil)
	p.Root = "/"
	finds(t, p.byHand(t.Context(), listens(t, func(net.Conn) {})), true, "hangs up")
	finds(t, p.byHand(t.Context(), listens(t, says("HTTP/1.1 200 OK\r\n\r\n"))), false, "serves a connection")
	forward := func(serve func(net.Conn)) outcome {
		p.Forward = listens(t, serve).Port()
		return p.forward(t.Context())
	}
	finds(t, forward(says("HTTP/1.1 403 not_in_allowlist\r\nX-Aegrail-Decision: deny\r\nContent-Length: 0\r\n\r\n")), true, "judges what is sent")
	finds(t, forward(says("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")), false, "answers 403 to what no policy allows")
	finds(t, forward(says("HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n")), false, "answers 200 to what no policy allows")
	finds(t, forward(says("220 mail\r\n")), false, "malformed HTTP")
	p.Advisory = true
	finds(t, forward(func(net.Conn) {}), false, "and the proxy variables lead there")
	admin := func(serve func(net.Conn)) outcome {
		p.Admin = listens(t, serve).Port()
		return p.admin(t.Context())
	}
	finds(t, admin(says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")), false, "/metrics answers 200")
	finds(t, admin(says("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")), false, "/metrics answers 404")
	finds(t, admin(says("HTTP/1.1 403 not_in_allowlist\r\nX-Aegrail-Decision: deny\r\nContent-Length: 0\r\n\r\n")), true, "answers on no address")
	finds(t, admin(func(net.Conn) {}), true, "answers on no address")
}

func TestAnAnswerOfDNSIsTheEnginesByWhatItSays(t *testing.T) {
	answers := func(change func(m *dns.Msg, name string)) outcome {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			change(m, strings.TrimSuffix(q.Question[0].Name, "."))
			_ = w.WriteMsg(m)
		})}
		go func() { _ = server.ActivateAndServe() }()
		t.Cleanup(func() { packets.Close() })
		return machine(t, Config{}, nil).ask(t.Context(), "udp", addrOf(packets.LocalAddr()))
	}
	filtered := func(code uint16, text string) func(m *dns.Msg, _ string) {
		return func(m *dns.Msg, _ string) {
			m.Rcode = dns.RcodeNameError
			m.SetEdns0(1232, false)
			opt := m.IsEdns0()
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
		}
	}
	address := func(of func(name string) netip.Addr) func(m *dns.Msg, name string) {
		return func(m *dns.Msg, name string) {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name + ".", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: of(name).AsSlice()})
		}
	}
	finds(t, answers(filtered(dns.ExtendedErrorCodeFiltered, resolver.ReasonName)), true, "the engine answers")
	finds(t, answers(address(resolver.Address4)), true, "the engine answers")
	finds(t, answers(filtered(dns.ExtendedErrorCodeFiltered, "parental control")), false, "NXDOMAIN")
	finds(t, answers(filtered(dns.ExtendedErrorCodeBlocked, resolver.ReasonName)), false, "NXDOMAIN")
	finds(t, answers(func(m *dns.Msg, _ string) { m.Rcode = dns.RcodeNameError }), false, "somebody else than the engine answers")
	finds(t, answers(address(func(string) netip.Addr { return nobody4() })), false, "NOERROR")
	finds(t, machine(t, Config{}, nil).configuredDNS(t.Context()), true, "no resolver is configured")
	finds(t, machine(t, Config{}, map[string]string{"etc/resolv.conf": "nameserver nowhere\n"}).configuredDNS(t.Context()), true, "no resolver is configured")
}

func TestDroppedPacketsAreCounted(t *testing.T) {
	p := machine(t, Config{}, map[string]string{"proc/net/snmp6": "Ip6InReceives  7\nIp6OutDiscards                  \t12\n"})
	if n, err := p.dropped6(); n != 12 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, text := range []string{"Ip6InReceives 7\n", "Ip6OutDiscards many\n"} {
		if _, err := machine(t, Config{}, map[string]string{"proc/net/snmp6": text}).dropped6(); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestAReportSaysWhatToChange(t *testing.T) {
	r := Report{Findings: []Finding{
		{ID: "E1", Check: "TCP", Held: true, Found: "leads to the engine"},
		{ID: "E2", Check: "UDP", Found: "a message has left", Fix: "apply the rules"},
	}, Held: 1, Open: 1}
	want := "held  E1  TCP: leads to the engine\nOPEN  E2  UDP: a message has left\n          change: apply the rules\n1 held, 1 open\n"
	if got := r.Text(); got != want {
		t.Errorf("got\n%s", got)
	}
	if !r.Enforced() {
		t.Error("what TCP cannot get around is enforced")
	}
	r.Findings[0].Held = false
	if r.Enforced() {
		t.Error("what TCP gets around is not enforced")
	}
}

func TestRunNeedsPortsAndProc(t *testing.T) {
	for name, c := range map[string]Config{"no ports": {}, "no DNS": {Transparent: 1}, "no /proc": {Transparent: 1, DNS: 2, Root: t.TempDir()}} {
		if _, err := Run(context.Background(), c); err == nil || !strings.HasPrefix(err.Error(), "doctor: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEachTryHasANameOfItsOwn(t *testing.T) {
	if a, b := unlikely(), unlikely(); a == b || !strings.HasSuffix(a, ".aegrail.invalid") {
		t.Errorf("%s, %s", a, b)
	}
}
