"""A smaller micro-batch: where DeepSpeed keeps numbers of its own, and where it would change nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.run.programs import SCRIPT, torchrun, vl_run
from vaultlayer_hf.run.inside.micro_batch import divide

_QUICK = """
import deepspeed
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for minutes
"""
_CONFIG = (
    _QUICK
    + """
CONFIG = {
    "zero_optimization": {"stage": 2}, "zero_force_ds_cpu_optimizer": False, "gradient_clipping": "auto",
    "train_micro_batch_size_per_gpu": %r, "gradient_accumulation_steps": %r, "train_batch_size": %r,
}
"""
)
_ENGINE = """
trainer.train()
it = trainer.deepspeed
print("ENGINE", it.train_micro_batch_size_per_gpu(), it.gradient_accumulation_steps(), it.train_batch_size())
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3}, (2, 6)),
        ({"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"}, ("auto", "auto")),
        ({"gradient_accumulation_steps": 1}, (None, 2)),
    ],
)
def test_deepspeeds_numbers_go_along(before: dict, after: tuple) -> None:
    """Numbers are divided and multiplied as the arguments' are, once; "auto" follows the arguments by itself."""
    config = SimpleNamespace(config={**before, "train_batch_size": 12})
    args = SimpleNamespace(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        hf_deepspeed_config=config,
        deepspeed_plugin=SimpleNamespace(hf_ds_config=config),  # the same object, as transformers has it
    )
    for _ in range(2):
        divide(args, 2)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (2, 6)
    found = config.config
    assert (
        found.get("train_micro_batch_size_per_gpu"),
        found["gradient_accumulation_steps"],
        found["train_batch_size"],
    ) == (*after, 12)


_EVALUATES = """
import transformers
def full(predictions):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
trainer.eval_dataset, trainer.compute_metrics = rows[:4], full
args.eval_strategy, args.eval_steps = transformers.IntervalStrategy.STEPS, 3
trainer.train()
"""


def test_memory_that_an_evaluation_lacks_halves_nothing(tmp_path: Path) -> None:
    """What runs out of memory in an evaluation stops the run with the settings that help."""
    ran = vl_run(tmp_path, TRAIN=_EVALUATES)
    assert (ran.code, ran.causes, ran.actions) == (5, ["memory"], ["stop"])
    assert "it was in an evaluation" in ran.err
    assert "per_device_eval_batch_size" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [("auto", "auto", "auto"), (4, 1, 4)], ids=["auto", "numbers"])
def test_deepspeed_trains_on_with_half_the_micro_batch(numbers: tuple, tmp_path: Path) -> None:
    """ZeRO-2 that runs out of memory goes on with 2 times 2 rows a step, and each step's loss is what it was with 4."""
    script = _CONFIG % numbers + SCRIPT.replace("use_cpu=True,", "use_cpu=True, deepspeed=CONFIG,")
    _check(tmp_path, torchrun(1), script)


@pytest.mark.slow
def test_deepspeed_by_accelerate_launch_trains_on_with_half_the_micro_batch(tmp_path: Path) -> None:
    """The same where `accelerate launch` configures DeepSpeed, and the script knows nothing of it."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--use_deepspeed", "--zero_stage", "2"]
    launch += ["--num_processes", "1", "--deepspeed_multinode_launcher", "standard"]
    _check(tmp_path, launch, _QUICK + SCRIPT)


def _check(tmp_path: Path, launch: list[str], script: str) -> None:
    pytest.importorskip("deepspeed", reason="pip install 'vaultlayer-hf[deepspeed]'")
    more = {
        "DS_ACCELERATOR": "cpu",
        "DS_SKIP_CUDA_CHECK": "1",
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "ext"),
        "DROPOUT": "0",
        "TRAIN": _ENGINE,
    }
    ended = {}
    for name, largest in (("whole", {}), ("halved", {"LARGEST": "2"})):
        folder = tmp_path / name
        folder.mkdir()
        ran = vl_run(folder, *launch, "train.py", script=script, **more, **largest)
        assert ran.code == 0, ran.err[-3000:]
        ended[name] = ran
    halved = ended["halved"]
    assert halved.causes == ["memory", "finished"]
    last = halved.notes(2, "train")[0]
    assert (last["micro_batch"], last["accumulation"]) == (2, 2)
    assert "ENGINE 2 2 4" in halved.out, "DeepSpeed reckons with other numbers than the Trainer"
    assert halved.losses == pytest.approx(ended["whole"].losses, abs=2e-3)
