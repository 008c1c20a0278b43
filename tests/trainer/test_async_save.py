"""Saves beside the training: the same files as stock's, whole or not there; stock's own save where it isn't safe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import TrainerCallback

from tests.trainer.kit import STEPS, Do, Recorder, Tokens, big_model, model, steps_of, trainer
from tests.trainer.test_unchanged import timeless
from vaultlayer_hf import Settings
from vaultlayer_hf.state.capture import copier, copying
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.state.capture.memory import fits, free_memory
from vaultlayer_hf.state.capture.recorded import Recorded
from vaultlayer_hf.state.capture.writing import FileWriter
from vaultlayer_hf.trainer.async_save.capture import Capture
from vaultlayer_hf.trainer.async_save.facts import reader_of_folder
from vaultlayer_hf.trainer.async_save.fit import Facts, choose
from vaultlayer_hf.vault.workspace import workspace

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:mtime may not be reliable:UserWarning",
)
OURS = {"vaultlayer_data_0.pt", "vaultlayer_digests_0.json", "vaultlayer_asked.json"}
ADDED = "vaultlayer_added"


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have models of a few MiB copied, whose state is written at once otherwise."""
    monkeypatch.setattr(copier, "SMALL", 2**20)


@pytest.fixture(autouse=True)
def _no_time_in_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of transformers 4 hold the time at which they were made, in the folder of their logs."""
    if hasattr(transformers.training_args, "default_logdir"):
        monkeypatch.setattr(transformers.training_args, "default_logdir", lambda: "runs")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each copy that is made, in bytes."""
    made: list[int] = []
    start = copying.StateCopy.start

    def noted(self: copying.StateCopy, *args: Any, **how: Any) -> None:
        made.append(self.size)
        start(self, *args, **how)

    monkeypatch.setattr(copying.StateCopy, "start", noted)
    return made


def contents(output_dir: Path) -> dict[str, str]:
    """A digest of each file of each checkpoint, but for ours; of a trainer state without what a clock has measured."""
    found = {}
    for path in sorted(output_dir.glob("checkpoint-*/**/*")):
        if not path.is_file() or path.name in OURS or path.parent.name == ADDED:
            continue
        data = path.read_bytes()
        if path.name == "trainer_state.json":
            state = json.loads(data)
            state["log_history"] = timeless(state["log_history"])
            data = json.dumps(state).encode()
        found[str(path.relative_to(output_dir))] = hashlib.sha256(data).hexdigest()
    return found


def asked(vault: Path) -> Settings:
    """Settings that ask for saves beside the training."""
    return Settings(vault=str(vault), async_save="auto", keep_last=None)


def lost_saves(heard: Recorder) -> list[str]:
    """What was said of saves that came to nothing, but for those that a newer one overtook before its upload."""
    return [event.message for event in heard.of("abandon") if "is newer" not in event.message]


def local(output_dir: Path) -> list[int]:
    """Steps of the checkpoint folders."""
    return sorted(int(path.name.partition("-")[2]) for path in output_dir.glob("checkpoint-*"))


class Normed(torch.nn.Module):
    """A model with running statistics, which a forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Embedding(64, 4096)
        self.norm = torch.nn.BatchNorm1d(4096)
        self.head = torch.nn.Linear(4096, 64)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.norm(self.inner(input_ids).mean(1)))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels[:, 0]), "logits": logits}


def with_lora() -> Any:
    """An adapter of more than a MiB on a Llama."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model(vocab=64, hidden=1024), config)


def in_shards() -> Any:
    """A Llama that saves its weights in several files."""
    made = big_model()
    save = made.save_pretrained

    def save_pretrained(*args: Any, **kwargs: Any) -> Any:
        return save(*args, **{**kwargs, "max_shard_size": "1300KB"})

    made.save_pretrained = save_pretrained
    return made


