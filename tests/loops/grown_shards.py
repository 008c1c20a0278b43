"""A program of one rank, by FSDP, whose optimizer gets more parameters on its way; prints what it is told of them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.kit.inside import listen
from tests.ranks.frameworks import believe_in_accelerators
from vaultlayer_hf import Checkpointer


def main(folder: Path) -> None:
    """Train two steps on a vault in a folder."""
    from accelerate import Accelerator, PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin

    PartialState(cpu=True)
    believe_in_accelerators()
    accelerator = Accelerator(
        cpu=True,
        fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False),
    )
    model: torch.nn.Module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model[1].parameters()))
    ckpt = Checkpointer(folder / "vault", accelerator=accelerator, save_every=1, output_dir=folder / "output")
    listen(ckpt, lambda event: print(f"told: {event.message}") if "mid-run" in event.message else None)
    ckpt.resume()
    for step in range(2):
        accelerator.backward(model(torch.ones(1, 4)).sum())
        optimizer.step()
        if step == 1:
            optimizer.add_param_group({"params": list(model[0].parameters())})
        optimizer.zero_grad()
        ckpt.step()
        print("step", step)
    ckpt.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
