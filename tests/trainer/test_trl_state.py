"""What TRL's Trainers hold outside their model comes back: runs that are broken off end as unbroken ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.kit.models import tiny_llama
from tests.trainer.kit import Boom, FailAt, Patient, Recorder, weights
from vaultlayer_hf import resumable
from vaultlayer_hf.run.inside.micro_batch import divide

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # trl's own warnings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with a tokenizer, from which a reference model is loaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("base")
    vocabulary = {f"w{number}": number for number in range(62)} | {"<pad>": 62, "<eos>": 63}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")
    words.save_pretrained(folder)
    tiny_llama(64, 16, max_position_embeddings=64, pad_token_id=62, eos_token_id=63).save_pretrained(folder)
    return folder


def arguments(cls: Any, out: Path, **more: Any) -> Any:
    """Arguments of 12 steps, with a save every 3."""
    common = {"output_dir": str(out), "use_cpu": True, "max_steps": 12, "save_steps": 3, "logging_steps": 1}
    common |= {"report_to": "none", "per_device_train_batch_size": 2, "learning_rate": 1e-2, "seed": 3}
    common |= {
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }
    return cls(**{**common, **more})


def grpo(base: Path, out: Path, vault: Path | None, *callbacks: Any, **more: Any) -> Any:
    """GRPO, whose completions are used over 8 steps."""
    return _generating("GRPO", base, out, vault, callbacks, **more)


def rloo(base: Path, out: Path, vault: Path | None, *callbacks: Any, **more: Any) -> Any:
    """RLOO, whose completions are used over 8 steps, with a reference model that follows the trained one."""
    synced = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5}
    return _generating("RLOO", base, out, vault, callbacks, **synced, **more)


def _generating(
    name: str, base: Path, out: Path, vault: Path | None, callbacks: Iterable[Any], by: int = 1, **more: Any
) -> Any:
    more = {"steps_per_generation": 4, "num_iterations": 2, **more}
    args = arguments(
        getattr(trl, f"{name}Config"), out, num_generations=2, max_completion_length=8, beta=0.04, **more
    )
    divide(args, by)

    def reward(completions: list[str], **kwargs: Any) -> list[float]:
        return [float(sum(len(word) for word in text.split())) for text in completions]

    return resumable(getattr(trl, f"{name}Trainer"))(
        model=transformers.LlamaForCausalLM.from_pretrained(base),
        args=args,
        reward_funcs=reward,
        train_dataset=datasets.Dataset.from_list([{"prompt": f"w{n} w{n + 1}"} for n in range(20)]),
        processing_class=transformers.AutoTokenizer.from_pretrained(base),
        resume=vault,
        callbacks=list(callbacks),
    )


def dpo(base: Path, out: Path, vault: Path | None, *callbacks: Any, **more: Any) -> Any:
    """DPO, whose reference model follows the trained one."""
    args = arguments(
        trl.DPOConfig, out, sync_ref_model=True, ref_model_sync_steps=2, ref_model_mixup_alpha=0.5, **more
    )
    rows = [{"prompt": f"w{n}", "chosen": f" w{n + 1} w3", "rejected": f" w{n + 2} w5"} for n in range(20)]
    return resumable(trl.DPOTrainer)(
        model=transformers.LlamaForCausalLM.from_pretrained(base),
        ref_model=transformers.LlamaForCausalLM.from_pretrained(base),
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(base),
        resume=vault,
        callbacks=list(callbacks),
    )


def bema(base: Path, out: Path, vault: Path | None, *callbacks: Any, **more: Any) -> Any:
    """SFT with BEMA's averages, which begin at step 2 and move each second step."""
    rows = [{"text": f"w{n} w{n + 1} w{n + 2} w4"} for n in range(20)]
    return resumable(trl.SFTTrainer)(
        model=transformers.LlamaForCausalLM.from_pretrained(base),
        args=arguments(trl.SFTConfig, out, max_length=16, **more),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(base),
        resume=vault,
        callbacks=[trl.BEMACallback(update_freq=2, update_after=2), *callbacks],
    )


def ended(run: Any) -> dict[str, Any]:
    """Train, and return all that a run has come to."""
    run.train()
    found = {"weights": weights(run.model), "losses": losses(run)}
    if getattr(run, "ref_model", None) is not None:
        found["reference"] = weights(run.ref_model)
    for callback in run.callback_handler.callbacks:
        if isinstance(callback, trl.BEMACallback):
            found["average"] = weights(callback.running_model)
            found["ema"] = [tensor.sum().item() for tensor in callback.ema_params]
    return found


def losses(run: Any) -> list[Any]:
    """What was logged of each step, without what a clock says."""
    told = ("time", "runtime", "per_second", "vault/", "flos")
    return [
        {name: value for name, value in entry.items() if not any(word in name for word in told)}
        for entry in run.state.log_history[:-1]
    ]


@pytest.mark.parametrize("make", [grpo, rloo, dpo, bema])
def test_it_ends_as_an_unbroken_run(make: Any, base: Path, tmp_path: Path) -> None:
    """Broken off twice, within generations, between syncs and updates; weights, references, averages and logs agree."""
    unbroken = ended(make(base, tmp_path / "u", None))
    vault = tmp_path / "vault"
    for number, step in enumerate((5, 10)):
        with pytest.raises(Boom):
            make(base, tmp_path / str(number), vault, Patient(vault), FailAt(step)).train()
    again = make(base, tmp_path / "b", vault)
    seen = Recorder(again)
    assert ended(again) == unbroken
    assert not seen.of("inexact")


@pytest.mark.parametrize("make", [grpo, rloo])
@pytest.mark.parametrize(
    "more",
    [{}, {"steps_per_generation": None, "num_iterations": 1}, {"max_steps": -1, "num_train_epochs": 0.3}],
    ids=["used over 8 steps", "used once", "epochs"],
)
def test_with_half_the_micro_batch_it_trains_on_the_same(
    make: Any, more: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    """With `vl run`'s smaller micro-batch all rows of each generation are trained on, afresh or from a checkpoint.

    Also with the whole one from such a checkpoint, as the next `vl run` begins with it.
    """
    unbroken = make(base, tmp_path / "u", None, **more)
    ended(unbroken)
    wanted = [entry["loss"] for entry in losses(unbroken)]
    for number, (first, then) in enumerate(((2, 2), (1, 2), (2, 1))):
        vault = tmp_path / f"vault-{number}"
        with pytest.raises(Boom):
            make(base, tmp_path / f"a{number}", vault, Patient(vault), FailAt(5), by=first, **more).train()
        again = make(base, tmp_path / f"b{number}", vault, by=then, **more)
        ended(again)
        assert [entry["loss"] for entry in losses(again)] == pytest.approx(wanted, abs=1e-3)


def test_an_engine_of_its_own_is_said(base: Path, tmp_path: Path) -> None:
    """Of vLLM's random numbers nobody has a state: a resume says that its generations may differ."""
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        grpo(base, tmp_path / "a", vault, Patient(vault), FailAt(4)).train()
    again = grpo(base, tmp_path / "b", vault, max_steps=6)
    seen = Recorder(again)

    class Pretend(transformers.TrainerCallback):
        """Ahead of the vault's callback this Trainer says that it generates by vLLM."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            again.use_vllm = True

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            again.use_vllm = False

    again.add_callback(Pretend())
    again.train()
    assert len([event for event in seen.of("inexact") if "vLLM begins with other" in event.message]) == 1
    assert torch.isfinite(next(again.model.parameters())).all()
