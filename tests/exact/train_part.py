"""One training of a scenario, in a process of its own: whole, or one attempt between its breaks; stock or ours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_utils import get_last_checkpoint

from tests.exact.material import BATCH, Breaks, BrokenOffError, arguments, digest, model, padded, scenario
from tests.kit.inside import listen
from vaultlayer_hf import Settings
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.trainer.trainer import Trainer


def train_part(
    name: str,
    ours: bool,
    attempt: int | None,
    output: str,
    vault: str,
    result: str,
    changed: dict[str, Any],
    bare: bool,
) -> None:
    """Train; ``result`` gets a digest of what came out on this rank, and what the vault had to say.

    ``attempt``: broken off behind the scenario's break of that number, the last one behind none; all but number 0 go on
    from the one before. None: the whole training at once.
    """
    torch.set_num_threads(1)
    one = scenario(name)
    said: list[Event] = []
    more = {**(one.resumed if attempt else {}), **changed}
    end = None if attempt is None else next(iter(one.breaks[attempt : attempt + 1]), None)
    saves = () if "save_strategy" in one.arguments else one.breaks
    cls: Any = Trainer if ours else transformers.Trainer
    own: dict[str, Any] = {}
    if ours:
        own["resume"] = Settings(
            vault=vault,
            exact_data="off" if bare else "on",
            notices="none",
            signals="none",
            part_timeout=20,
            resume_timeout=10,
        )
    trainer = cls(
        model=model(),
        args=arguments(one, Path(output), **more),
        train_dataset=one.data(),
        eval_dataset={str(number): one.data() for number in range(one.evaluated)} or None,
        data_collator=padded,
        callbacks=[Breaks(saves, end)],
        **own,
    )
    if one.stateful:
        from torchdata.stateful_dataloader import StatefulDataLoader

        trainer.get_train_dataloader = lambda: StatefulDataLoader(
            trainer.train_dataset, batch_size=BATCH, shuffle=True, collate_fn=padded
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        assert trainer.args.parallel_mode.value == "distributed"
    if ours:
        listen(trainer, said.append)
    checkpoint = None
    if attempt and not ours:
        checkpoint = get_last_checkpoint(output)
        assert checkpoint is not None, "there is nothing to resume from: it would start anew, and be the same"
    found = None
    try:
        trainer.train(**({"resume_from_checkpoint": checkpoint} if checkpoint else {}))
        found = digest(trainer)
    except BrokenOffError:
        assert end is not None
    Path(result).write_text(
        json.dumps(
            {
                "digest": found,
                "steps": trainer.state.global_step,
                "said": [(event.kind, event.message) for event in said],
            }
        )
    )
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        # Gloo's threads may wait for ever for the other rank's where objects are taken down in order.
        os._exit(0)
