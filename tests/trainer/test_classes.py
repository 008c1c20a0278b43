"""resumable(): what it does to a class, and what it leaves as it was."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
from pathlib import Path
from typing import Any

import pytest
import transformers
from accelerate.state import GradientState

from tests.kit.inside import callback_of
from tests.trainer.kit import STEPS, arguments, model, state_of, steps_of, trainer
from vaultlayer_hf import SettingsError, Trainer, resumable


@resumable
class Decorated(transformers.Trainer):
    """A user's Trainer with a loss of its own."""

    def __init__(self, *args: Any, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = scale

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        return (loss[0] * self.scale, loss[1]) if isinstance(loss, tuple) else loss * self.scale


class Notes(Trainer):
    """A subclass that writes into the checkpoint before and after the Trainer does, and wraps train()."""

    trained = 0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.trained += 1
        return super().train(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(exist_ok=True)
        (folder / "before.txt").write_text("before")
        super()._save_checkpoint(model, trial)
        (folder / "after.txt").write_text("after")


class Odd(transformers.Trainer):
    """A user's Trainer whose train() has a signature of its own."""

    def train(self, stage: str, resume_from_checkpoint: Any = None) -> Any:  # type: ignore[override]
        self.stage, self.path = stage, resume_from_checkpoint
        return super().train(resume_from_checkpoint=resume_from_checkpoint)


class OldSuper(transformers.Trainer):
    """A user's Trainer that names itself in super(), as old code does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super(OldSuper, self).__init__(*args, **kwargs)  # noqa: UP008


def test_is_what_it_was_made_from() -> None:
    """The made class is a subclass, keeps its name, is made once, and isn't made twice over."""
    made = resumable(transformers.Seq2SeqTrainer)
    assert issubclass(made, transformers.Seq2SeqTrainer)
    assert made is not transformers.Seq2SeqTrainer
    assert (made.__name__, made.__module__) == ("Seq2SeqTrainer", transformers.Seq2SeqTrainer.__module__)
    assert resumable(transformers.Seq2SeqTrainer) is made
    assert resumable(made) is made
    assert resumable(Notes) is Notes
    assert resumable(transformers.Trainer) is Trainer
    assert "resume" not in inspect.signature(transformers.Seq2SeqTrainer).parameters


@pytest.mark.parametrize("value", [int, 3, transformers.Trainer.train])
def test_refuses_what_is_no_trainer(value: Any) -> None:
    """resumable() of anything but a Trainer class is a TypeError that says so."""
    with pytest.raises(TypeError, match=r"subclass of transformers\.Trainer"):
        resumable(value)


class Deaf(transformers.Trainer):
    """A user's Trainer whose train() can't be told where to go on from."""

    def train(self) -> Any:  # type: ignore[override]
        raise AssertionError("nothing is trained")


def test_a_train_without_the_argument_is_refused_at_once(tmp_path: Path) -> None:
    """The first start says what is lacking, rather than each start after the first commit with a TypeError."""
    run = trainer(tmp_path / "out", cls=resumable(Deaf), resume=tmp_path / "vault")
    with pytest.raises(
        SettingsError, match=r"Deaf\.train\(\) takes no resume_from_checkpoint.*Nothing was trained"
    ):
        run.train()
    assert not (tmp_path / "vault").exists()


def test_signatures() -> None:
    """inspect shows the class's own arguments and resume, also through subclasses with an __init__ of their own."""
    assert list(inspect.signature(Decorated).parameters) == ["args", "scale", "resume", "kwargs"]
    assert "resume" in inspect.signature(Trainer).parameters

    class Narrow(Trainer):
        def __init__(self, output_dir: str) -> None:
            super().__init__(model(), arguments(output_dir))

    assert list(inspect.signature(Narrow).parameters) == ["output_dir"]
    assert list(inspect.signature(resumable(Odd).train).parameters)[1:] == ["stage", "resume_from_checkpoint"]


def test_help() -> None:
    """help() shows transformers' documentation, and the argument."""
    text = pydoc.render_doc(Trainer, renderer=pydoc.plaintext)
    assert "compute_metrics" in text
    assert "URI@<step>" in text
    assert "VAULTLAYER_VAULT" in text


def test_decorated_class_trains(tmp_path: Path) -> None:
    """A decorated Trainer takes its own arguments and resume together, and commits."""
    run = Decorated(
        model(), arguments(tmp_path / "out"), train_dataset=_rows(), scale=0.5, resume=tmp_path / "v"
    )
    assert run.train().global_step == STEPS
    assert run.scale == 0.5
    assert isinstance(run, transformers.Trainer)
    assert state_of(tmp_path / "v").finished == STEPS


def test_subclass_that_overrides_what_is_wrapped(tmp_path: Path) -> None:
    """Overrides of train() and _save_checkpoint() work, and what they write is part of the checkpoint."""
    trainer(tmp_path / "a", cls=Notes, resume=tmp_path / "vault", max_steps=4).train()
    run = trainer(tmp_path / "b", cls=Notes, resume=tmp_path / "vault")
    run.train()
    assert run.trained == 1
    restored = tmp_path / "b" / "checkpoint-4"
    assert (restored / "before.txt").read_text() == "before"
    assert (restored / "after.txt").read_text() == "after"


def test_train_with_a_signature_of_its_own(tmp_path: Path) -> None:
    """The path to resume from reaches a train() that has it at another position; other arguments stay."""
    run = trainer(tmp_path / "a", cls=resumable(Odd), resume=tmp_path / "vault", max_steps=2)
    run.train("one")
    assert (run.stage, run.path) == ("one", None)
    run = trainer(tmp_path / "b", cls=resumable(Odd), resume=tmp_path / "vault", max_steps=4)
    run.train(stage="two")
    assert (run.stage, run.path) == ("two", str(tmp_path / "b" / "checkpoint-2"))
    assert steps_of(tmp_path / "vault") == [2, 4]


def test_super_with_arguments_in_a_decorated_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """super(Name, self) in a decorated class would recurse for ever: a TypeError tells what to write instead."""
    made = resumable(OldSuper)
    assert made(model(), arguments(tmp_path)).train_dataset is None  # as a function it works
    monkeypatch.setitem(globals(), "OldSuper", made)  # as a decorator the name is the made class
    with pytest.raises(TypeError, match="write super\\(\\) without arguments"):
        made(model(), arguments(tmp_path))


@pytest.mark.parametrize("cls", [Trainer, Decorated, Notes, resumable(transformers.Seq2SeqTrainer)])
def test_instances_are_pickled_as_in_stock(cls: Any, tmp_path: Path) -> None:
    """pickle and copy of an untrained trainer work as in stock; the copy trains, under a claim of its own."""
    args = arguments(tmp_path / "out")
    if cls is resumable(transformers.Seq2SeqTrainer):
        args = transformers.Seq2SeqTrainingArguments(
            output_dir=str(tmp_path / "out"), use_cpu=True, max_steps=2, save_steps=2, report_to="none"
        )
    GradientState._reset_state()  # after a training in this process, accelerate's own can't be pickled
    run = cls(model(), args, train_dataset=_rows(), resume=tmp_path / "vault")
    for twin in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
        assert type(twin) is type(run)
        assert callback_of(twin) is not callback_of(run)
        assert callback_of(twin) in twin.callback_handler.callbacks
    twin.train()
    assert state_of(tmp_path / "vault").token == 1
    assert callback_of(run).session is None


@pytest.mark.parametrize("cls", [Trainer, Decorated, Notes])
def test_classes_are_pickled(cls: Any) -> None:
    """The exported class, a decorated one and subclasses of both are found again by pickle."""
    assert pickle.loads(pickle.dumps(cls)) is cls


def _rows() -> Any:
    from tests.trainer.kit import Tokens

    return Tokens()