def untied() -> Any:
    """A Llama whose head has weights of its own."""
    made = big_model()
    made.config.tie_word_embeddings = False
    made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
    return made


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tied weights": (big_model, {}),
    "untied": (untied, {}),
    "shards": (in_shards, {}),
    "accumulation": (big_model, {"gradient_accumulation_steps": 3}),
    "lora": (with_lora, {}),
    "running statistics": (Normed, {}),
    "the best and a limit": (
        big_model,
        {
            "load_best_model_at_end": True,
            "save_total_limit": 1,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "learning_rate": 0.5,
            "eval_dataset": Tokens(4),
        },
    ),
    "each epoch": (big_model, {"save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 3}),
    "each step": (big_model, {"save_steps": 1, "save_total_limit": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_stocks(kind: str, tmp_path: Path, copies: list[int]) -> None:
    """Every file of every checkpoint has the bytes that the stock Trainer writes, and training comes to the same."""
    make, more = KINDS[kind]
    out = tmp_path / "out"
    stock = trainer(out, cls=transformers.Trainer, model=make(), **more)
    stock.train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    run = trainer(out, resume=asked(tmp_path / "vault"), model=make(), **more)
    heard = Recorder(run)
    run.train()
    assert copies
    assert contents(out) == expected
    for name, tensor in stock.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name])
    assert not [event.message for event in heard.events if "async_save" in event.message]
    assert not lost_saves(heard)
    assert not list(workspace(out).glob("pending-*"))


def test_a_small_state_is_written_at_once(
    tmp_path: Path, copies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writing takes milliseconds there is nothing to gain: the checkpoint is there when the save returns."""
    monkeypatch.setattr(copier, "SMALL", 2**25)
    out = tmp_path / "out"
    trainer(out, cls=transformers.Trainer, model=big_model()).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    trainer(out, resume=asked(tmp_path / "vault"), model=big_model()).train()
    assert contents(out) == expected
    assert not copies


def test_sft(tmp_path: Path, copies: list[int]) -> None:
    """The files of TRL's SFTTrainer are stock's, too."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from vaultlayer_hf import resumable

    rows = datasets.Dataset.from_dict({"input_ids": Tokens().rows.tolist()})
    out = tmp_path / "out"

    def made(cls: Any, **more: Any) -> Any:
        args = trl.SFTConfig(
            output_dir=str(out),
            use_cpu=True,
            max_steps=4,
            save_steps=2,
            report_to="none",
            disable_tqdm=True,
            bf16=False,
            per_device_train_batch_size=2,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            gradient_checkpointing=False,
            seed=3,
            dataloader_pin_memory=False,
        )
        collate = _collate
        return cls(
            model=big_model(),
            args=args,
            train_dataset=rows,
            data_collator=collate,
            processing_class=_words(),
            **more,
        )

    made(trl.SFTTrainer).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    made(resumable(trl.SFTTrainer), resume=asked(tmp_path / "vault")).train()
    assert copies
    assert contents(out) == expected


def _collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def _words() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{number}": number for number in range(62)} | {"<unk>": 62, "<eos>": 63}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )


def slow_copy(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.3) -> None:
    """Have each copy beside the training begin late, behind the next forward and backward pass."""
    run = copying.StateCopy.run

    def late(self: copying.StateCopy, pairs: Any) -> None:
        time.sleep(seconds)
        run(self, pairs)

    monkeypatch.setattr(copying.StateCopy, "run", late)


def test_the_step_waits_for_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is slower than the forward and backward pass holds what the state was at the save."""
    out = tmp_path / "out"
    trainer(out, cls=transformers.Trainer, model=big_model(), max_steps=6).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    slow_copy(monkeypatch)
    trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), max_steps=6).train()
    assert contents(out) == expected


def test_a_step_that_does_not_wait_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything in front of the step, a torn copy is noticed: it is no checkpoint, and is never committed."""
    slow_copy(monkeypatch)
    monkeypatch.setattr(copying.StateCopy, "hold_device", lambda self: None)
    out = tmp_path / "out"
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), max_steps=5)
    heard = Recorder(run)
    run.train()
    (lost,) = lost_saves(heard)
    assert "checkpoint-4" in lost  # that of step 2 was over before its save returned
    assert "the optimizer stepped before the copy was over" in lost
    assert local(out) == [2, 5]
    assert set(steps_of(tmp_path / "vault")) <= {2, 5}


class Average(TrainerCallback):
    """Swaps other weights in for the time between two events, in a way that torch doesn't count as a change."""

    def __init__(self, event: str) -> None:
        setattr(self, event, self._swap)

    def _swap(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for parameter in kwargs["model"].parameters():
            parameter.data.add_(1e-3)


@pytest.mark.parametrize("event", ["on_step_begin", "on_pre_optimizer_step", "on_epoch_end"])
def test_callbacks_that_change_the_weights(
    event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another callback does to the weights behind a save isn't in that save's files."""
    out = tmp_path / "out"
    more = {"max_steps": 6, "save_steps": 2}
    trainer(out, cls=transformers.Trainer, model=big_model(), callbacks=[Average(event)], **more).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    slow_copy(monkeypatch, 0.1)
    trainer(
        out, resume=asked(tmp_path / "vault"), model=big_model(), callbacks=[Average(event)], **more
    ).train()
    assert contents(out) == expected


def test_the_folder_is_there_when_others_hear_of_the_save(tmp_path: Path) -> None:
    """A callback that reads the checkpoint's folder in on_save finds it whole."""
    out, found = tmp_path / "out", []
    look = Do(on_save=lambda state: found.append(contents(out).keys() >= wanted(state.global_step)))

    def wanted(step: int) -> set[str]:
        return {
            f"checkpoint-{step}/{name}"
            for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")
        }

    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), callbacks=[look])
    heard = Recorder(run)
    run.train()
    assert found == [True] * (STEPS // 2)
    (said,) = [event.message for event in heard.events if "async_save" in event.message]
    assert "saves keep training waiting until they are written: Do.on_save may read" in said


@pytest.mark.parametrize(
    ("tracker", "attribute", "reading", "other"),
    [
        ("WandbCallback", "_log_model", "checkpoint", "end"),
        ("DVCLiveCallback", "_log_model", "all", True),
        ("ClearMLCallback", "_log_model", True, False),
        ("TrackioCallback", "", None, None),
    ],
)
def test_trackers_that_read_the_folder(tracker: str, attribute: str, reading: Any, other: Any) -> None:
    """A save waits for those of transformers' trackers that upload checkpoints, not for those that are told losses."""
    made = object.__new__(getattr(transformers.integrations.integration_utils, tracker, TrainerCallback))
    assert reader_of_folder([made]) == (f"{tracker}.on_save" if attribute else "")
    if attribute:
        setattr(made, attribute, SimpleNamespace(value=other))
        assert not reader_of_folder([made])
        setattr(made, attribute, SimpleNamespace(value=reading))
        assert reader_of_folder([made])


class EndsWithTheEpoch(TrainerCallback):
    """Ends the training at the end of its first epoch."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = True


def test_the_best_one_is_there_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends a training while its best checkpoint is being written ends it with the weights of that one."""
    more = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 4,
        "eval_dataset": Tokens(4),
        "train_dataset": Tokens(8),
        "callbacks": [EndsWithTheEpoch()],
    }
    out = tmp_path / "out"
    write = FileWriter.write_file

    def late(self: FileWriter, one: Recorded, copy_of: Any) -> Any:
        time.sleep(0.3)
        return write(self, one, copy_of)

    monkeypatch.setattr(FileWriter, "write_file", late)
    loaded = []
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), **more)
    load = run._load_best_model
    run._load_best_model = lambda: (loaded.append((out / "checkpoint-4").is_dir()), load())
    run.train()
    assert run.state.global_step == 4
    assert run.state.best_model_checkpoint == str(out / "checkpoint-4")
    assert loaded == [True]


