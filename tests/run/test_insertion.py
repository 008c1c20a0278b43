"""What `vl run` does to a Trainer, in the process: the same as ``resume=``, and nothing where that is there already."""

from __future__ import annotations

import logging
import math
import os
import shutil

import pytest
import torch
import transformers
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from tests.trainer import kit
from vaultlayer_hf import Settings, open_vault
from vaultlayer_hf.run.inside import hook
from vaultlayer_hf.run.inside import trainer as inside
from vaultlayer_hf.run.inside.unkept import FIRST_SAVE, UnkeptTraining
from vaultlayer_hf.run.inside.watch import NonFiniteLossError
from vaultlayer_hf.run.journal import read_beats, read_notes
from vaultlayer_hf.trainer.callback import VaultLayerCallback
from vaultlayer_hf.trainer.trainer import resumable

pytestmark = pytest.mark.filterwarnings("ignore")
CHANGED = (
    "__init__",
    "train",
    "_save_checkpoint",
    "training_step",
    "_inner_training_loop",
    "_maybe_log_save_evaluate",
)


class Stop(TrainerCallback):
    """Raises at the end of a step, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyError("crash")


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """An attempt's folder, as the ranks that `vl run` starts have it, and a vault in VAULTLAYER_VAULT."""
    folder = tmp_path / "attempt"
    folder.mkdir()
    monkeypatch.setattr(hook.report, "_folder", folder)
    monkeypatch.setattr(hook.report, "_pid", 0)
    monkeypatch.setattr(hook.report, "_beats", 0)
    monkeypatch.setattr(hook.report, "watch_uncaught", lambda: None)
    monkeypatch.setattr(inside, "_used", set())
    monkeypatch.setenv("VAULTLAYER_VAULT", str(tmp_path / "vault"))
    monkeypatch.setattr(logging.getLogger("vaultlayer_hf"), "propagate", True)
    return folder


@pytest.fixture
def changed(attempt, monkeypatch):
    """The Trainer as a script finds it under `vl run`: a class like it, so that no other test sees the change."""
    plain = transformers.Trainer
    monkeypatch.setattr(VaultLayerCallback, "pull", VaultLayerCallback.pull)  # put back at the end
    cls = type("Trainer", (plain,), {name: plain.__dict__[name] for name in CHANGED})
    hook.install(cls)
    inside.install()
    return cls


def started_at(attempt) -> int:
    """The step that the last training went on from."""
    return [line for line in read_notes(attempt)[0] if line["kind"] == "train"][-1]["step"]


def crash(cls, output, step=5):
    """Train until a step ends in an exception."""
    with pytest.raises(KeyError):
        kit.trainer(output, cls, callbacks=[Stop(step)]).train()


def fresh_process(monkeypatch) -> None:
    """Be as a new process, in which no Trainer has trained yet."""
    monkeypatch.setattr(inside, "_used", set())


def test_an_unedited_trainer_goes_on_from_the_vault(changed, attempt, tmp_path, monkeypatch) -> None:
    """train() without arguments resumes what the attempt before has committed, and ends as an unbroken run."""
    reference = kit.trainer(tmp_path / "reference", transformers.Trainer)
    reference.train(resume_from_checkpoint=None)
    crash(changed, tmp_path / "first")
    fresh_process(monkeypatch)
    again = kit.trainer(tmp_path / "second", changed)
    again.train(resume_from_checkpoint=None)
    assert started_at(attempt) == 4
    assert kit.weights(again.model) == kit.weights(reference.model)
    assert kit.state_of(tmp_path / "vault").finished == kit.STEPS


def test_the_vault_wins_over_what_the_script_finds_on_its_disk(
    changed, attempt, tmp_path, monkeypatch, caplog
) -> None:
    """get_last_checkpoint's folder, torn or not, doesn't count where the vault holds one; the log says which won."""
    caplog.set_level("INFO", "vaultlayer_hf")
    crash(changed, tmp_path / "output")
    torn = tmp_path / "output" / "checkpoint-6"
    shutil.copytree(tmp_path / "output" / "checkpoint-4", torn)
    (torn / "optimizer.pt").unlink()
    fresh_process(monkeypatch)
    found = get_last_checkpoint(str(tmp_path / "output"))
    assert found == str(torn), "stock would take the torn one, in silence"
    kit.trainer(tmp_path / "output", changed).train(resume_from_checkpoint=found)
    assert started_at(attempt) == 4
    assert "the vault wins over train(resume_from_checkpoint=" in caplog.text


