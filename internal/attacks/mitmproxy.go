package main

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed mitmproxy_addon.py
var mitmproxyAddon []byte

func findMitmproxy(ctx context.Context, wanted func(string) bool) (proxy, error) {
	if !wanted("mitmproxy") {
		return proxy{}, errNotWanted
	}
	path, version, err := debian(ctx, "mitmdump", "mitmproxy", "--version")
	if err != nil {
		return proxy{}, err
	}
	return proxy{
		name: "mitmproxy", version: version, how: "an addon (mitmproxy_addon.py); rawtcp off, lazy connections",
		lacks: needGuard | needRuleGuard,
		command: func(l *lab, dir, addr string) (*exec.Cmd, error) {
			if err := l.hostsFiles(dir); err != nil {
				return nil, err
			}
			pair, err := os.ReadFile(filepath.Join(l.dir, caPairFile))
			if err != nil {
				return nil, err
			}
			addon := filepath.Join(dir, "addon.py")
			for name, data := range map[string][]byte{addon: mitmproxyAddon, filepath.Join(dir, "mitmproxy-ca.pem"): pair} {
				if err := os.WriteFile(name, data, 0o600); err != nil {
					return nil, err
				}
			}
			cmd := exec.Command(path, "-q", "--listen-host", hostOf(addr), "--listen-port", portOf(addr), "--set", "confdir="+dir, "-s", addon,
				"--set", "ssl_verify_upstream_trusted_ca="+filepath.Join(l.dir, rootFile), "--set", "rawtcp=false", "--set", "connection_strategy=lazy",
				"--ignore-hosts", `\.pinned\.test`)
			cmd.Env = append(os.Environ(), "AEGRAIL_ATTACKS_DIR="+dir)
			return cmd, nil
		},
	}, nil
}
