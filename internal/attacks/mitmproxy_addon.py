"""The policy of the run as a mitmproxy addon, and the run's DNS.

Hosts are read from the files hosts-CLASS of the proxy's directory.
"""

import json
import os
import posixpath
import socket

from mitmproxy import http

DIR = os.environ["AEGRAIL_ATTACKS_DIR"]
CLASSES = ("api", "judged", "socket", "inside", "mixed", "rebind", "split", "pinned")
CLASS = {}
for name in CLASSES:
    with open(os.path.join(DIR, "hosts-" + name)) as f:
        for host in f.read().split():
            CLASS[host] = name

system = socket.getaddrinfo


def resolve(host, port, *args, **kwargs):
    """Answers for the run's names, and writes down what was asked for."""
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name.endswith(".test"):
        with open(os.path.join(DIR, "lookups"), "a") as f:
            f.write(name + "\n")
        inside = name.rsplit(".", 2)[-2] in ("inside", "split")
        host = "127.0.0.2" if inside else "127.0.0.1"
    return system(host, port, *args, **kwargs)


socket.getaddrinfo = resolve


def allows(flow):
    r = flow.request
    host = r.pretty_host.lower()
    sni = flow.client_conn.sni
    if r.scheme != "https" or host != r.host.lower() or sni is None or sni.lower() != host:
        return False
    path = r.path.split("?", 1)[0]
    if posixpath.normpath(path) != path:
        return False
    chat = r.method == "POST" and path == "/v1/chat/completions"
    files = r.method == "GET" and path.startswith("/files/")
    kind = CLASS.get(host)
    if kind in ("api", "inside", "mixed", "rebind"):
        return chat or files
    if kind == "socket":
        return r.method == "GET" and path == "/socket"
    if kind == "judged":
        if not chat or len(r.raw_content) > 4096:
            return False
        try:
            return json.loads(r.content)["model"] == "good"
        except Exception:
            return False
    return False


def http_connect(flow: http.HTTPFlow) -> None:
    if flow.request.host.lower() not in CLASS:
        flow.response = http.Response.make(403, b"denied")


def request(flow: http.HTTPFlow) -> None:
    if not allows(flow):
        flow.response = http.Response.make(403, b"denied")
