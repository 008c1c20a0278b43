"""What programs read: the keys and types of every command's --json."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import schema
from .conftest import vl

COMMANDS = {
    "ls": (["{vault}", "--metrics"], schema.LS),
    "show": (["{vault}@40"], schema.SHOW),
    "why": (["{vault}@40"], schema.WHY),
    "verify": (["{vault}", "--newest"], schema.VERIFY),
    "pull": (["{vault}@40", "{folder}/out"], schema.PULL),
    "copy": (["{vault}", "{folder}/other"], schema.COPY),
    "diff": (["{vault}@20", "{vault}"], schema.DIFF),
    "pin": (["{vault}@20"], schema.PIN),
    "archive": (["{vault}"], schema.ARCHIVE),
    "prune": (["{vault}", "--dry-run", "--keep-last", "1"], schema.PRUNE),
    "status": (["{vault}"], schema.STATUS),
    "logs": (["{vault}"], schema.LOGS_OF_A_VAULT),
    "report": (["{vault}", "--out", "{folder}/report.html"], schema.REPORT),
    "doctor": (["{vault}", "--model", "1MB", "--output-dir", "{folder}"], schema.DOCTOR),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_as_promised(command: str, vault: Path, tmp_path: Path) -> None:
    """--json prints one object and nothing else, with exactly these keys, and values of these types."""
    arguments, expected = COMMANDS[command]
    (vault / "data/1/checkpoint-50").mkdir()
    (vault / "data/1/checkpoint-50/left.bin").write_bytes(b"over")  # so that prune has something to say
    done = vl(command, *(item.format(vault=vault, folder=tmp_path) for item in arguments), "--json")
    assert done.code == 0, done.err
    assert schema.misfits(done.json(), expected) == []


def test_a_misfit_is_found() -> None:
    """The check notices a missing key, one too many, a wrong type, a bool for a number, and what is nested."""
    fits = {"a": 1, "b": [{"c": None}]}
    assert schema.misfits(fits, {"a": int, "b": [{"c": (str, schema.NONE)}]}) == []
    assert schema.misfits(fits, {"a": int}) == [".b"]
    assert schema.misfits({}, {"a": int}) == [".a"]
    assert schema.misfits({"a": True}, {"a": int}) == [".a is bool"]
    assert schema.misfits(fits, {"a": int, "b": [{"c": str}]}) == [".b[].c is NoneType"]
