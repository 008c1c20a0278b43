"""Cases of a next machine that isn't the same, and of its disk."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.cases.case import NOTHING, Bench, Verdict, case, tell
from tests.cases.training import ROWS, Begun, digest, doing, go, made
from tests.kit.disks import small_disk_at
from tests.trainer.kit import big_model, model, steps_of
from vaultlayer_hf import Settings


def adapted(side: str, out: str, vault: str | None, half: bool = False, dies: bool = False) -> None:
    """LoRA on a frozen base, in float32 or in bfloat16."""
    import peft

    base = model().to(torch.bfloat16 if half else torch.float32)
    config = peft.LoraConfig(
        r=2, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    begun = Begun()
    trainer = made(
        side,
        out,
        vault,
        die=(5, 4) if dies else None,
        callbacks=[begun],
        model=peft.get_peft_model(base, config),
        bf16=half,
    )
    go(trainer)
    tell([begun.steps, trainer.state.global_step])


@case(
    "base-in-another-dtype",
    "a LoRA adapter goes on with its frozen base in bfloat16 in place of float32",
    "it goes on from the adapter's checkpoint, and one line says that the base is another one",
    needs=("peft",),
)
def base_in_another_dtype(bench: Bench) -> Verdict:
    bench.play(adapted, dies=True)
    done = bench.play(adapted, "b", half=True)
    said = bool(done.said("bfloat16"))
    right = done.found == [[4], 8] and (said or not bench.ours)
    return Verdict(right, f"began at {done.found[0]}, said: {said}" if done.found else done.last)


def compiled(side: str, out: str, vault: str | None, dies: bool = False, compiles: bool = False) -> None:
    """The same model, compiled or not."""
    own = model()
    given: Any = torch.compile(own, backend="eager") if compiles else own
    trainer = made(side, out, vault, die=(5, 4) if dies else None, model=given, remove_unused_columns=False)
    go(trainer)
    tell(digest(own))


def _compiled(bench: Bench, then: bool) -> Verdict:
    expected = bench.play(compiled, "unbroken").found
    bench.play(compiled, dies=True, compiles=then)
    done = bench.play(compiled, "b", compiles=not then)
    equal = done.found == expected
    return Verdict(equal, f"weights equal: {equal}" if done.code == 0 else done.last)


@case(
    "compiled-later",
    "the first start trains a model as it is, the second torch.compile of it",
    "it goes on from the checkpoint, with the weights of an unbroken run",
)
def compiled_later(bench: Bench) -> Verdict:
    return _compiled(bench, then=False)


@case(
    "compiled-before",
    "the first start trains torch.compile of a model, the second the model as it is",
    "it goes on from the checkpoint, with the weights of an unbroken run",
)
def compiled_before(bench: Bench) -> Verdict:
    return _compiled(bench, then=True)


def newer(side: str, out: str, vault: str | None, dies: bool = False) -> None:
    """A trainer_state.json with a field of a later transformers."""

    def add(state: Any) -> None:
        path = Path(out, f"checkpoint-{state.global_step}", "trainer_state.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "invented_later": 1}))

    trainer = made(
        side,
        out,
        vault,
        die=(5, 4) if dies else None,
        callbacks=[doing(on_save=add)] if dies else [],
    )
    go(trainer)
    tell(trainer.state.global_step)


@case(
    "newer-trainer-state",
    "trainer_state.json holds a field that this transformers doesn't know",
    "it goes on, and one line names both versions; or one sentence refuses it with both",
)
def newer_trainer_state(bench: Bench) -> Verdict:
    bench.play(newer, dies=True)
    done = bench.play(newer, "b")
    said = any(line.count(transformers.__version__) == 2 for line in done.said("invented_later"))
    return Verdict(said and done.found == 8, f"trained to {done.found}, said: {said}, {done.last[:80]}")


def big(side: str, out: str, vault: str | None) -> None:
    """A training whose checkpoints take 6.4 MB."""
    trainer = go(made(side, out, vault, model=big_model()))
    tell([trainer.state.global_step, digest(trainer.model)])


@case(
    "disk-full",
    "output_dir is on a disk that the second checkpoint doesn't fit on (needs root)",
    "that checkpoint is lost, which is said, and training ends with the weights of an unbroken run",
)
def disk_full(bench: Bench) -> Verdict:
    expected = bench.play(big, "unbroken").found
    with small_disk_at(bench.folder / "disk", "9m"):
        done = bench.play(big, "disk/out")
    held = steps_of(bench.vault) if bench.ours else "none"
    return Verdict(done.found == expected, f"exit {done.code}, commits {held}, {done.last[:80]}")


def full_vault(side: str, out: str, vault: str | None) -> None:
    """A training whose vault's disk is full at the end."""
    assert vault is not None

    def fill(state: Any) -> None:
        if state.global_step == 7:
            with contextlib.suppress(OSError), open(Path(vault).with_name("ballast"), "wb", 0) as ballast:
                while True:  # the upload thread takes some of it meanwhile
                    ballast.write(bytes(4096))

    settings = Settings(vault=vault, flush_timeout=3)
    trainer = made(side, out, vault, settings=settings, callbacks=[doing(on_step_end=fill)])
    go(trainer)
    tell(trainer.state.global_step)


