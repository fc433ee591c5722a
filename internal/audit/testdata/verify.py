"""A verifier of the engine's logs from the format's description alone.

Usage: python3 verify.py FILE…   Prints "ok N HEAD" or the first bad line.

It checks what needs no key: form, hashes, chain, seq, the Merkle roots in
checkpoints and the frontiers of segments, and not the checkpoints' signatures,
since Python's standard library has no Ed25519.
"""

import base64
import hashlib
import json
import re
import sys

KEYS = {"ts", "session_id", "agent_identity", "invoking_user", "principal",
        "event", "payload", "budget", "prev_hash", "event_hash"}


def sha256(*parts):
    return hashlib.sha256(b"".join(parts))


class Tree:
    """RFC 6962's tree, as the complete subtrees that it is made of."""

    def __init__(self):
        self.parts = []  # (leaves, hash), the largest first

    def append(self, data):
        self.parts.append((1, sha256(b"\0", data).digest()))
        while len(self.parts) > 1 and self.parts[-1][0] == self.parts[-2][0]:
            (size, right), (_, left) = self.parts.pop(), self.parts.pop()
            self.parts.append((2 * size, sha256(b"\1", left, right).digest()))

    def size(self):
        return sum(size for size, _ in self.parts)

    def root(self):
        if not self.parts:
            return sha256().digest()
        root = self.parts[-1][1]
        for _, left in reversed(self.parts[:-1]):
            root = sha256(b"\1", left, root).digest()
        return root

    def frontier(self):
        return [part.hex() for _, part in self.parts]

    def restore(self, size, hashes):
        powers = [1 << i for i in reversed(range(size.bit_length())) if size >> i & 1]
        assert len(powers) == len(hashes), "frontier"
        self.parts = [(n, bytes.fromhex(h)) for n, h in zip(powers, hashes)]


def once(members):
    """An object, unless a key stands in it twice."""
    out = dict(members)
    assert len(out) == len(members), "a key occurs twice"
    return out


def refuse(name):
    raise AssertionError(name + " is not JSON")


class Chain:
    def __init__(self):
        self.prev, self.count, self.tree = None, 0, Tree()

    def line(self, text):
        record = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
        assert set(record) == KEYS, "keys"
        payload = record["payload"]
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
        assert canonical == text or "seq" not in payload, "form"
        want = record.pop("event_hash")
        body = json.dumps(record, sort_keys=True, separators=(",", ":"))
        assert sha256(body.encode()).hexdigest() == want, "hash"
        ours = payload if "seq" in payload else {}
        if self.count == 0 and ours.get("reason") == "segment":
            self.tree.restore(payload["seq"] - 1, payload["frontier"])
        else:
            assert record["prev_hash"] == self.prev, "chain"
        assert ours.get("seq", self.tree.size() + 1) == self.tree.size() + 1, "seq"
        assert ours.get("frontier", self.tree.frontier()) == self.tree.frontier(), "frontier"
        if "checkpoint" in ours:
            _, size, root, *_ = ours["checkpoint"].split("\n")
            assert int(size) == self.tree.size() and base64.b64decode(root) == self.tree.root(), "checkpoint"
        assert record["principal"] == record["agent_identity"] + "@" + record["session_id"], "principal"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["ts"]), "ts"
        self.prev, self.count = want, self.count + 1
        self.tree.append(bytes.fromhex(want))
        return payload


def main(files):
    chain = Chain()
    for name in files:
        with open(name, "rb") as f:
            for number, line in enumerate(f, 1):
                try:
                    assert line.endswith(b"\n"), "torn"
                    payload = chain.line(line[:-1].decode("utf-8"))
                except AssertionError as wrong:
                    sys.exit(f"{name}: line {number}: {wrong}")
                if len(files) == 1 and "path" in payload:
                    print(payload["path"].encode("utf-8", "surrogateescape").hex())
    print("ok", chain.count, chain.prev)


main(sys.argv[1:])