@pytest.mark.parametrize("torn", [False, True])
def test_an_empty_vault_leaves_it_to_the_script(torn, changed, attempt, tmp_path, caplog) -> None:
    """A local checkpoint from before `vl run` is followed as the script says, but not half a one."""
    caplog.set_level("INFO", "vaultlayer_hf")
    with pytest.raises(KeyError):
        kit.trainer(tmp_path / "output", transformers.Trainer, callbacks=[Stop(5)]).train()
    if torn:
        (tmp_path / "output" / "checkpoint-4" / "optimizer.pt").unlink()
    found = get_last_checkpoint(str(tmp_path / "output"))
    kit.trainer(tmp_path / "output", changed).train(found)
    assert started_at(attempt) == (2 if torn else 4)
    assert ("lacks optimizer.pt" if torn else "is followed, as the script says") in caplog.text


def test_a_stage_that_is_skipped_keeps_its_vault(changed, attempt, tmp_path, monkeypatch, caplog) -> None:
    """A later start that begins with the second stage gives it a vault of its own, and finds that again."""
    caplog.set_level("INFO", "vaultlayer_hf")
    kit.trainer(tmp_path / "one", changed).train()
    fresh_process(monkeypatch)
    crash(changed, tmp_path / "two")
    assert kit.steps_of(tmp_path / "vault-2")[-1] == 4
    assert (
        f"/two has the vault file://{tmp_path / 'vault-2'}, since trainings in other folders" in caplog.text
    )
    fresh_process(monkeypatch)
    again = kit.trainer(tmp_path / "two", changed)
    again.train()
    assert (started_at(attempt), kit.state_of(tmp_path / "vault-2").finished) == (4, kit.STEPS)
    fresh_process(monkeypatch)  # and the first one, where it isn't skipped
    kit.trainer(tmp_path / "two", changed).train()
    kit.trainer(tmp_path / "one", changed).train()
    assert not (tmp_path / "vault-3").exists()
    assert (tmp_path / "one" / "checkpoint-8").is_dir()
    assert [one.step for one in kit.state_of(tmp_path / "vault").commits][-1] == kit.STEPS
    claims = [open_vault(str(tmp_path / name)).history() for name in ("vault", "vault-2")]
    assert [sum(one.kind == "claim" for one in found) for found in claims] == [2, 3]


