"""One rank of a training: an ordinary Trainer script on a tiny Llama, started with RANK and its kin in the environment.

Dropout, shuffling, accumulation and a decaying learning rate make every kind of lost state show in the weights.
Each rank writes a journal (one JSON object a line, which survives a SIGKILL): the step at which it started, the
ids of the samples of every forward pass, and the events of the vault. At the end it leaves a digest of the
weights and of the optimizer's state.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint.state_dict
import torch.distributed.fsdp
import transformers
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments

from tests.kit.inside import listen
from tests.kit.models import tiny_llama
from tests.ranks.frameworks import believe_in_accelerators, local, zero_config, zero_parts
from vaultlayer_hf import Settings
from vaultlayer_hf.session.start import relay
from vaultlayer_hf.state.capture import copier, copying, memory, recorded
from vaultlayer_hf.state.capture.writing import FileWriter
from vaultlayer_hf.trainer.async_save import fit
from vaultlayer_hf.trainer.async_save.capture import Capture
from vaultlayer_hf.trainer.trainer import Trainer

STEPS, EVERY, VOCAB = 10, 2, 64
WRAPPERS = {
    "ddp": "DistributedDataParallel",
    "fsdp-full": "FSDPNoting",
    "fsdp-sharded": "FSDPNoting",
    "zero2": "DeepSpeedEngine",
    "zero3": "DeepSpeedEngine",
}
"""The class of the wrapped model for each kind of training here; asserted in every run."""


class Journal:
    """Appends lines to a file, each in one write."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def note(self, **fields: Any) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")


class Tokens(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """40 rows of 8 fixed random tokens, each with its number."""

    def __init__(self) -> None:
        self.rows = torch.randint(0, VOCAB, (40, 8), generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index], "ids": torch.tensor(index)}


class Noting(LlamaForCausalLM):
    """A Llama that notes which samples it is trained on."""

    noted: Any = None

    def forward(self, *args: Any, ids: Any = None, **kwargs: Any) -> Any:
        if self.training and ids is not None and self.noted is not None:
            self.noted(ids.tolist())
        return super().forward(*args, **kwargs)


def model(hidden: int = 16) -> Noting:
    """About 7 thousand parameters."""
    return tiny_llama(
        VOCAB,
        hidden,
        layers=2,
        cls=Noting,
        max_position_embeddings=16,
        attention_dropout=0.2,
        tie_word_embeddings=False,
    )


