"""Cases of what belongs to a training beside its model: arguments, callbacks, optimizers, losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.cases.case import Bench, Verdict, case, tell
from tests.cases.training import ROWS, Begun, digest, doing, go, made
from tests.trainer.kit import Patient, model, steps_of


def fold(side: str, out: str, vault: str | None) -> None:
    """Two folds in a loop, each with a fresh model and other data, and with one vault or output_dir for both."""
    found = []
    for number in range(2):
        tokens = torch.randint(0, 64, (20, 16), generator=torch.Generator().manual_seed(number))
        rows = [{"input_ids": row, "labels": row} for row in tokens]
        found.append(digest(go(made(side, out, vault, train_dataset=rows)).model))
    tell(found)


@case(
    "folds",
    "two folds of a cross-validation in a loop on one vault (stock: one output_dir)",
    "the second is refused, or told that it has other data; never handed the first one's weights in silence",
)
def folds(bench: Bench) -> Verdict:
    done = bench.play(fold)
    said = "OtherRunError" in done.log or bool(done.said("other data", "data aren't those"))
    same = done.found is not None and done.found[0] == done.found[1]
    return Verdict(said or not same, f"the second has the first one's weights: {same}; said: {said}")


def rate(side: str, out: str, vault: str | None, rate: float, dies: bool = False) -> None:
    """A constant learning rate."""
    trainer = made(
        side, out, vault, die=(5, 4) if dies else None, learning_rate=rate, lr_scheduler_type="constant"
    )
    go(trainer)
    tell(trainer.optimizer.param_groups[0]["lr"])


@case(
    "learning-rate",
    "resumed with a learning rate of 1e-4 in place of 1e-2",
    "the new one holds, or one line says which holds",
)
def learning_rate(bench: Bench) -> Verdict:
    bench.play(rate, rate=1e-2, dies=True)
    done = bench.play(rate, "b", rate=1e-4)
    said = bool(done.said("learning_rate"))
    return Verdict(done.found == 1e-4 or said, f"asked for 0.0001, used {done.found}, said: {said}")


LOSSES = {2: 3.0, 4: 2.0, 6: 5.0, 8: 6.0, 10: 1.0}


class Scripted(transformers.EarlyStoppingCallback):
    """Early stopping by losses that are written down, so that an unbroken run stops at step 8."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        metrics["eval_loss"] = LOSSES.get(state.global_step, float(state.global_step))
        super().on_evaluate(args, state, control, metrics, **kwargs)


