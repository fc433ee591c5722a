"""requests as an agent uses it: proxy and trust from the environment alone."""
import requests

from report import BODY, BODY_SHA256, pieces, scenario

HTTPS, HTTP = "https://models.test", "http://models.test"
session = requests.Session()


def get(url):
    r = session.get(url)
    r.raise_for_status()
    return r.text


def uploaded(r):
    r.raise_for_status()
    got = r.json()
    return [got["bytes"], got["sha256"] == BODY_SHA256, got["length"]]


def stream():
    events = []
    with session.get(HTTPS + "/events/requests", stream=True) as r:
        r.raise_for_status()
        for line in r.iter_lines(chunk_size=1):
            if not line.startswith(b"data: "):
                continue
            if not events:
                requests.post(HTTPS + "/release/requests").raise_for_status()
            events.append(line[6:].decode())
    return events


def denied(url, body=b"secret"):
    r = session.post(url, data=body)
    if r.status_code < 400 or "json" not in r.headers["Content-Type"]:
        return [r.status_code, r.text]
    return [r.status_code, r.headers["Content-Type"], r.headers["X-Aegrail-Reason"], r.json()["reason"], r.json().get("detail")]


def raised(url):
    session.get(url).raise_for_status()


scenario("get", lambda: get(HTTPS + "/hello"))
scenario("keep-alive", lambda: [get(HTTPS + "/hello") for _ in range(3)][-1])
scenario("plain http", lambda: get(HTTP + "/hello"))
scenario("gzip", lambda: len(get(HTTPS + "/gzip")))
scenario("head", lambda: session.head(HTTPS + "/file").headers["Content-Length"])
scenario("204", lambda: session.get(HTTPS + "/empty").status_code)
scenario("upload", lambda: uploaded(session.post(HTTPS + "/echo", data=BODY)))
scenario("chunked upload", lambda: uploaded(session.post(HTTPS + "/echo", data=pieces())))
scenario("stream", stream)
scenario("denied path", lambda: denied(HTTPS + "/secret"))
scenario("denied upload", lambda: denied(HTTPS + "/secret", BODY))
scenario("after a denial", lambda: get(HTTPS + "/hello"))
scenario("denied path, raised", lambda: raised(HTTPS + "/secret"))
scenario("denied host", lambda: raised("https://exfil.test/"))
scenario("denied host, plain http", lambda: denied("http://exfil.test/"))
