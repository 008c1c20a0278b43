"""A resume brings back every tensor, also of architectures whose files have other names than their modules."""

from __future__ import annotations

import pytest
import transformers

from tests.architectures.table import rows
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
