"""Writes strings.jsonl and stock.jsonl with Python's own json and hashlib.

strings.jsonl: {"bytes": hex, "json": what json.dumps makes of those bytes}
stock.jsonl:   a chain of the kind the aegrail library writes, floats and all

Run it here with python3 vectors.py; the results are kept beside it.
"""

import hashlib
import json

STRINGS = [
    b"", b"plain", b'"\\/', b"\x00\x01\x1f\x7f", b"\b\f\n\r\t\v",
    "é ü 中文".encode(), "\u2028\u2029\ufeff\ufffd\uffff".encode(), "😀\U0010ffff\U00010000".encode(),
    b"\x80", b"\xff\xfe", b"a\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82(", b"\xf0\x9f\x98", b"\xf0\x9f\x98x",
    b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xb2\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80",
    b"\x1b[31mred\x1b[0m", b"line\nbreak\r\n", b"%2e%2e/\xe9t\xe9", bytes(range(256)),
]

PAYLOADS = [
    {"text": "é😀\x7f\u2028\"\\\n", "big": 10**40, "negative": -1, "nested": {"b": [1, {"z": None, "a": True}], "a": []}},
    {"é": 1, "\uffff": 2, "😀": 3, "z": 4, "A": 5, "a": 6, "": 7, "\x7f": 8, "\n": 9},
    {"cost": 0.1, "e": [1.0, 1e-07, 1e16, 1e22, -0.0, 5e-324, 1.7976931348623157e308, 123456.789]},
    {"lone": b"\xff\xc3(".decode("utf-8", "surrogateescape"), "seq": 4},
    {"seq": 5, "id": "00000000000000ff", "phase": "decision"},
]


def dumps(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


with open("strings.jsonl", "w") as out:
    for raw in STRINGS:
        print(dumps({"bytes": raw.hex(), "json": dumps(raw.decode("utf-8", "surrogateescape"))}), file=out)

with open("stock.jsonl", "w") as out:
    prev = None
    for n, payload in enumerate(PAYLOADS):
        record = {
            "ts": f"2026-05-15T09:42:1{n}.123Z", "session_id": "sess_test_1", "agent_identity": "bot/v1",
            "invoking_user": "ülrich" if n else None, "principal": "bot/v1@sess_test_1", "event": "llm_call",
            "payload": payload, "budget": {"usd": 1.0, "usd_used": 1e-07, "tokens": 1e16, "calls": n}, "prev_hash": prev,
        }
        prev = hashlib.sha256(dumps(record).encode()).hexdigest()
        record["event_hash"] = prev
        print(dumps(record), file=out)
