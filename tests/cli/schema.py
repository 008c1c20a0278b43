"""What each command's --json prints: every key and the type of its value. A change here is a change for users."""

from __future__ import annotations

from typing import Any

NONE = type(None)
NUMBER = (int, float)

LS = {
    "vault": str,
    "exists": bool,
    "token": (int, NONE),
    "finished": (int, NONE),
    "damage": [str],
    "checkpoints": [
        {
            "step": int,
            "time": str,
            "bytes": int,
            "files": int,
            "state": str,
            "token": int,
            "number": int,
            "folder": str,
            "metrics": {...: NUMBER},
        }
    ],
}
VERIFY = {
    "vault": str,
    "ok": bool,
    "checkpoints": [{"step": int, "state": str, "ok": bool, "bytes": int, "files": int, "problems": [str]}],
}
SHOW = {
    "vault": str,
    "step": int,
    "state": str,
    "number": int,
    "token": int,
    "save": int,
    "time": str,
    "folder": str,
    "bytes": int,
    "world_size": int,
    "resumed_from": (int, NONE),
    "resumed_from_step": (int, NONE),
    "encryption": (str, NONE),
    "trackers": {...: {...: str}},
    "forked_from": (str, NONE),
    "best_step": (int, NONE),
    "parameters": {"tensors": int, "numbers": int, "dtypes": [str]},
    "versions": {...: str},
    "manifest": str,
    "files": [{"path": str, "size": int, "digest": str}],
}
ARCHIVE = {"vault": str, "name": str, "undone": bool, "archived": [int], "next_start_at": int}
WHY = {
    "vault": str,
    "step": int,
    "number": int,
    "resumes": bool,
    "verdict": str,
    "reason": str,
    "walk": [{"number": int, "time": str, "text": str}],
    "problems": [str],
    "instead": (int, NONE),
    "finished": (int, NONE),
    "damage": [str],
}
_SIDE = {
    "vault": str,
    "step": int,
    "number": int,
    "token": int,
    "time": str,
    "bytes": int,
    "world_size": int,
    "epoch": (int, float, NONE),
    "loss": (int, float, NONE),
    "loss_step": (int, NONE),
}
DIFF = {
    "first": _SIDE,
    "second": _SIDE,
    "same_vault": bool,
    "losses_shared": int,
    "losses_part_at": (int, NONE),
    "settings": {...: [object]},
    "versions": {...: [(str, NONE)]},
    "files": [{"path": str, "change": str, "bytes": [(int, NONE)]}],
    "files_same": int,
}
PULL = {
    "vault": str,
    "step": int,
    "number": int,
    "folder": str,
    "bytes": int,
    "files": int,
    "fetched": int,
}
COPY = {
    "source": str,
    "target": str,
    "vault_id": str,
    "steps": [int],
    "bytes": int,
    "copied": int,
    "entries": int,
}
PIN = {"vault": str, "step": int, "number": int, "pinned": bool, "changed": bool}
PRUNE = {
    "vault": str,
    "policy": {"keep_last": (int, NONE), "keep_every": (int, NONE), "keep_best": bool},
    "checkpoints": [{"step": int, "number": int, "bytes": int, "keep": bool, "reason": str}],
    "would_free": int,
    "leftovers": [{"folder": str, "bytes": int, "objects": int, "age_seconds": NUMBER, "fate": str}],
}

STATUS = {
    "vault": (str, NONE),
    "state": str,
    "reason": str,
    "step": (int, NONE),
    "max_steps": (int, NONE),
    "steps_per_second": (int, float, NONE),
    "seconds_left": (int, float, NONE),
    "commits": int,
    "last_commit_step": (int, NONE),
    "last_commit_time": (int, float, NONE),
    "exposure_seconds": (int, float, NONE),
    "exposure_steps": (int, NONE),
    "lost_steps": (int, NONE),
    "goodput": (int, float, NONE),
    "seconds": NUMBER,
    "attempts": [
        {
            "number": int,
            "begin": NUMBER,
            "end": (int, float, NONE),
            "host": str,
            "began_at": (int, NONE),
            "step": (int, NONE),
            "lost": (int, NONE),
            "cause": (str, NONE),
            "detail": str,
            "decision": str,
            "start": {...: NUMBER},
        }
    ],
    "watched": bool,
    "trackers": {...: {...: str}},
    "trainings": [{"vault": str, "step": (int, NONE), "finished": bool}],
    "trouble": [str],
    "job": NONE,  # of a run that no engine has: tests/engines
}
REPORT = {"files": [str], **STATUS}
LOGS = {"attempt": int, "file": str, "lines": [str]}
LOGS_OF_A_VAULT = {
    "vault": str,
    "entries": [{"number": int, "time": str, "kind": str, "token": int, "text": str}],
}
_MAYBE = (int, float, NONE)
DOCTOR = {
    "vault": str,
    "ok": bool,
    "findings": [{"name": str, "state": str, "text": str, "fix": str}],
    "measured": {
        "upload_rate": _MAYBE,
        "download_rate": _MAYBE,
        "latency": _MAYBE,
        "clock_offset": _MAYBE,
        "disk_rate": _MAYBE,
        "disk_free": (int, NONE),
        "links": (bool, NONE),
        "create_if_absent": (bool, NONE),
        "checkpoint": (int, NONE),
    },
    "predicted": {
        "checkpoint": int,
        "written": NUMBER,
        "stall": NUMBER,
        "upload": NUMBER,
        "at_risk": NUMBER,
        "restore": NUMBER,
    },
}


def misfits(value: Any, schema: Any, where: str = "") -> list[str]:
    """Return where a value isn't as its schema says; empty: nowhere.

    A schema is a type, several types, ``{key: schema}`` (all of them, no others; ``...`` stands for any text), or
    ``[schema]`` of every item.
    """
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        if ... in schema:
            return [
                one for key, item in value.items() for one in misfits(item, schema[...], f"{where}.{key}")
            ]
        wrong = [f"{where}.{key}" for key in value.keys() ^ schema.keys()]
        return wrong + [
            one
            for key in value.keys() & schema.keys()
            for one in misfits(value[key], schema[key], f"{where}.{key}")
        ]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [one for item in value for one in misfits(item, schema[0], f"{where}[]")]
    types = schema if isinstance(schema, tuple) else (schema,)
    fits = isinstance(value, types) and (not isinstance(value, bool) or bool in types or object in types)
    return [] if fits else [f"{where} is {type(value).__name__}"]
