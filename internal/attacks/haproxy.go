package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// haproxyText is the policy as HAProxy's ACLs have it. The comparison of SNI and
// Host is the one that its manual gives against domain fronting.
const haproxyText = `global
  log stdout format raw local0
  nbthread 2
  maxconn 8192
defaults
  mode http
  log global
  option httplog
  option http-buffer-request
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  timeout http-request 10s
frontend in
  bind %[1]s ssl crt %[2]s/boot.pem generate-certificates ca-sign-file %[2]s/ca-pair.pem alpn h2,http/1.1
  http-request set-var(txn.host) req.hdr(host),field(1,:),lower
  http-request deny unless { ssl_fc_sni,lower,strcmp(txn.host) eq 0 }
  http-request deny unless { req.hdr_cnt(host) eq 1 }
  http-request deny if { path,url_dec -m sub .. }
  acl api var(txn.host) -m str -f %[3]s/hosts-api
  acl judged var(txn.host) -m str -f %[3]s/hosts-judged
  acl socket var(txn.host) -m str -f %[3]s/hosts-socket
  acl post method POST
  acl get method GET
  acl chat path /v1/chat/completions
  acl files path_beg /files/
  acl small req.body_size le 4096
  acl good req.body,json_query('$.model') -m str good
  http-request allow if api post chat
  http-request allow if api get files
  http-request allow if judged post chat small good
  http-request allow if socket get { path /socket }
  http-request deny
  default_backend out
backend out
  server upstream 127.0.0.1:%[4]d ssl verify required ca-file %[2]s/origin-root.pem sni var(txn.host) alpn http/1.1
`

func findHAProxy(ctx context.Context, wanted func(string) bool) (proxy, error) {
	if !wanted("HAProxy") {
		return proxy{}, errNotWanted
	}
	path, version, err := debian(ctx, "haproxy", "haproxy", "-v")
	if err != nil {
		return proxy{}, err
	}
	return proxy{
		name: "HAProxy", version: version, how: "ACLs by SNI, Host, method and path",
		lacks: needConnect | needLookup | needGuard | needPin | needRuleGuard | needPort | needWatch,
		command: func(l *lab, dir, addr string) (*exec.Cmd, error) {
			conf := filepath.Join(dir, "haproxy.cfg")
			if err := l.hostsFiles(dir); err != nil {
				return nil, err
			}
			text := fmt.Appendf(nil, haproxyText, addr, l.dir, dir, l.up.port)
			return exec.Command(path, "-db", "-f", conf), os.WriteFile(conf, text, 0o600)
		},
	}, nil
}
