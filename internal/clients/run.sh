#!/usr/bin/env bash
# Installs real clients and servers, then runs them through the engine that is
# built from this tree. doc.go says what the suite does.
#
#   internal/clients/run.sh                     everything
#   internal/clients/run.sh -run TestCurl -v    what go test takes
#
# Debian packages are installed with apt (root or sudo) where they are missing;
# Debian 12 fixes their versions but for security updates, which a pin would
# turn into a broken build. npm packages are pinned by package-lock.json and
# live in a cache outside the tree. nginx is only unpacked there: installing it
# would start a server on this machine.
set -euo pipefail
cd "$(dirname "$0")"

cache=${AEGRAIL_CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aegrail-engine/clients}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
updated=

# root runs a command as root.
root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# lists brings the package lists up to date, once.
lists() {
	[ -n "$updated" ] || root apt-get update -qq
	updated=yes
}

# debian installs those of the packages that are missing.
debian() {
	local missing=() p
	for p in "$@"; do
		dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
	done
	[ "${#missing[@]}" -gt 0 ] || return 0
	lists
	root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# unpacked fetches a package into the cache without installing it.
unpacked() {
	local package=$1 program=$2
	[ ! -x "$cache/$package/$program" ] || return 0
	lists
	rm -rf "$cache/$package.new"
	mkdir -p "$cache/$package.new"
	(cd "$cache/$package.new" && apt-get download -qq "$package" && dpkg -x ./*.deb . && rm ./*.deb)
	rm -rf "${cache:?}/$package"
	mv "$cache/$package.new" "$cache/$package"
}

# npm_packages installs what package-lock.json says, when it has changed.
npm_packages() {
	local want
	want=$(cat testdata/node/package.json testdata/node/package-lock.json | sha256sum | cut -d' ' -f1)
	[ "$(cat "$cache/node/installed" 2>/dev/null)" != "$want" ] || return 0
	rm -rf "$cache/node"
	mkdir -p "$cache/node"
	cp testdata/node/package.json testdata/node/package-lock.json "$cache/node/"
	(cd "$cache/node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
	echo "$want" >"$cache/node/installed"
}

debian ca-certificates curl git nghttp2-client openjdk-17-jdk-headless python3 python3-h2 python3-httpx python3-requests \
	libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g # the last line is what nginx needs
unpacked nginx usr/sbin/nginx
command -v npm >/dev/null || debian npm
npm_packages

# versions says what the suite is about to prove something for.
versions() {
	curl --version | head -n1
	git version
	/usr/bin/python3 -c 'import requests, httpx, h2; print("requests", requests.__version__, "httpx", httpx.__version__, "h2", h2.__version__)'
	echo "node $("$cache"/node/node_modules/node-linux-*/bin/node --version)"
	sed -n 's/^    "\(.*\)": "\(.*\)",\{0,1\}$/\1 \2/p' testdata/node/package.json
	java -version 2>&1 | head -n1
	h2load --version
	"$cache/nginx/usr/sbin/nginx" -v 2>&1
}
versions

export AEGRAIL_CLIENTS_CACHE=$cache
exec "${GO:-go}" test -count=1 -timeout 15m "$@" ./...
