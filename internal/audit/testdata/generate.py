"""Prints a chain of random records, the same ones for the same seed.

Usage: python3 generate.py SEED COUNT SPELLING

SPELLING is canonical (json.dumps as it is hashed), library (the members in the
library's order, UTF-8, no spaces) or any (any order, any escapes, any spaces,
any spelling of a float). The last line on standard error is the head's hash.
"""

import hashlib
import json
import random
import struct
import sys

CHARACTERS = ["a", "Z", "0", " ", '"', "\\", "/", "<", "\b", "\t", "\n", "\x00", "\x1f", "\x7f", "\x80", "é", "ß", "\u07ff", "\u0800", "\u2028", "中",
              "\ud7ff", "\ue000", "\ufb01", "\ufeff", "\ufffd", "\uffff", "\U00010000", "😀", "\U0010ffff"]
SURROGATES = ["\ud800", "\udbff", "\udc00", "\udc80", "\udcff", "\udfff"]
FLOATS = [0.0, -0.0, 1.0, 0.1, 1e-07, 1e-05, 0.0001, 1e15, 9999999999999998.0, 1e16, 1e22, 1e23, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]


class Generator:
    def __init__(self, seed, spelling):
        self.rng = random.Random(seed)
        self.spelling = spelling
        # model_dump_json does not write lone surrogates at all.
        self.characters = CHARACTERS + (SURROGATES if spelling != "library" else [])

    def text(self, most):
        out = ""
        for _ in range(self.rng.randint(0, most)):
            c = self.rng.choice(self.characters) if self.rng.random() < 0.8 else chr(self.rng.randint(0xE000, 0x10FFFF))
            if not ("\udc00" <= c <= "\udfff" and out and "\ud800" <= out[-1] <= "\udbff"):
                out += c  # the two together would be read as one character
        return out

    def number(self):
        kind = self.rng.randrange(6)
        if kind == 0:
            return self.rng.randint(-(10**60), 10**60)
        if kind == 1:
            return self.rng.choice([0, -1, 2**53, 2**63, -(2**63) - 1, 2**64, 10**19])
        if kind == 2:
            return self.rng.choice(FLOATS)
        if kind == 3:
            return round(self.rng.uniform(0, 1000), 6)
        value = struct.unpack("<d", self.rng.randbytes(8))[0]
        return value if value - value == 0 else 0.5

    def value(self, depth):
        kind = self.rng.randrange(8 if depth < 6 else 5)
        if kind == 0:
            return self.rng.choice([None, True, False])
        if kind < 3:
            return self.number()
        if kind < 5:
            return self.text(12)
        if kind == 5:
            return [self.value(depth + 1) for _ in range(self.rng.randrange(4))]
        return self.members(depth)

    def members(self, depth):
        return {self.text(6): self.value(depth + 1) for _ in range(self.rng.randrange(5))}

    def record(self, n, prev):
        identity = "".join(c for c in self.text(10) if not "\ud800" <= c <= "\udfff")
        payload = self.members(1)
        payload.pop("seq", None)
        if self.spelling == "canonical":
            payload["seq"] = n + 1
        record = {
            "ts": f"2026-05-15T09:42:11.{n % 1000:03}Z", "session_id": "sess_test_1", "agent_identity": identity,
            "invoking_user": self.rng.choice([None, identity]), "principal": identity + "@sess_test_1", "event": "tool_call",
            "payload": payload, "budget": self.members(1), "prev_hash": prev,
        }
        record["event_hash"] = hashlib.sha256(canonical(record).encode()).hexdigest()
        return record

    def spell(self, value):
        if self.spelling == "canonical":
            return canonical(value)
        if self.spelling == "library":
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if isinstance(value, dict):
            members = list(value.items())
            self.rng.shuffle(members)
            return "{" + self.gap() + ",".join(self.spell(k) + self.gap() + ":" + self.gap() + self.spell(v) + self.gap() for k, v in members) + "}"
        if isinstance(value, list):
            return "[" + self.gap() + ",".join(self.gap() + self.spell(v) + self.gap() for v in value) + "]"
        if isinstance(value, str):
            return '"' + "".join(self.character(c) for c in value) + '"'
        if isinstance(value, float):
            return self.rng.choice([repr(value), f"{value:.16E}", f"{value:.20e}"])
        return json.dumps(value)

    def gap(self):
        return self.rng.choice(["", "", "", " ", "\t ", "\r"])

    def character(self, c):
        units = c.encode("utf-16-be", "surrogatepass")
        escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
        choice = [escaped, escaped.upper().replace("\\U", "\\u"), json.dumps(c)[1:-1]]
        if c >= " " and c not in '"\\' and not "\ud800" <= c <= "\udfff":
            choice.append(c)
        return self.rng.choice(choice)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def main(seed, count, spelling):
    generator, prev = Generator(int(seed), spelling), None
    out = open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", closefd=False)
    for n in range(int(count)):
        record = generator.record(n, prev)
        prev = record["event_hash"]
        line = generator.spell(record)
        assert canonical(json.loads(line)) == canonical(record), line
        print(line, file=out)
    out.close()
    print(prev, file=sys.stderr)


main(*sys.argv[1:])