@case(
    "vault-full-at-the-end",
    "the vault's own disk is full when training ends (needs root)",
    "it is said what is waited for and why, and an error says what isn't in the vault",
)
def vault_full_at_the_end(bench: Bench) -> Verdict:
    if not bench.ours:
        return NOTHING
    with small_disk_at(bench.folder / "disk", "4m") as disk:
        done = bench.play(full_vault, vault_at=str(disk / "vault"))
    waits, error = done.said("waiting up to"), done.said("isn't in the vault")
    return Verdict(
        done.found == 8 and bool(waits) and bool(error),
        f"exit {done.code}, said {bool(waits)}, {bool(error)}",
    )


def vision(side: str, out: str, vault: str | None, kind: str, dies: bool = False) -> None:
    """A model whose files have other names than its modules."""
    from tests.architectures.tiny import architectures, small_model

    own = small_model(kind, architectures()[kind], 0)
    if kind == "vit":
        size = own.config.image_size
        generator = torch.Generator().manual_seed(1)
        rows: list[Any] = [
            {"pixel_values": torch.rand(3, size, size, generator=generator), "labels": number % 2}
            for number in range(20)
        ]
    else:
        rows = ROWS
    trainer = made(side, out, vault, die=(5, 4) if dies else None, model=own, train_dataset=rows)
    go(trainer)
    tell(digest(own))


def _renamed(bench: Bench, kind: str) -> Verdict:
    expected = bench.play(vision, "unbroken", kind=kind).found
    bench.play(vision, kind=kind, dies=True)
    done = bench.play(vision, "b", kind=kind)
    equal = expected is not None and done.found == expected
    return Verdict(equal, f"weights equal: {equal}" if done.code == 0 else done.last)


@case(
    "renamed-vit",
    "a Trainer's resume of ViT, which transformers 5 saves under other names than it has",
    "the weights of an unbroken run",
)
def renamed_vit(bench: Bench) -> Verdict:
    return _renamed(bench, "vit")


@case(
    "renamed-qwen3-moe",
    "the same of a mixture of experts",
    "the weights of an unbroken run",
)
def renamed_qwen3_moe(bench: Bench) -> Verdict:
    return _renamed(bench, "qwen3_moe")


def many(side: str, out: str, vault: str | None) -> None:
    """How much of each of thirty architectures a resume loads."""
    from tests.architectures.table import rows
    from tests.architectures.tiny import architectures

    transformers.logging.set_verbosity_error()
    known = architectures()
    found = [row for row in rows((kind, known[kind]) for kind in _MANY if kind in known) if not row.why]
    tell([[row.kind, row.stock, row.ours] for row in found])


_MANY = [
    "llama",
    "bert",
    "vit",
    "mixtral",
    "qwen3_moe",
    "qwen2_moe",
    "olmoe",
    "swin",
    "dinov2",
    "deit",
    "beit",
    "videomae",
    "esm",
    "clip",
    "roberta",
    "distilbert",
    "gpt2",
    "gemma3_text",
    "qwen3",
    "wav2vec2",
    "whisper",
    "segformer",
    "nomic_bert",
    "modernbert",
    "deberta-v2",
    "t5",
    "siglip",
    "yolos",
    "vit_mae",
    "granitemoe",
    "deepseek_v3",
]


@case(
    "architectures",
    "a Trainer's resume of thirty architectures; all: python -m tests.architectures",
    "every tensor that the checkpoint holds is in the model",
)
def architectures_loaded(bench: Bench) -> Verdict:
    found = bench.play(many).found
    place = 2 if bench.ours else 1
    partly = [row[0] for row in found if row[place] != 0]
    return Verdict(
        not partly,
        f"{len(found) - len(partly)} of {len(found)} whole" + (f"; not {' '.join(partly)}" if partly else ""),
    )
