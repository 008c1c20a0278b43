"""What `vl run` does to ``transformers.Trainer`` in the processes that it starts; the script stays as it is.

Called by startup/sitecustomize.py once transformers.trainer has been imported, before anybody has its names. The
class itself is changed, so that every subclass has it:

    __init__               a smaller micro-batch, where `vl run` asks for one
    train                  on the vault, as ``resume=`` does it (vaultlayer_hf.trainer.train_on), and reported
    training_step          looks at the loss
    _inner_training_loop   a checkpoint of another micro-batch doesn't bring its own back
    _maybe_log_save_evaluate says that what comes now takes as long as it takes

Nothing here may import vaultlayer_hf.trainer: whoever imports transformers.trainer may be one of those very modules
(``from vaultlayer_hf import Trainer`` in a script), which then are half made. What needs them is in trainer.py, and
is imported when the first Trainer is made: every module that this took has been imported whole by then.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from vaultlayer_hf.run.inside.micro_batch import divide
from vaultlayer_hf.run.put_aside import bring_back
from vaultlayer_hf.run.report import DIVIDE_VARIABLE, report


def install(trainer: type[Any]) -> None:
    """Change the class; once."""
    if "_vaultlayer_run" in trainer.__dict__:
        return
    trainer._vaultlayer_run = True
    announce()
    changes = (
        ("__init__", _init),
        ("train", _train),
        ("training_step", _training_step),
        ("_inner_training_loop", _inner_training_loop),
        ("_maybe_log_save_evaluate", _between_steps),
    )
    for name, wrap in changes:
        original = trainer.__dict__.get(name)
        if original is not None:
            setattr(trainer, name, functools.wraps(original)(wrap(original)))


def announce() -> None:
    """Tell `vl run` that this process has the hook; nothing in a spare interpreter, which belongs to no attempt yet."""
    stacks = report.open()
    report.note("hooked", pid=os.getpid(), world_size=int(os.environ.get("WORLD_SIZE", "1")), stacks=stacks)
    report.watch_uncaught()


@functools.cache
def _inside() -> ModuleType | None:
    """Import what puts a vault into a Trainer; None, and said, where this Python lacks something for it."""
    try:
        from vaultlayer_hf.run.inside import trainer
    except ImportError as error:
        sys.stderr.write(
            f"[vaultlayer] nothing is kept: {sys.executable} can't import vaultlayer_hf: {error}\n"
        )
        return None
    trainer.install()
    return trainer


def _init(original: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        given = kwargs["args"] if "args" in kwargs else args[1] if len(args) > 1 else None
        if given is not None:
            divide(given, int(os.environ.get(DIVIDE_VARIABLE, "1")))
            # The script has looked at its output folder by now; the vault's local side hasn't yet.
            if os.environ.get("LOCAL_RANK", "0") == "0":
                bring_back(Path(os.path.abspath(str(given.output_dir))))
        _inside()  # before the script can call pull() of a VaultLayerCallback: that needs a Trainer
        original(self, *args, **kwargs)
        _watch_for_own_loop(self)

    return __init__


def _watch_for_own_loop(trainer: Any) -> None:
    """Have a train() that isn't transformers' own named at its first step."""
    own = next(cls for cls in type(trainer).__mro__ if "train" in vars(cls))
    if "_vaultlayer_run" not in vars(own):
        from vaultlayer_hf.run.inside.own_loop import OwnLoopCallback

        trainer.add_callback(OwnLoopCallback(type(trainer).__name__))


def _inner_training_loop(original: Any) -> Any:
    def _inner_training_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        # transformers 4 takes the micro-batch that the checkpoint was written with.
        if getattr(self.args, "_vaultlayer_divided", False) and not self.args.auto_find_batch_size:
            self._train_batch_size = self.args.train_batch_size
            if "batch_size" in kwargs:
                kwargs["batch_size"] = self.args.train_batch_size
        return original(self, *args, **kwargs)

    return _inner_training_loop


def _training_step(original: Any) -> Any:
    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        watch = self.__dict__.get("_vaultlayer_watch")
        if watch is not None:
            watch.saw(loss)
        return loss

    return training_step


def _between_steps(original: Any) -> Any:
    def _maybe_log_save_evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        control = self.control
        if not (control.should_log or control.should_save or control.should_evaluate):
            return original(self, *args, **kwargs)
        report.beat(phase="between")
        try:
            return original(self, *args, **kwargs)
        finally:
            report.beat(phase="train")

    return _maybe_log_save_evaluate


def _train(original: Any) -> Any:
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.__dict__.get("_vaultlayer_training"):
            return original(self, *args, **kwargs)
        bound = original.__get__(self, type(self))
        self._vaultlayer_training = True
        try:
            inside = _inside()
            output = inside.train(self, bound, args, kwargs) if inside is not None else bound(*args, **kwargs)
        except BaseException as error:
            report.error(error)
            raise
        finally:
            self._vaultlayer_training = False
        over = inside.is_over(self) if inside is not None else self.state.global_step >= self.state.max_steps
        report.note("trained", step=self.state.global_step, over=over)
        report.beat(phase="done")
        return output

    return train
