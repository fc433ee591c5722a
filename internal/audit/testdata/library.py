"""Writes library.jsonl as the aegrail library writes a file.

The library's record is a pydantic model. It hashes json.dumps of the model, and
writes model_dump_json(), which has the members in the order of the model, UTF-8
where json.dumps has escapes, and floats without padding in the exponent.

Run it here with python3 library.py, which needs pydantic (2.13.4 wrote the file
that is kept beside it).
"""

import hashlib
import json
from typing import Any, Optional

from pydantic import BaseModel


class Record(BaseModel):
    ts: str
    session_id: str
    agent_identity: str
    invoking_user: Optional[str]
    principal: str
    event: str
    payload: dict[str, Any]
    budget: dict[str, Any]
    prev_hash: Optional[str]
    event_hash: Optional[str]


EVENTS = [
    ("session_start", {"task": "größe\u2028\x7f<&>/"}, {"usd_used": 0.0, "tokens_used": 0, "wall_elapsed": 0.0}),
    ("llm_call", {"model": "m", "cost_usd": 1e-06, "latency_ms": None, "note": "😀\"\\\n\t\x00"}, {"usd_used": 1e-06, "tokens_used": 2**70, "wall_elapsed": 12.5}),
    ("tool_call", {"tool": "t", "args": {"é": 1, "\uffff": 2, "😀": 3, "z": [1e-07, 1e16, -0.0, 1.5e300, 5e-324], "A": {}}, "ok": True}, {"usd_used": 1e-05, "tokens_used": 7, "wall_elapsed": 1e20}),
    ("session_end", {"reason": "normal"}, {}),
]

with open("library.jsonl", "w", encoding="utf-8") as out:
    prev = None
    for n, (event, payload, budget) in enumerate(EVENTS):
        record = Record(
            ts=f"2026-05-15T09:42:1{n}.123Z", session_id="sess_test_2", agent_identity="bot/v1", invoking_user=[None, "ülrich"][n % 2],
            principal="bot/v1@sess_test_2", event=event, payload=payload, budget=budget, prev_hash=prev, event_hash=None)
        body = record.model_dump(exclude={"event_hash"})
        prev = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        print(record.model_copy(update={"event_hash": prev}).model_dump_json(), file=out)
