"""Cases of state outside the model, and of files that a script's own save has torn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.cases.case import Bench, Verdict, case, tell
from tests.cases.training import TRL, digest, go, made, trl_made, trl_model
from tests.trainer.kit import Patient, model, steps_of


class Averaging(transformers.TrainerCallback):
    """An average of the weights beside the model, as many scripts keep one."""

    def __init__(self) -> None:
        self.average = model(seed=9)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            for mine, other in zip(self.average.parameters(), kwargs["model"].parameters(), strict=True):
                mine.mul_(0.9).add_(other, alpha=0.1)


def averaged(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """A training with an average, which ours carries by ``trainer.vault.add``."""
    beside = Averaging()
    trainer = made(side, out, vault, die=(5, 4) if dies else None, callbacks=[beside])
    if side == "ours" and vault is not None:
        trainer.vault.add("average", beside.average)
    go(trainer)
    tell([digest(trainer.model), digest(beside.average)])


@case(
    "average-beside",
    "an EMA of the weights in a callback, killed and gone on from",
    "weights and average of an unbroken run",
)
def average_beside(bench: Bench) -> Verdict:
    expected = bench.play(averaged, "unbroken").found
    bench.play(averaged, dies=True)
    done = bench.play(averaged, "b")
    found = done.found or [None, None]
    return Verdict(
        found == expected, f"weights equal: {found[0] == expected[0]}, average: {found[1] == expected[1]}"
    )


class Tearing(transformers.TrainerCallback):
    """Leaves half of optimizer.pt in checkpoint-6, as a script's own save does that is out of order."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 6:
            file = Path(args.output_dir) / "checkpoint-6" / "optimizer.pt"
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def torn(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """A training whose second-last checkpoint is torn where it dies."""
    own = [Tearing()] if dies else []
    if dies and vault:
        own.append(_Waits(vault))
    go(trainer := made(side, out, vault, die=(7, 0) if dies else None, callbacks=own))
    tell(digest(trainer.model))


class _Waits(Patient):
    """Waits for each commit but that of the torn one."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < 6:
            super().on_step_begin(args, state, control, **kwargs)


@case(
    "torn-file",
    "a script's own save leaves half of optimizer.pt in checkpoint-6; killed at 7, and gone on from",
    "the weights of an unbroken run, from checkpoint-4; checkpoint-6 isn't committed",
)
def torn_file(bench: Bench) -> Verdict:
    expected = bench.play(torn, "unbroken").found
    bench.play(torn, dies=True)
    held = steps_of(bench.vault) if bench.ours else []
    done = bench.play(torn)
    equal = done.found == expected
    return Verdict(
        equal and 6 not in held,
        f"exit {done.code}, committed {held}, weights equal: {equal}"
        + ("" if equal else f", {done.last[:80]}"),
    )


def synced(side: str, out: str, vault: str | None, die: list[int] | None = None) -> None:
    """DPO, whose reference model follows the trained one."""
    import datasets
    import trl

    from tests.trainer.programs import tokenizer

    args = trl.DPOConfig(
        output_dir=out,
        **TRL,
        sync_ref_model=True,
        ref_model_sync_steps=2,
        ref_model_mixup_alpha=0.5,
    )
    rows = [{"prompt": f"w{n}", "chosen": f" w{n + 1} w3", "rejected": f" w{n + 2} w5"} for n in range(20)]

    trainer = trl_made(
        trl.DPOTrainer,
        side,
        vault,
        die,
        model=trl_model(),
        ref_model=trl_model(),
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    go(trainer)
    tell([digest(trainer.model), digest(trainer.ref_model)])


@case(
    "reference-synced",
    "TRL's DPO with sync_ref_model: the reference model moves along, killed and gone on from",
    "weights and reference of an unbroken run, or a line that numbers may differ",
    needs=("datasets", "trl"),
    quick=False,
)
def reference_synced(bench: Bench) -> Verdict:
    expected = bench.play(synced, "unbroken")
    bench.play(synced, die=[7, 6])
    done = bench.play(synced, "b")
    equal, said = expected.found is not None and done.found == expected.found, bool(done.said("may differ"))
    why = "" if expected.found else f", {expected.last[:100]}"
    return Verdict(equal or (said and bench.ours), f"exit {done.code}, equal: {equal}, said: {said}{why}")
