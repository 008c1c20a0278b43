"""Saves beside the training on a GPU: pinned copies on a stream of their own, stock's bytes, and a bit-exact resume.

``python -m pytest -q -s tests/gpu`` takes a few minutes on one GPU, downloads nothing, and prints its figures.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.kit.models import tiny_llama
from tests.trainer.kit import Boom, Recorder, Tokens, trainer
from tests.trainer.test_async_save import asked, contents
from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.timeout(280),
]


@pytest.fixture(autouse=True)
def _the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Kernels that give the same numbers each time."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def large_model() -> Any:
    """A Llama of about 60 million parameters."""
    return tiny_llama(4096, 1024, layers=6, max_position_embeddings=32)


PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"bf16": True},
    "fp16, GradScaler": {"fp16": True},
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_files_are_stocks(precision: str, tmp_path: Path) -> None:
    """Every file of every checkpoint has the bytes that the stock Trainer writes."""
    out = tmp_path / "out"
    more = {"use_cpu": False, "max_steps": 6, **PRECISIONS[precision]}
    stock = trainer(out, cls=transformers.Trainer, model=large_model(), **more)
    stock.train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    run = trainer(out, resume=asked(tmp_path / "vault"), model=large_model(), **more)
    heard = Recorder(run)
    run.train()
    assert contents(out) == expected
    assert not [event.message for event in heard.events if "async_save" in event.message]
    print(f"{precision}: the same bytes on {torch.cuda.get_device_name()}")


def test_the_copy_runs_beside(tmp_path: Path) -> None:
    """A copy into pinned memory doesn't wait for the processor, and holds what the state was at its start."""
    tensors = [torch.full((2**26,), float(number), device="cuda") for number in range(4)]
    arena = Arena(pinned=True)
    storages = [one.untyped_storage() for one in tensors]
    copy = StateCopy(arena, storages, beside={one.data_ptr() for one in storages})
    arena.reserve(copy.size)
    assert arena.pinned
    torch.cuda.synchronize()
    begin = time.perf_counter()
    copy.start(tensors)
    returned = time.perf_counter() - begin
    copy.hold_device()
    for one in tensors:
        one.add_(1)  # what an optimizer's step would do
    copy.note_step()
    copy.wait()
    took = time.perf_counter() - begin
    for number, storage in enumerate(storages):
        held = torch.empty(0).set_(copy.of(storage), 0, (2**26,), (1,))
        assert bool((held == number).all())
    print(f"1 GiB: returned after {returned * 1e3:.1f} ms, copied after {took * 1e3:.1f} ms")
    assert returned < took


def test_resumed_to_the_same_weights(tmp_path: Path) -> None:
    """A training that breaks off goes on from what was written beside it, bit for bit."""
    more = {"use_cpu": False, "max_steps": 8, "bf16": True}
    unbroken = trainer(tmp_path / "stock", cls=transformers.Trainer, model=large_model(), **more)
    unbroken.train()

    class Breaks(Tokens):
        left = 11

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            Breaks.left -= 1
            if Breaks.left == 0:
                raise Boom
            return super().__getitem__(index)

    vault = asked(tmp_path / "vault")
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, model=large_model(), train_dataset=Breaks(), **more).train()
    resumed = trainer(tmp_path / "b", resume=vault, model=large_model(), **more)
    resumed.train()
    for name, tensor in unbroken.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
