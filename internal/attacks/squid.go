package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// squidText is the policy as Squid's acls have it.
const squidText = `http_port %[1]s ssl-bump tls-cert=%[2]s/ca-pair.pem generate-host-certificates=on dynamic_cert_mem_cache_size=16MB
sslcrtd_program /usr/lib/squid/security_file_certgen -s %[3]s/ssl_db -M 16MB
sslcrtd_children 4 startup=2
tls_outgoing_options cafile=%[2]s/origin-root.pem
hosts_file %[3]s/names
pid_filename %[3]s/squid.pid
access_log none
cache_log %[3]s/cache.log
coredump_dir %[3]s
cache deny all
cache_mem 8 MB
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
host_verify_strict on
acl step1 at_step SslBump1
acl sni_pinned ssl::server_name "%[3]s/hosts-pinned"
ssl_bump peek step1
ssl_bump splice sni_pinned
ssl_bump bump all
acl CONNECT method CONNECT
acl secure proto HTTPS
acl upstream port %[4]d
acl api dstdomain "%[3]s/hosts-api" "%[3]s/hosts-inside" "%[3]s/hosts-mixed" "%[3]s/hosts-rebind"
acl socket dstdomain "%[3]s/hosts-socket"
acl pinned dstdomain "%[3]s/hosts-pinned"
acl inside dst 127.0.0.2/32
acl post method POST
acl get method GET
acl chat urlpath_regex ^/v1/chat/completions(\?.*)?$
acl files urlpath_regex ^/files/
acl dots urlpath_regex \.\.
acl web urlpath_regex ^/socket$
http_upgrade_request_protocols websocket allow socket
http_access deny !upstream
http_access deny dots
http_access deny api inside
http_access allow CONNECT api
http_access allow CONNECT socket
http_access allow CONNECT pinned
http_access allow secure api post chat
http_access allow secure api get files
http_access allow secure socket get web
http_access deny all
`

func findSquid(ctx context.Context, wanted func(string) bool) (proxy, error) {
	if !wanted("Squid") {
		return proxy{}, errNotWanted
	}
	path, version, err := debian(ctx, "squid", "squid-openssl", "-v")
	if err != nil {
		return proxy{}, err
	}
	return proxy{
		name: "Squid", version: version, how: "acls by host, method and path; ssl_bump peek, then bump; host_verify_strict",
		lacks: needHTTP2 | needBody | needRuleGuard | needWatch,
		command: func(l *lab, dir, addr string) (*exec.Cmd, error) {
			if err := l.hostsFiles(dir); err != nil {
				return nil, err
			}
			if err := l.namesFile(dir); err != nil {
				return nil, err
			}
			// Squid refuses to start its helper in a directory that is not its own.
			create := exec.CommandContext(ctx, "/usr/lib/squid/security_file_certgen", "-c", "-s", filepath.Join(dir, "ssl_db"), "-M", "16MB")
			if out, err := create.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("making Squid's certificate store: %w: %s", err, strings.TrimSpace(string(out)))
			}
			if out, err := exec.CommandContext(ctx, "chmod", "-R", "a+rwX", filepath.Join(dir, "ssl_db")).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("opening Squid's certificate store: %w: %s", err, out)
			}
			conf := filepath.Join(dir, "squid.conf")
			return exec.Command(path, "-N", "-f", conf), os.WriteFile(conf, fmt.Appendf(nil, squidText, addr, l.dir, dir, l.up.port), 0o644)
		},
	}, nil
}

// namesFile writes the run's DNS as /etc/hosts is written.
func (l *lab) namesFile(dir string) error {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, c := range classes() {
		data, err := os.ReadFile(filepath.Join(dir, "hosts-"+string(c)))
		if err != nil {
			return err
		}
		for name := range strings.FieldsSeq(string(data)) {
			for _, a := range addresses(name, 0) {
				fmt.Fprintf(&b, "%s %s\n", a, name)
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, "names"), []byte(b.String()), 0o644)
}