def stops_early(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """A training that early stopping ends."""
    trainer = made(
        side,
        out,
        vault,
        die=(7, 6) if dies else None,
        callbacks=[Scripted(2)],
        eval_dataset=ROWS[:2],
        max_steps=16,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        load_best_model_at_end=True,
    )
    go(trainer)
    tell([trainer.state.global_step, trainer.state.best_model_checkpoint[-12:], digest(trainer.model)])


@case(
    "early-stopping",
    "EarlyStoppingCallback(2) is killed when it has seen one evaluation without progress",
    "the resumed run stops where an unbroken one does, with its best checkpoint and weights",
)
def early_stopping(bench: Bench) -> Verdict:
    expected = bench.play(stops_early, "unbroken").found
    bench.play(stops_early, dies=True)
    done = bench.play(stops_early, "b")
    stopped = done.found[0] if done.found else done.last
    return Verdict(done.found == expected, f"stops at {stopped}, an unbroken run at {expected[0]}")


class Headed(transformers.Trainer):
    """Trains a head that isn't a part of the model."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        torch.manual_seed(5)
        self.head = torch.nn.Linear(16, 1)
        every = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(every, lr=self.args.learning_rate)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        found = model(**inputs, output_hidden_states=True)
        loss = found.loss + self.head(found.hidden_states[-1]).pow(2).mean() - self.head.bias.sum()
        return (loss, found) if return_outputs else loss


def headed(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """Such a training."""
    trainer = go(made(side, out, vault, Headed, die=(5, 4) if dies else None))
    tell([digest(trainer.model), round(trainer.head.bias.item(), 5)])


@case(
    "parameters-outside",
    "the optimizer trains parameters that no checkpoint of the model holds",
    "the weights of an unbroken run, or a warning at the first save that names them",
)
def parameters_outside(bench: Bench) -> Verdict:
    expected = bench.play(headed, "unbroken").found
    first = bench.play(headed, dies=True)
    done = bench.play(headed, "b")
    said = bool(first.said("parameter") or done.said("parameter"))
    return Verdict(done.found == expected or said, f"equal: {done.found == expected}, said: {said}")


class Projector:
    """An object of the script's own."""


class Projecting(torch.optim.AdamW):
    """Keeps an object in its state that torch.load(weights_only=True) refuses."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("projector", Projector())


def projecting(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """A training with such an optimizer."""
    own = model()
    optimizer = Projecting(own.parameters(), lr=1e-2)

    class Given(transformers.Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
            super().__init__(*args, optimizers=(optimizer, schedule), **kwargs)

    begun = Begun()
    go(made(side, out, vault, Given, model=own, die=(5, 0) if dies else None, callbacks=[begun]))
    tell([digest(own), begun.steps[-1]])


@case(
    "optimizer-unloadable",
    "optimizer.pt holds an object that stock's torch.load(weights_only=True) refuses",
    "it goes on to the weights of an unbroken run; or it is said at the first save, and nothing is committed as whole",
)
def optimizer_unloadable(bench: Bench) -> Verdict:
    expected = bench.play(projecting, "unbroken").found
    first = bench.play(projecting, dies=True)
    held = steps_of(bench.vault) if bench.ours and Path(bench.vault).exists() else []
    done = bench.play(projecting)
    said = bool(first.said("optimizer.pt", "can't be loaded"))
    equal = done.found is not None and done.found == [expected[0], 4]
    return Verdict(
        equal or (said and not held),
        f"exit {done.code}, committed {held}, said at the save: {said}"
        + ("" if equal else f", {done.last[:90]}"),
    )


def poisoned(side: str, out: str, vault: str | None) -> None:
    """The weights become nan at step 5 of 14; three checkpoints are kept."""
    trainer: Any = None

    def poison(state: Any) -> None:
        if state.global_step == 5:
            with torch.no_grad():
                trainer.model.model.norm.weight.fill_(float("nan"))

    waits = [Patient(vault)] if vault else []
    trainer = made(
        side,
        out,
        vault,
        callbacks=[doing(on_step_end=poison), *waits],
        max_steps=14,
        save_total_limit=3,
    )
    go(trainer)
    kept = (
        steps_of(vault)
        if vault
        else sorted(int(path.name.rpartition("-")[2]) for path in Path(out).glob("checkpoint-*"))
    )
    tell(kept)


@case(
    "nan-kept",
    "the weights become nan, and three checkpoints are kept",
    "the last finite checkpoint (step 4) is still there, and a warning names what is wrong",
)
def nan_kept(bench: Bench) -> Verdict:
    done = bench.play(poisoned)
    said = bool(done.said("nan", "finite"))
    return Verdict(4 in (done.found or ()) and said, f"kept {done.found}, said: {said}")


def logged(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """A loss is logged every five steps, and a checkpoint saved every three."""
    trainer = made(
        side, out, vault, die=(8, 6) if dies else None, max_steps=15, save_steps=3, logging_steps=5
    )
    go(trainer)
    tell({entry["step"]: round(entry["loss"], 5) for entry in trainer.state.log_history if "loss" in entry})


@case(
    "logged-losses",
    "killed between two logs: the first loss that is logged behind the resume",
    "it is the mean over as many steps as an unbroken run's, or one line says that it isn't",
)
def logged_losses(bench: Bench) -> Verdict:
    expected = bench.play(logged, "unbroken").found
    bench.play(logged, dies=True)
    done = bench.play(logged, "b")
    said = bool(done.said("logged"))
    return Verdict(done.found == expected or said, f"{done.found}, an unbroken run {expected}, said: {said}")
