"""What a checkpoint's folder must hold: checked on folders that the frameworks themselves have written."""

from __future__ import annotations

from tests.ranks.launch import Group
from vaultlayer_hf.state.layouts import missing_shards
from vaultlayer_hf.trainer.layout import missing_files, wanted_files
from vaultlayer_hf.vault.snapshot import list_files

SPARE = {
    "config.json",
    "generation_config.json",
    "training_args.bin",
    "zero_to_fp32.py",
    "zero_to_torch.py",
}
"""What a resume does without."""
DOUBLE = {
    "zero2": {"model.safetensors", "scheduler.pt"},
    "zero3": {"scheduler.pt"},
    "fsdp-full": {"model.safetensors", "pytorch_model_fsdp.bin"},
}
"""What may lie elsewhere too: names alone don't tell whether DeepSpeed keeps the scheduler in its own files."""


def check_layout(group: Group, kind: str) -> None:
    """Whole, nothing is missed; without any one file that a resume needs, that is said."""
    folder = group.output / "checkpoint-10"
    world = group.world
    paths = set(list_files(folder))
    assert missing_files(paths, world) == []
    assert missing_shards(folder, paths) == []
    for path in sorted(paths - SPARE - DOUBLE.get(kind, set())):
        left = paths - {path}
        assert missing_files(left, world) + missing_shards(folder, left), f"without {path} nothing is missed"
    for rank in range(world):
        wanted = wanted_files(paths, (rank,), world)
        assert f"rng_state_{rank}.pth" in wanted
        assert not any(f"rng_state_{other}.pth" in wanted for other in range(world) if other != rank)
        others = {path for path in paths if path not in wanted}
        assert all(f"_{other}." in path or f"_{other}_" in path for path in others for other in [1 - rank])
