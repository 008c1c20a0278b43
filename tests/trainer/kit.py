"""A training that takes a second: a tiny Llama from a config, fixed random tokens, dropout so that RNG matters.

All trainings here have the same schedule (``STEPS`` steps, a save every ``EVERY``), so one uninterrupted run
is the yardstick for all of them.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments

from tests.kit.inside import listen
from tests.kit.models import tiny_llama
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.trainer.trainer import Trainer
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.log.log import Log

STEPS, EVERY = 8, 2
torch.set_num_threads(1)


class Tokens(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """``size`` rows of 16 fixed random tokens: 4 optimizer steps of 2 rows are an epoch at size 8."""

    def __init__(self, size: int = 10, vocab: int = 64) -> None:
        generator = torch.Generator().manual_seed(7)
        self.rows = torch.randint(0, vocab, (size, 16), generator=generator)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def model(vocab: int = 64, hidden: int = 16, layers: int = 1, seed: int = 0) -> LlamaForCausalLM:
    """A Llama of about 5 thousand parameters; ``vocab=8192, hidden=64`` makes files that are linked, not copied."""
    return tiny_llama(
        vocab,
        hidden,
        layers=layers,
        seed=seed,
        max_position_embeddings=32,
        attention_dropout=0.2,
        tie_word_embeddings=True,
    )


def big_model() -> LlamaForCausalLM:
    """A Llama whose weights and optimizer state are files of 2 and 4 MB."""
    return model(vocab=8192, hidden=64)


def arguments(output_dir: Path | str, **more: Any) -> TrainingArguments:
    """Arguments of the common schedule; ``more`` overrides."""
    common: dict[str, Any] = {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "max_steps": STEPS,
        "save_steps": EVERY,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**common, **more})


def trainer(output_dir: Path | str, cls: Any = Trainer, **more: Any) -> Any:
    """A Trainer of the common schedule. Names of the Trainer's own arguments go to it, all others to its args."""
    own = (
        "model",
        "callbacks",
        "resume",
        "eval_dataset",
        "model_init",
        "train_dataset",
        "compute_metrics",
        "optimizers",
    )
    given = {name: more.pop(name) for name in own if name in more}
    if "model_init" not in given:
        given.setdefault("model", model())
    given.setdefault("train_dataset", Tokens())
    return cls(args=arguments(output_dir, **more), **given)


def weights(source: Any) -> str:
    """A digest of all parameters, by name, dtype and bytes: equal means bit-identical."""
    digest = hashlib.sha256()
    for name, value in sorted(source.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Boom(Exception):
    """The failure that a test injects."""


class FailAt(TrainerCallback):
    """Raises Boom at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Boom


class KillAt(TrainerCallback):
    """Sends SIGKILL to this process at the end of a step, once ``vault`` holds a commit of step ``committed``."""

    def __init__(self, step: int, vault: str = "", committed: int = 0) -> None:
        self.step, self.vault, self.committed = step, vault, committed

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            if self.committed:
                wait_for(lambda: self.committed in steps_of(self.vault))
            os.kill(os.getpid(), signal.SIGKILL)


class Patient(TrainerCallback):
    """Trains no further before the last save is committed, so that no save is superseded on a slow machine."""

    def __init__(self, vault: str | Path) -> None:
        self.vault = vault

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step and (Path(args.output_dir) / f"checkpoint-{step}").is_dir():
            wait_for(lambda: step in steps_of(self.vault))


class Do(TrainerCallback):
    """Calls functions at events: ``Do(on_save=lambda state: ...)``."""

    def __init__(self, **actions: Callable[[Any], Any]) -> None:
        for name, action in actions.items():
            setattr(self, name, _acting(action))


def _acting(action: Callable[[Any], Any]) -> Callable[..., None]:
    def act(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        action(state)

    return act


class Judged(TrainerCallback):
    """Gives each evaluation the loss that stands for its step; ``judged_by`` is what a run is asked for beside it."""

    def __init__(self, losses: Mapping[int, float]) -> None:
        self.losses = losses

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        metrics["eval_loss"] = self.losses[state.global_step]


def judged_by(losses: Mapping[int, float], *more: TrainerCallback) -> dict[str, Any]:
    """Arguments of a run that evaluates at each second step, and loads at its end what has the lowest of these losses.

    ``more``: callbacks behind that which gives the losses.
    """
    return {
        "eval_dataset": Tokens(2),
        "eval_strategy": "steps",
        "eval_steps": EVERY,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "load_best_model_at_end": True,
        "callbacks": [Judged(losses), *more],
    }


class Recorder:
    """Collects a vault's events of a trainer or callback."""

    def __init__(self, source: Any) -> None:
        self.events: list[Event] = []
        listen(source, self.events.append)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


def state_of(vault: str | Path) -> VaultState:
    """The state of a vault's log."""
    entry = Log(open_store(parse_vault(str(vault)))).last()[1]
    return entry.state if entry is not None else VaultState("none", 0)


def steps_of(vault: str | Path) -> list[int]:
    """Steps of the live checkpoints, oldest first."""
    return [commit.step for commit in state_of(vault).commits]


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Poll until a condition holds; fails the test where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def is_new() -> bool:
    """Whether this transformers is 5 or later."""
    return int(transformers.__version__.split(".")[0]) >= 5
