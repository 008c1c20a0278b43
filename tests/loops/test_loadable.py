"""A loop's checkpoint that can't be loaded costs that checkpoint, and is said."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from tests.kit.inside import listen, settle
from vaultlayer_hf import Checkpointer, open_vault
from vaultlayer_hf.base.events import Event


def test_a_file_that_a_hook_has_torn_costs_its_checkpoint(tmp_path: Path) -> None:
    """A script's own hook writes half of a file at one save: that isn't committed, and the reason names it."""
    accelerator = Accelerator(cpu=True)
    net = torch.nn.Linear(2, 2)
    net, _ = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    step = 0

    def hook(models: object, weights: object, folder: str) -> None:
        file = Path(folder) / "unet" / "model.safetensors"
        file.parent.mkdir(parents=True)
        save_file({"a": torch.ones(300)}, file)
        if step == 2:
            file.write_bytes(file.read_bytes()[:-100])

    accelerator.register_save_state_pre_hook(hook)
    ckpt = Checkpointer(
        tmp_path / "vault", accelerator=accelerator, save_every="none", output_dir=tmp_path / "a"
    )
    seen: list[Event] = []
    listen(ckpt, seen.append)
    ckpt.resume()
    for step in (1, 2, 3):  # noqa: B007  the hook reads it
        ckpt.step()
        ckpt.save()
        settle(ckpt)
    ckpt.finish()
    accelerator.free_memory()
    with open_vault(tmp_path / "vault") as opened:
        assert [commit.step for commit in opened.checkpoints()] == [1, 3]
    (reason,) = [event.fields["reason"] for event in seen if event.kind == "abandon"]
    assert "unet/model.safetensors can't be loaded" in reason