def test_what_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    """A file that can't be written costs that checkpoint; the next save is stock's, those after it are beside again."""
    write, torn = Capture.run, []

    def failing(self: Capture, writer: FileWriter) -> None:
        if not torn:
            torn.append(self.target.name)
            raise OSError("no such luck")
        write(self, writer)

    monkeypatch.setattr(Capture, "run", failing)
    out = tmp_path / "out"
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), max_steps=9)
    heard = Recorder(run)
    run.train()
    (lost,) = lost_saves(heard)
    assert "no such luck" in lost
    assert torn == ["checkpoint-2"]
    assert local(out) == [4, 6, 8, 9]
    assert len(copies) == 3  # of the steps 2, 6 and 8
    assert not list(workspace(out).glob("pending-*"))


def test_a_nan_is_found_in_the_copy(tmp_path: Path, copies: list[int]) -> None:
    """Whether the state is finite is found out beside the training, and said of the checkpoint that it is of."""

    def poison(state: Any) -> None:
        if state.global_step == 4:
            with torch.no_grad():
                next(run.model.parameters()).fill_(float("nan"))

    run = trainer(
        tmp_path / "out",
        resume=asked(tmp_path / "vault"),
        model=big_model(),
        callbacks=[Do(on_step_end=poison)],
    )
    heard = Recorder(run)
    run.train()
    assert copies
    (said,) = [event.message for event in heard.of("notice") if "isn't finite" in event.message]
    assert said.startswith("checkpoint-4 isn't finite")


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]) -> None:
    """With too little memory for a copy saves are stock's, and the reason is said once."""
    monkeypatch.setattr(copier, "free_memory", lambda: 100 * 2**20)
    run = trainer(tmp_path / "out", resume=asked(tmp_path / "vault"), model=big_model())
    heard = Recorder(run)
    run.train()
    (said,) = [event.message for event in heard.events if "async_save" in event.message]
    assert "host memory" in said
    assert not copies
    assert local(tmp_path / "out") == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("facts", "mode", "why"),
    [
        ({}, "overlapped", ""),
        ({"wanted": False}, "waiting", ""),
        ({"engine": "DeepSpeed"}, "waiting", "DeepSpeed"),
        ({"pushes": True}, "waiting", "push_to_hub"),
        ({"away": True}, "waiting", "device"),
        ({"saved_by": ("my_script.save_model",)}, "waiting", "my_script.save_model"),
        (
            {"saved_by": ("transformers.trainer._save", "trl.trainer.sft_trainer._save_checkpoint")},
            "overlapped",
            "",
        ),
        ({"saved_by": ("trl.trainer.grpo_trainer._save_checkpoint",)}, "waiting", "grpo_trainer"),
        ({"optim": "galore_adamw_layerwise"}, "copied", "backward"),
        ({"optim": "adalomo"}, "copied", "backward"),
        ({"steps_in_backward": True}, "copied", "backward"),
        ({"swaps_for_evaluation": True}, "copied", "evaluation"),
        ({"has_step_hooks": False}, "copied", "in front of"),
        ({"trained_by": ("my_script.training_step",)}, "copied", "my_script.training_step"),
    ],
)
def test_where_it_is_safe(facts: dict[str, Any], mode: str, why: str) -> None:
    """Each thing that makes the overlap unsafe is named, with what is done in its place."""
    fit = choose(dataclasses.replace(Facts(), **facts))
    assert fit.mode == mode
    assert why in fit.reason
    assert bool(fit.reason) == bool(why)