@pytest.mark.parametrize("insert", ["0", "1"])
@pytest.mark.parametrize("stops", [True, False])
def test_a_training_that_a_callback_stops_is_noted_as_not_over(
    stops, insert, changed, attempt, tmp_path, monkeypatch
) -> None:
    """train() returns either way; whether that is the training's end is in the note."""
    monkeypatch.setenv("VAULTLAYER_RUN_INSERT", insert)

    class Stops(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if stops and state.global_step == 3:
                control.should_training_stop = True

    kit.trainer(tmp_path / "out", changed, callbacks=[Stops()]).train()
    found = [line for line in read_notes(attempt)[0] if line["kind"] == "trained"]
    assert [(line["step"], line["over"]) for line in found] == [(3, False) if stops else (kit.STEPS, True)]


def test_a_script_with_a_vault_of_its_own_is_left_alone(changed, attempt, tmp_path) -> None:
    """resume= and a VaultLayerCallback keep their vaults, and none is put beside them; both are reported."""
    kit.trainer(tmp_path / "one", resumable(changed), resume=str(tmp_path / "own")).train()
    callback = VaultLayerCallback(str(tmp_path / "other"))
    own = kit.trainer(tmp_path / "two", changed, callbacks=[callback])
    own.train(resume_from_checkpoint=callback.pull())
    assert not (tmp_path / "vault").exists()
    vaults = [line["vault"] for line in read_notes(attempt)[0] if line["kind"] == "train"]
    assert vaults == [f"file://{tmp_path / 'own'}", f"file://{tmp_path / 'other'}"]
    commits = [
        line for line in read_notes(attempt)[0] if line["kind"] == "vault" and line["event"] == "commit"
    ]
    assert commits


def test_a_second_trainer_has_a_vault_beside_the_first(changed, attempt, tmp_path) -> None:
    """A script that trains twice keeps both trainings, each in a vault of its own."""
    for name in ("one", "two"):
        kit.trainer(tmp_path / name, changed).train()
    assert kit.state_of(tmp_path / "vault").finished == kit.STEPS
    assert kit.state_of(f"{tmp_path / 'vault'}-2").finished == kit.STEPS


def test_a_fork_is_the_first_trainers(changed, attempt, tmp_path, monkeypatch) -> None:
    """VAULTLAYER_FORK begins an unedited script's run from another vault; a second Trainer is no fork of that."""
    origin = tmp_path / "origin"
    settings = Settings(vault=str(origin), keep_last=None)
    kit.trainer(tmp_path / "o", resume=settings, callbacks=[kit.Patient(origin)]).train()
    monkeypatch.setenv("VAULTLAYER_FORK", f"{origin}@4")
    kit.trainer(tmp_path / "1", changed).train()
    kit.trainer(tmp_path / "2", changed).train()
    assert kit.steps_of(tmp_path / "vault") == [6, 8]
    assert kit.steps_of(tmp_path / "vault-2")[-1] == 8
    claims = open_vault(str(tmp_path / "vault")).history(), open_vault(str(tmp_path / "vault-2")).history()
    assert ["fork" in history[0].detail for history in claims] == [True, False]


def test_without_insertion_it_is_only_watched(changed, attempt, tmp_path, monkeypatch) -> None:
    """--no-insert leaves the Trainer as it is, and its steps are reported all the same."""
    monkeypatch.setenv("VAULTLAYER_RUN_INSERT", "0")
    kit.trainer(tmp_path / "output", changed).train()
    assert not (tmp_path / "vault").exists()
    assert read_beats(attempt)[0]["step"] == kit.STEPS


def test_a_smaller_micro_batch_survives_a_checkpoint_of_the_larger_one(
    changed, attempt, tmp_path, monkeypatch
) -> None:
    """After a restart with half the micro-batch each step still sees the same samples, and the losses are the same."""
    # Epochs of whole global batches: with a rest, transformers 4 counts the steps of an epoch differently.
    sizes = {"per_device_train_batch_size": 4, "train_dataset": kit.Tokens(12)}

    def model():
        found = kit.model()
        for layer in found.model.layers:
            layer.self_attn.attention_dropout = 0.0
        return found

    reference = kit.trainer(tmp_path / "reference", transformers.Trainer, model=model(), **sizes)
    reference.train()
    with pytest.raises(KeyError):
        kit.trainer(tmp_path / "output", changed, model=model(), callbacks=[Stop(5)], **sizes).train()
    fresh_process(monkeypatch)
    monkeypatch.setenv("VAULTLAYER_RUN_DIVIDE", "2")
    again = kit.trainer(tmp_path / "output", changed, model=model(), **sizes)
    seen = []
    again.model.register_forward_pre_hook(
        lambda module, args, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    again.train()
    assert started_at(attempt) == 4
    assert set(seen) == {2}
    assert (again.args.per_device_train_batch_size, again.args.gradient_accumulation_steps) == (2, 2)
    assert again.state.global_step == kit.STEPS
    pairs = zip(losses(again), losses(reference), strict=True)
    assert all(math.isclose(mine, theirs, abs_tol=2e-3) for mine, theirs in pairs)


def losses(trainer) -> list[float]:
    """The losses of all steps."""
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def test_walking_back_reaches_the_step_that_is_asked_for(changed, attempt, tmp_path, monkeypatch) -> None:
    """The step that `vl run` names is gone on from, in a vault that was put in and in one of the script's own."""
    crash(changed, tmp_path / "output")
    monkeypatch.setenv("VAULTLAYER_RUN_AT", f"file://{tmp_path / 'vault'}@2")
    for cls, more in ((changed, {}), (resumable(changed), {"resume": str(tmp_path / "vault")})):
        fresh_process(monkeypatch)
        with pytest.raises(KeyError):
            kit.trainer(tmp_path / "output", cls, callbacks=[Stop(3)], **more).train()
        assert started_at(attempt) == 2


def test_a_second_training_of_an_unedited_trainer_is_left_as_it_is(changed, attempt, tmp_path) -> None:
    """A script that calls train() of one Trainer twice, for two phases, gets the weights that it gets without us."""
    ended = []
    for name, cls in (("a", changed), ("b", transformers.Trainer)):
        made = kit.trainer(tmp_path / name, cls)
        made.train()
        made.train()
        ended.append(kit.weights(made.model))
    assert ended[0] == ended[1]
    assert kit.state_of(tmp_path / "vault").finished == kit.STEPS


def test_walking_back_happens_once_in_a_process(changed, attempt, tmp_path, monkeypatch) -> None:
    """train() called again behind a failure goes on from what it has trained since it went back."""
    crash(changed, tmp_path / "output", 7)
    monkeypatch.setenv("VAULTLAYER_RUN_AT", f"file://{tmp_path / 'vault'}@2")
    fresh_process(monkeypatch)
    stop = Stop(5)
    run = kit.trainer(tmp_path / "output", changed, callbacks=[stop, kit.Patient(tmp_path / "vault")])
    with pytest.raises(KeyError):
        run.train()
    stop.step = 0
    run.train()
    assert started_at(attempt) == 4


class Poison(TrainerCallback):
    """Makes the loss nan at some steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        model.poisoned = state.global_step + 1 in self.steps


class Poisonable(transformers.LlamaForCausalLM):
    """A Llama whose loss can be nan while its weights stay as they are."""

    poisoned = False

    def forward(self, input_ids=None, labels=None, **kwargs):
        found = super().forward(input_ids=input_ids, labels=labels, **kwargs)
        if self.poisoned:
            found.loss = found.loss * 0 + torch.tensor(float("nan"))
        return found


def test_a_loss_that_stays_nan_ends_the_training(changed, attempt, tmp_path) -> None:
    """Two steps in a row are the end, told with the first of them, although the Trainer's log hides the nan."""
    model = Poisonable(kit.model().config)
    with pytest.raises(NonFiniteLossError, match="since step 5"):
        kit.trainer(tmp_path / "output", changed, model=model, callbacks=[Poison(5, 6)]).train()
    assert [line["step"] for line in read_notes(attempt)[0] if line["kind"] == "nonfinite"] == [5]
    errors = [line["type"] for line in read_notes(attempt)[0] if line["kind"] == "error"]
    assert errors == ["vaultlayer_hf.run.inside.watch.NonFiniteLossError"]
    assert kit.state_of(tmp_path / "vault").finished is None


def test_what_ends_train_is_noted_once(changed, attempt, tmp_path) -> None:
    """The exception of a step is in the notes with its traceback, once, however often it is raised on."""
    crash(changed, tmp_path / "output")
    errors = [line for line in read_notes(attempt)[0] if line["kind"] == "error"]
    assert [line["type"] for line in errors] == ["KeyError"]
    assert "raise KeyError" in errors[0]["traceback"]
    assert errors[0]["pid"] == os.getpid()


@pytest.mark.parametrize("trains", [False, True])
def test_a_training_that_nothing_keeps_is_named_at_the_first_save_that_it_misses(
    attempt, monkeypatch, capfd, trains
) -> None:
    """Optimizers that step for a minute, and no training that is reported: said once; where one is, nothing is said."""
    seconds = [0.0]
    unkept = UnkeptTraining(clock=lambda: seconds[0])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    optimizer.register_step_post_hook(unkept.stepped)
    monkeypatch.setattr(hook.report, "trains", False)
    optimizer.step()
    if trains:
        hook.report.note("train", seam="loop", step=0)
    for seconds[0] in (FIRST_SAVE - 1, FIRST_SAVE, 2 * FIRST_SAVE):
        optimizer.step()
    said = capfd.readouterr().err
    notes = [note for note in read_notes(attempt).get(0, []) if "nothing is kept" in str(note.get("message"))]
    assert (
        said.count("nothing is kept: 3 steps of an optimizer are done") == len(notes) == (0 if trains else 1)
    )


@pytest.mark.parametrize("calls_super", [False, True])
def test_a_loop_of_its_own_is_named_at_its_first_step(changed, attempt, tmp_path, capfd, calls_super) -> None:
    """A train() that never calls the Trainer's is named while there is time; one that does is kept without a word."""

    class Mine(changed):
        def train(self, **kwargs):
            if calls_super:
                return super().train(**kwargs)
            self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
            for self.state.global_step in (1, 2, 3):
                self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
            return None

    hook.report.watched = False
    kit.trainer(tmp_path / "out", cls=Mine, max_steps=2).train()
    said = capfd.readouterr().err
    notes = [note for note in read_notes(attempt).get(0, []) if "Mine.train()" in str(note.get("message"))]
    assert said.count("Mine.train() is a loop of its own") == len(notes) == (0 if calls_super else 1)
    assert [note["step"] for note in notes] == ([] if calls_super else [1])
    assert (tmp_path / "vault").exists() == calls_super
