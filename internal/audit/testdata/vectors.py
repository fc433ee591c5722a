"""Writes the vectors beside it with Python's own json and hashlib.

strings.jsonl:   {"bytes": hex, "json": what json.dumps makes of those bytes}
stock.jsonl:     a chain in canonical spelling, floats and all
spellings.jsonl: {"text": JSON of any spelling, "json": what json.dumps makes of what json.loads reads in it}

Run it here with python3 vectors.py; the results are kept beside it.
"""

import hashlib
import json
import random
import struct

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
    # Beyond the BMP a sort by UTF-16 unit would put the last key of these first.
    {"seq": 6, "\ufb01": 1, "\U00010000": 2, "\U0010ffff": 3, "\ud800": 4, "\ue000": 5, "\udfff": 6, "\ud7ff": 7},
    {"seq": 7, "big": [2**63 - 1, 2**63, 2**64 - 1, 2**64, -2**63 - 1, 10**400], "empty": [{}, [], "", {"": {}}, [[]]]},
    {"seq": 8, "controls": "".join(map(chr, range(0x20))) + "\x7f\x80\x9f\xad", "html": "<&>'/\u2028\u2029"},
]

BUDGET = {"usd": 1.0, "usd_used": 1e-07, "tokens": 1e16, "nested": {"b": {"wall": 0.25, "a": [1e-05, 0.0001]}, "a": {}}}

# What pydantic, JavaScript, Go and people write, and repr does not.
NUMBERS = [
    "0", "-0", "-0.0", "0.0", "0e0", "-0e-5", "1.0", "1.00", "1e0", "1E0", "1e+0", "1e-7", "1E-07", "0.0000001", "1e-5", "0.00001",
    "0.0001", "1e-4", "0.00010", "1e15", "1e16", "1e+16", "10000000000000000.0", "10000000000000000", "9999999999999998.0",
    "99999999999999999.0", "123456789012345680.0", "1e22", "1e23", "1.0e22", "9007199254740993.0", "9007199254740992.5",
    "5e-324", "4.9406564584124654e-324", "2e-324", "3e-324", "2.2250738585072011e-308", "2.2250738585072014e-308",
    "1.7976931348623157e308", "1.7976931348623158e308", "0.1", "0.10", "0.30000000000000004", "0.3000000000000000444", "123456.789",
    "1e-400", "1" + "0" * 400, "-" + "9" * 400, "100e-2", "0.1e1", "12345678901234567e-17", "1" + "0" * 300 + ".5", "4.35", "0.5e-5",
]

TEXTS = [
    '"\\u00e9\\u00E9é\\/\\u0041\\u007F\x7f"', '"\\ud83d\\ude00\\uD83D\\uDE00😀"', '"\\uD800x\\uDFFF\\udcff"', '"\\u000a\\u000A\\n\\u0000\\u001F"',
    '"\\u0022\\u005c\\u002f\\u0008\\u000c"', ' [ 1 , 2 ,\t[ ] , { } ] ', '{"b" : 1 , "a" : { "d":2,"c":3 } }', '{"😀":1,"\\uffff":2,"\\u00e9":3,"f":4}',
    '{"\\u0061b":1,"aa":2,"a":3,"":4}', '{"\\ud800":1,"\ue000":2,"\U0010ffff":3,"\ud7ff":4,"\\udfff":5}', "[true,false,null,-1,-1.5E+3]",
    '{"a\\u0000":1,"a":2,"a\\t":3,"a ":4,"a\\"":5,"a\\\\":6,"a/":7,"a\x7f":8}', '"' + "\u2028\u2029\ufeff\ufffe\uffff" + '"',
]


def dumps(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def doubles(count):
    """Spellings of doubles of any bits, as repr and with up to 25 digits."""
    rng = random.Random(1)
    for _ in range(count):
        value = struct.unpack("<d", rng.randbytes(8))[0]
        if value == value and abs(value) != float("inf"):
            yield rng.choice([repr(value), f"{value:.{rng.randint(0, 24)}e}", f"{value:.17g}"])


with open("strings.jsonl", "w") as out:
    for raw in STRINGS:
        print(dumps({"bytes": raw.hex(), "json": dumps(raw.decode("utf-8", "surrogateescape"))}), file=out)

with open("stock.jsonl", "w") as out:
    prev = None
    for n, payload in enumerate(PAYLOADS):
        record = {
            "ts": f"2026-05-15T09:42:1{n}.123Z", "session_id": "sess_test_1", "agent_identity": "bot/v1",
            "invoking_user": "ülrich" if n else None, "principal": "bot/v1@sess_test_1", "event": "llm_call",
            "payload": payload, "budget": BUDGET | {"calls": n}, "prev_hash": prev,
        }
        prev = hashlib.sha256(dumps(record).encode()).hexdigest()
        record["event_hash"] = prev
        print(dumps(record), file=out)

with open("spellings.jsonl", "w") as out:
    for text in NUMBERS + list(doubles(150)) + TEXTS:
        print(dumps({"text": text, "json": dumps(json.loads(text))}), file=out)
