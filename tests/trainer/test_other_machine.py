"""A Trainer goes on where the next machine holds the same training in another way; what it can't load is said.

Compiled or not, the base under an adapter in another dtype or quantised, and a trainer state of a newer transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.trainer.conftest import Reference
from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, model, steps_of, trainer
from vaultlayer_hf import ResumeError, WrongModelError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning",  # peft's
    "ignore:The .grad attribute of a Tensor:UserWarning",  # torch.compile's, of a layer within a model
)


def compiled(made: Any) -> Any:
    return torch.compile(made, backend="eager")


def by_layers(made: Any) -> Any:
    """Return a model of which each layer is compiled for itself."""
    made.model.layers[0] = compiled(made.model.layers[0])
    return made


FORMS = {"plain": lambda made: made, "whole": compiled, "layers": by_layers}


def broken_off(folder: Path, **more: Any) -> None:
    """Train five steps, of which four are in the vault."""
    vault = folder / "v"
    run = trainer(folder / "o", resume=vault, callbacks=[FailAt(5), Patient(vault)], **more)
    with pytest.raises(Boom):
        run.train()


@pytest.mark.parametrize(
    ("then", "now"), [("plain", "whole"), ("whole", "plain"), ("layers", "plain"), ("plain", "layers")]
)
def test_compiled_or_not(then: str, now: str, tmp_path: Path, reference: Reference) -> None:
    """Whatever of the model is compiled at the save and at the start, it ends with an unbroken run's weights."""
    if "whole" in (then, now) and transformers.__version__ < "5":
        pytest.skip("stock transformers 4 can't save a compiled model whose weights are tied")
    broken_off(tmp_path, model=FORMS[then](model()), remove_unused_columns=False)
    own = model()
    run = trainer(tmp_path / "b", model=FORMS[now](own), resume=tmp_path / "v", remove_unused_columns=False)
    run.train()
    unbroken = transformers.LlamaForCausalLM.from_pretrained(reference.folder / "checkpoint-8")
    assert all(torch.equal(*pair) for pair in zip(unbroken.parameters(), own.parameters(), strict=True))


class Packed(nn.Module):
    """A layer in 8 bits, whose weights are no parameters, as some kinds of quantisation have it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("qweight", (layer.weight.detach() / scale).round().to(torch.int8))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(given, (self.qweight * self.scale).to(given.dtype))


def adapted(*, dtype: Any = torch.float32, packed: bool = False, rank: int = 2, vocab: int = 64) -> Any:
    """A LoRA adapter on a base that is held in some way."""
    import peft

    base: Any = model(vocab=vocab).to(dtype)
    if packed:
        block = base.model.layers[0].mlp
        block.gate_proj, block.up_proj = Packed(block.gate_proj), Packed(block.up_proj)
    config = peft.LoraConfig(
        r=rank, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(base, config)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({}, {"dtype": torch.bfloat16}),
        ({"dtype": torch.bfloat16}, {}),
        ({}, {"packed": True}),
        ({"packed": True}, {}),
    ],
)
def test_the_base_under_an_adapter_may_be_held_otherwise(
    then: dict[str, Any], now: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on from the adapter's checkpoint, which is loaded as it was saved, and one line says what is other."""
    pytest.importorskip("peft")
    broken_off(tmp_path, model=adapted(**then), bf16=then.get("dtype") is not None)
    caplog.clear()
    begun: list[int] = []
    run = trainer(
        tmp_path / "b",
        model=adapted(**now),
        resume=tmp_path / "v",
        bf16=now.get("dtype") is not None,
        callbacks=[Do(on_train_begin=lambda state: begun.append(state.global_step))],
    )
    run.train()
    assert begun == [4]
    assert steps_of(tmp_path / "v")[-1] == 8
    assert (
        len([text for text in caplog.messages if "weights that aren't trained are other ones" in text]) == 1
    )


