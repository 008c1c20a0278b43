"""A resume brings back every tensor, also of architectures whose files have other names than their modules."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import transformers

from tests.architectures.__main__ import side_by_side
from tests.architectures.table import Row, rows
from tests.architectures.tiny import architectures

RENAMED = ("vit", "esm", "swin", "mixtral", "qwen3_moe", "deepseek_v3", "llava", "segformer", "nomic_bert")
SAME = ("llama", "bert", "gpt2", "t5")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*RENAMED, *SAME])
def test_a_model_is_loaded_whole(kind: str) -> None:
    """What stock leaves out is loaded behind it, and nothing of what stock loads is changed."""
    known = architectures()
    if kind not in known:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    (row,) = rows([(kind, known[kind])])
    assert row.why == ""
    assert row.ours == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_architecture_is_loaded_whole_or_refused() -> None:
    """Of all architectures that can be made small none goes on with tensors that aren't what was saved."""
    found = [row for row in rows(architectures().items()) if not row.why]
    assert len(found) > 100
    assert [row.kind for row in found if row.ours] == []
    assert [row.kind for row in found if row.ours is None] == []


def test_versions_side_by_side(tmp_path: Path) -> None:
    """Tables of two versions become one: what a version doesn't know or can't make stands as that, and sums follow."""
    first = [Row("llama", "L", 11), Row("vit", "V", 24, 20, 0), Row("old", "O", 3, 1, None)]
    second = [Row("llama", "L", 11), Row("vit", "V", 24), Row("new", "N", why="it lacks a library")]
    for version, rows_ in (("4.51.3", first), ("5.0.0", second)):
        content = {"transformers": version, "rows": [asdict(row) for row in rows_]}
        (tmp_path / version).write_text(json.dumps(content))
    lines = side_by_side([tmp_path / "4.51.3", tmp_path / "5.0.0"])
    assert [line.split() for line in lines[1:4]] == [
        ["model", "type", "transformers", "4.51.3", "transformers", "5.0.0"],
        ["old", "1,", "refused", "of", "3", "unknown"],
        ["vit", "20,", "0", "of", "24", "0,", "0", "of", "24"],
    ]
    assert lines[-2].endswith(
        "3 of 3 architectures tried: loaded whole by stock 1, by ours 2; refused by ours 1"
    )
    assert not any(line.startswith(("llama", "new")) for line in lines)
