"""A verifier of the engine's logs from the format's description alone.

Usage: python3 verify.py FILE…   Prints "ok N HEAD" or the first bad line.
"""

import hashlib
import json
import re
import sys

KEYS = {"ts", "session_id", "agent_identity", "invoking_user", "principal",
        "event", "payload", "budget", "prev_hash", "event_hash"}


def main(files):
    prev, count, seq = None, 0, None
    for name in files:
        with open(name, "rb") as f:
            for line in f:
                count += 1
                assert line.endswith(b"\n"), f"{name}: line {count}: torn"
                text = line[:-1].decode("ascii")
                record = json.loads(text, parse_float=float)
                assert set(record) == KEYS, f"{name}: line {count}: keys"
                canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
                assert canonical == text, f"{name}: line {count}: form"
                want = record.pop("event_hash")
                body = json.dumps(record, sort_keys=True, separators=(",", ":"))
                assert hashlib.sha256(body.encode()).hexdigest() == want, f"{name}: line {count}: hash"
                assert record["prev_hash"] == prev, f"{name}: line {count}: chain"
                prev = want
                number = record["payload"].get("seq")
                if number is not None:
                    assert seq is None or number == seq + 1, f"{name}: line {count}: seq"
                    seq = number
                assert record["principal"] == record["agent_identity"] + "@" + record["session_id"]
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["ts"])
                if len(sys.argv) == 2 and "path" in record["payload"]:
                    print(record["payload"]["path"].encode("utf-8", "surrogateescape").hex())
    print("ok", count, prev)


main(sys.argv[1:])
