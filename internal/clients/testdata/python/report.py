"""What the Python clients share: a line of JSON for each scenario."""
import hashlib
import json
import traceback

BODY = bytes(range(256)) * (5 * 4096)  # 5 MiB
BODY_SHA256 = hashlib.sha256(BODY).hexdigest()


def scenario(name, run):
    """Runs a scenario and prints [name, what came of it]; an exception as its own words."""
    try:
        came = run()
    except Exception as e:  # what a user would read at the end of a traceback
        came = "".join(traceback.format_exception_only(type(e), e)).strip()
    print(json.dumps([name, came]), flush=True)


def pieces(n=64 << 10):
    """BODY in pieces, for an upload whose length is not known before."""
    for i in range(0, len(BODY), n):
        yield BODY[i : i + n]
