"""httpx as an agent uses it, first with HTTP/1.1 and then with HTTP/2."""
import sys

import httpx

from report import BODY, BODY_SHA256, pieces, scenario

HTTPS, HTTP = "https://models.test", "http://models.test"
version = sys.argv[1]
client = httpx.Client(http1=version == "1", http2=version == "2", timeout=30)


def get(url):
    r = client.get(url)
    r.raise_for_status()
    return [r.text, r.http_version]


def uploaded(r):
    r.raise_for_status()
    got = r.json()
    return [got["bytes"], got["sha256"] == BODY_SHA256, got["length"]]


def stream():
    events = []
    with client.stream("GET", HTTPS + "/events/httpx" + version) as r:
        r.raise_for_status()
        for line in r.iter_lines():
            if not line.startswith("data: "):
                continue
            if not events:
                httpx.post(HTTPS + "/release/httpx" + version).raise_for_status()
            events.append(line[6:].strip())
    return events


def denied(url, body=b"secret"):
    r = client.post(url, content=body)
    return [r.status_code, r.headers["Content-Type"], r.headers["X-Aegrail-Reason"], r.json()["reason"], r.json()["detail"]]


def raised(url):
    client.get(url).raise_for_status()


scenario("get", lambda: get(HTTPS + "/hello"))
scenario("keep-alive", lambda: [get(HTTPS + "/hello") for _ in range(3)][-1])
if version == "1":
    scenario("plain http", lambda: get(HTTP + "/hello"))
scenario("gzip", lambda: len(get(HTTPS + "/gzip")[0]))
scenario("upload", lambda: uploaded(client.post(HTTPS + "/echo", content=BODY)))
scenario("upload of unknown length", lambda: uploaded(client.post(HTTPS + "/echo", content=pieces())))
scenario("stream", stream)
scenario("denied path", lambda: denied(HTTPS + "/secret"))
scenario("denied upload", lambda: denied(HTTPS + "/secret", BODY))
scenario("after a denial", lambda: get(HTTPS + "/hello"))
scenario("denied path, raised", lambda: raised(HTTPS + "/secret"))
scenario("denied host", lambda: raised("https://exfil.test/"))