class Closed(torch.optim.SGD):
    """An optimizer of a script's own that answers only what it is meant for."""

    @property
    def eval(self) -> None:
        raise RuntimeError("what for?")


def test_what_cannot_be_looked_into(tmp_path: Path) -> None:
    """Whatever an optimizer of the script's own raises there, saves are stock's, and that is said."""
    made = big_model()
    optimizer = Closed(made.parameters(), lr=0.1)
    run = trainer(
        tmp_path,
        model=made,
        resume=asked(tmp_path / "vault"),
        optimizers=(optimizer, None),
        max_steps=2,
        save_steps=2,
    )
    heard = Recorder(run)
    run.train()
    assert steps_of(tmp_path / "vault") == [2]
    (said,) = [event.message for event in heard.events if "async_save" in event.message]
    assert "can't be looked into: RuntimeError: what for?" in said


class OwnSave(transformers.Trainer):
    """A Trainer that writes a file of its own into each checkpoint."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        assert output_dir is not None
        assert (Path(output_dir) / "model.safetensors").is_file()
        (Path(output_dir) / "own.txt").write_text("own")


def test_a_save_of_the_scripts_own(tmp_path: Path, copies: list[int]) -> None:
    """A script that overrides a part of the save has stock's save, and is told so."""
    from vaultlayer_hf import resumable

    run = trainer(
        tmp_path / "out", cls=resumable(OwnSave), resume=asked(tmp_path / "vault"), model=big_model()
    )
    heard = Recorder(run)
    run.train()
    assert [event for event in heard.events if "save_model" in event.message]
    assert not copies
    assert local(tmp_path / "out") == [2, 4, 6, 8]


def test_a_step_inside_the_backward_pass(tmp_path: Path, copies: list[int]) -> None:
    """With an optimizer's step hidden in hooks behind the gradients the copy is over before the save returns."""
    made = big_model()
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda parameter: None)
        for parameter in made.parameters()
    ]
    run = trainer(tmp_path / "out", resume=asked(tmp_path / "vault"), model=made)
    heard = Recorder(run)
    run.train()
    assert [event for event in heard.events if "backward" in event.message]
    assert copies
    assert local(tmp_path / "out") == [2, 4, 6, 8]
    assert handles


def test_memory_that_is_free(tmp_path: Path) -> None:
    """The least of host, cgroup and the process's own limit counts; a cgroup's file cache is as good as free."""
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    for folder in (proc / "self", groups / "a" / "b"):
        folder.mkdir(parents=True)
    assert free_memory(tmp_path / "nothing", tmp_path / "nothing") in (
        None,
        free_memory(tmp_path / "no", groups),
    )
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert free_memory(proc, groups) == 8000 * 1024
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    (groups / "a" / "memory.max").write_text("5000000\n")
    (groups / "a" / "memory.current").write_text("4000000\n")
    (groups / "a" / "memory.stat").write_text("anon 100\ninactive_file 300000\nactive_file 200000\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "b" / "memory.current").write_text("4000000\n")
    assert free_memory(proc, groups) == 1500000
    assert fits(2**20, None)
    assert fits(2**20, 2**30)
    assert not fits(2**30, 2**30)
    assert not fits(1, 2**20)


def test_nothing_is_said_where_nobody_asked() -> None:
    """The default is stock's save, without a word."""
    assert choose(Facts(wanted=False, engine="FSDP")) == Fit("waiting")