class Script(TrainerCallback):
    """Notes the start, and carries out what the spec asks for: ``at`` = {event: {step: [action, ...]}}.

    An action is ``kill`` (SIGKILL of this rank), ``stop`` (SIGSTOP), ``sleep <s>``, ``touch <path>``,
    ``await <path>``, or any other word, which is raised.
    """

    def __init__(self, journal: Journal, at: dict[str, dict[str, list[str]]], pace: float) -> None:
        self.journal, self.at, self.pace = journal, at, pace

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.journal.note(start=state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.act("begin", state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.journal.note(step=state.global_step)
        time.sleep(self.pace)
        self.act("end", state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self.journal.note(loss=logs["loss"], of=state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.act("saved", state)

    def act(self, event: str, state: Any) -> None:
        for action in self.at.get(event, {}).get(str(state.global_step), ()):
            self.journal.note(action=action, event=event, step=state.global_step)
            act(action)


class Silent(Script):
    """The same without an answer to on_save, which might read the folder: it would have to be there by then."""

    on_save = TrainerCallback.on_save


def act(action: str) -> None:
    """Carry out one action of a spec."""
    name, _, value = action.partition(" ")
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif name == "sleep":
        time.sleep(float(value))
    elif name == "touch":
        Path(value).touch()
    elif name == "await":
        while not Path(value).exists():
            time.sleep(0.01)
    else:
        raise ValueError(action)


def arguments(kind: str, output: str, universal: bool = False, **more: Any) -> TrainingArguments:
    """Arguments of the common schedule, for this kind of training."""
    common: dict[str, Any] = {
        "output_dir": output,
        "use_cpu": True,
        "max_steps": STEPS,
        "save_steps": EVERY,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }
    if kind.startswith("zero"):
        common["deepspeed"] = _deepspeed(int(kind[4]), universal)
    elif kind == "alone":  # what a user forgets under torchrun on a CPU
        common["use_cpu"] = False
    else:
        common["ddp_backend"] = "gloo"
    if kind.startswith("fsdp"):
        full = kind == "fsdp-full"
        common["fsdp"] = "full_shard auto_wrap"
        common["fsdp_config"] = {
            **({"version": 1, "sync_module_states": False} if kind == "fsdp1" else {"version": 2}),
            "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
            "state_dict_type": "FULL_STATE_DICT" if full else "SHARDED_STATE_DICT",
        }
    made = TrainingArguments(**{**common, **more})
    if kind.startswith("fsdp"):
        believe_in_accelerators()
    return made


def _deepspeed(stage: int, universal: bool) -> dict[str, Any]:
    loads = {"checkpoint": {"load_universal": True}} if universal else {}
    names = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return zero_config(stage, **loads, **dict.fromkeys(names, "auto"))


def train(
    output: str,
    journal: str,
    *,
    kind: str = "ddp",
    vault: str | None = None,
    result: str | None = None,
    resume_from: str | None = None,
    settings: dict[str, Any] | None = None,
    at: dict[str, dict[str, list[str]]] | None = None,
    slow_rng: float = 0.0,
    before: list[str] | None = None,
    file_limit: int | None = None,
    pace: float = 0.0,
    passing: bool = False,
    beside: str = "",
    **more: Any,
) -> None:
    """Train this rank on a vault, or as the stock Trainer does where ``vault`` is None.

    ``slow_rng``: seconds that this rank waits before it writes its RNG state: other ranks' on_save fires before.
    ``before``: actions ahead of train(). ``file_limit``: bytes that a file may have, as where the disk is full.
    ``pace``: seconds that a step takes at least. ``passing``: nodes send each other files however small they are.
    ``beside``: saves run beside the training; see ``save_beside``. ``more`` goes to TrainingArguments.
    """
    torch.set_num_threads(1)
    if passing:
        relay.SMALLEST = relay.SMALL_FILE = 1
    notes = Journal(journal)
    notes.note(pid=os.getpid())
    if beside:
        save_beside(notes, beside)
        settings = {**(settings or {}), "async_save": "auto"}
    args = arguments(kind, output, **more)
    notes.note(joined=True)
    net = model()
    script = Silent if beside else Script
    cls: Any = Trainer if vault else transformers.Trainer
    given = {"resume": Settings(vault=vault, **(settings or {}))} if vault else {}
    trainer = cls(
        model=net, args=args, train_dataset=Tokens(), callbacks=[script(notes, at or {}, pace)], **given
    )
    net.noted = lambda ids: notes.note(at=trainer.state.global_step, ids=ids)
    if vault:
        listen(
            trainer,
            lambda event: notes.note(
                event=event.kind, message=event.message, about=event.fields.get("step"), time=time.time()
            ),
        )
    if slow_rng:
        _delay(trainer, "_save_rng_state", slow_rng)
    for action in before or ():
        act(action)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    trainer.train(resume_from_checkpoint=resume_from) if resume_from else trainer.train()
    wrapped = type(trainer.model_wrapped).__name__
    assert wrapped == WRAPPERS[kind], f"the model is wrapped as {wrapped}"
    assert torch.distributed.get_backend() == "gloo"
    notes.note(ended=trainer.state.global_step)
    if result:
        end = {"step": trainer.state.global_step, "wrapped": wrapped, "tensors": digests(trainer, kind)}
        Path(f"{result}.new").write_text(json.dumps(end))
        os.rename(f"{result}.new", result)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def save_beside(notes: Journal, how: str) -> None:
    """Have the tiny model's saves run beside the training, and note the size of each copy.

    Args:
        notes: where to.
        how: ``"well"``; ``"no barrier"``: copies are late, and nothing waits for them; ``"no room"``: for a copy;
            ``"unwritable"``: what is written beside the training fails, the first time.
    """
    # What delays a part of the save stands around the Trainer's method.
    fit.UNDERSTOOD = (
        *fit.UNDERSTOOD,
        __name__,
    )
    copier.SMALL = recorded.WRITTEN_AT_ONCE = 2**14
    start, run, write = copying.StateCopy.start, copying.StateCopy.run, Capture.run

    def noting(self: copying.StateCopy, watched: Any = (), **how: Any) -> None:
        notes.note(copied=self.size)
        start(self, watched, **how)

    def late(self: copying.StateCopy, pairs: Any) -> None:
        time.sleep(0.5)
        run(self, pairs)

    def fail(self: Capture, writer: FileWriter) -> None:
        Capture.run = write  # type: ignore[method-assign]
        raise OSError("a disk of this test")

    copying.StateCopy.start = noting  # type: ignore[method-assign]
    if how == "no barrier":
        copying.StateCopy.run = late  # type: ignore[method-assign]
        copying.StateCopy.hold_device = lambda self: None  # type: ignore[method-assign]
    elif how == "no room":
        memory.MARGIN = 2**60
    elif how == "unwritable":
        Capture.run = fail  # type: ignore[method-assign]


def _delay(trainer: Any, name: str, seconds: float) -> None:
    plain = getattr(trainer, name)

    def late(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return plain(*args, **kwargs)

    setattr(trainer, name, late)


def digests(trainer: Any, kind: str) -> dict[str, str]:
    """Return a digest of each tensor that this rank ends with: its share of the weights and the optimizer."""
    if kind.startswith("zero"):
        engine = trainer.model_wrapped
        tensors = {f"fp32 {i}": part for i, part in enumerate(zero_parts(engine.optimizer))}
        states = dict(enumerate(engine.optimizer.optimizer.state.values()))
    else:
        tensors = {name: local(value) for name, value in trainer.model_wrapped.state_dict().items()}
        states = trainer.optimizer.state_dict()["state"]
    for number, state in states.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer {number} {name}"] = local(value)
    return {name: _digest(value) for name, value in tensors.items()}


def _digest(value: torch.Tensor) -> str:
    data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode() + data).hexdigest()


def save_as_fsdp1(folder: str, journal: str) -> None:
    """Write on each rank, with torch's own code, the files that accelerate's FSDP 1 writes, in all its forms.

    Names as in accelerate.utils.fsdp_utils: ``sharded`` through torch.distributed.checkpoint, ``local`` and
    ``no-dcp`` by a file of each rank. FSDP 1 itself doesn't run on a CPU.
    """
    import torch.distributed as dist
    from torch.distributed import checkpoint
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    values = {"weight": distribute_tensor(torch.arange(32.0).reshape(8, 4), mesh, [Shard(0)])}
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        checkpoint.save(values, storage_writer=checkpoint.FileSystemWriter(f"{folder}/sharded/{name}"))
    rank = dist.get_rank()
    for form, names in (
        ("local", ("pytorch_model_fsdp", "optimizer_0")),
        ("no-dcp", ("pytorch_model_fsdp_0", "optimizer_0")),
    ):
        Path(folder, form).mkdir(parents=True, exist_ok=True)
        for name in names:
            torch.save(values["weight"].to_local(), f"{folder}/{form}/{name}_rank{rank}.bin")
    for form in ("sharded", "local", "no-dcp"):
        torch.save({}, f"{folder}/{form}/rng_state_{rank}.pth")
        if rank == 0:
            torch.save({}, f"{folder}/{form}/scheduler.pt")
            Path(folder, form, "trainer_state.json").write_text("{}")
    dist.destroy_process_group()


def main() -> None:
    """Be the rank that a launcher has started: ``python -m tests.ranks.train_ranks SPEC.json``.

    The file holds ``folder``, ``outputs`` (by rank), ``spec`` and ``per_rank``.
    """
    given = json.loads(Path(sys.argv[1]).read_text())
    rank = int(os.environ["RANK"])
    spec = {**given["spec"], **given.get("per_rank", {}).get(str(rank), {})}
    folder = given["folder"]
    train(given["outputs"][rank], f"{folder}/journal-{rank}", result=f"{folder}/result-{rank}", **spec)


if __name__ == "__main__":
    main()