@pytest.mark.parametrize("other", [{"rank": 3}, {"vocab": 65}])
def test_another_adapter_or_base_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    """What is trained has other shapes, or the base has them in the same dtype: another model."""
    pytest.importorskip("peft")
    broken_off(tmp_path, model=adapted())
    with pytest.raises(WrongModelError, match="belongs to another model"):
        trainer(tmp_path / "b", model=adapted(**other), resume=tmp_path / "v").train()


def newer(folder: Path) -> None:
    """Have the trainer state of a checkpoint hold a field of a later transformers."""
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "invented_later": 1}))


def test_a_field_of_a_newer_transformers_is_left_out_and_said(
    tmp_path: Path, reference: Reference, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends as an unbroken one, and one line names the field and both versions; the vault keeps the field."""
    mark = Do(on_save=lambda state: newer(tmp_path / "o" / f"checkpoint-{state.global_step}"))
    vault = tmp_path / "v"
    run = trainer(tmp_path / "o", resume=vault, callbacks=[mark, FailAt(5), Patient(vault)])
    with pytest.raises(Boom):
        run.train()
    own = model()
    trainer(tmp_path / "b", model=own, resume=vault).train()
    unbroken = transformers.LlamaForCausalLM.from_pretrained(reference.folder / "checkpoint-8")
    assert all(torch.equal(*pair) for pair in zip(unbroken.parameters(), own.parameters(), strict=True))
    (said,) = [text for text in caplog.messages if "invented_later" in text]
    assert said.count(f"transformers {transformers.__version__}") == 2
    assert "checkpoint-4: its trainer_state.json" in said
    kept = json.loads(next(vault.glob("data/*/checkpoint-4/trainer_state.json")).read_text())
    assert kept["invented_later"] == 1


def test_a_folder_that_the_script_names_is_not_changed(tmp_path: Path) -> None:
    """There a field that can't be read is one error that names both versions, before stock's, and nothing is done."""
    trainer(tmp_path / "o", cls=transformers.Trainer, max_steps=4).train()
    named = tmp_path / "o" / "checkpoint-4"
    newer(named)
    before = (named / "trainer_state.json").read_bytes()
    run = trainer(tmp_path / "b", resume=tmp_path / "v")
    version = transformers.__version__
    with pytest.raises(
        ResumeError, match=rf"by transformers {version}, .* transformers {version} .*invented_later"
    ):
        run.train(resume_from_checkpoint=str(named))
    assert (named / "trainer_state.json").read_bytes() == before


def adapter(form: str) -> Any:
    """A LoRA on a model of this form."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(4)
    own = peft.get_peft_model(model(), config)
    layers = own.get_base_model().model.layers
    if form == "layers":
        layers[0] = compiled(layers[0])
    return compiled(own) if form == "whole" else own


@pytest.mark.parametrize(("then", "now"), [("layers", "plain"), ("plain", "layers")])
def test_an_adapter_compiled_or_not(then: str, now: str, tmp_path: Path) -> None:
    """The same of an adapter: PEFT's file has the names of the wrappers in it, or hasn't."""
    unbroken = adapter("plain")
    trainer(tmp_path / "u", model=unbroken, remove_unused_columns=False, resume=None).train()
    broken_off(tmp_path, model=adapter(then), remove_unused_columns=False)
    own = adapter(now)
    trainer(tmp_path / "b", model=own, resume=tmp_path / "v", remove_unused_columns=False).train()
    trained = [one for one in own.parameters() if one.requires_grad]
    expected = [one for one in unbroken.parameters() if one.requires_grad]
    assert all(torch.equal(*pair) for pair in zip(expected, trained, strict=True))


def test_an_adapter_that_peft_saves_empty_is_said(tmp_path: Path) -> None:
    """Of torch.compile around the whole of it PEFT writes a file without tensors: that is no checkpoint."""
    run = trainer(tmp_path / "a", model=adapter("whole"), remove_unused_columns=False, resume=tmp_path / "v")
    seen = Recorder(run)
    run.train()
    assert steps_of(tmp_path / "v") == []
    assert any(
        "adapter_model.safetensors can't be loaded: it holds no tensor" in one.message
        for one in seen.of("abandon")
    )
