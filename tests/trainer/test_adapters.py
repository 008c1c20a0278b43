"""An adapter goes on as what it was: on its base model, with its targets; what else differs is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, model, trainer, weights
from vaultlayer_hf import errors
from vaultlayer_hf.state.adapters import Adapters, adapter_differences, adapters_of, read_adapters
from vaultlayer_hf.trainer.adapter_load import active_adapters

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning"),  # PEFT's, of a prefix
    pytest.mark.filterwarnings("ignore:Adapter 'default'"),  # AdaLoRA leaves out all ranks of a layer
]
LORA: dict[str, Any] = {"r": 2, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}


def adapted(seed: int = 0, base: Path | None = None, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A tiny Llama from a seed, as if loaded from the folder ``base``, under a LoRA."""
    inner = model(seed=seed).to(dtype)
    if base is not None:
        inner.config.save_pretrained(base)  # PEFT looks into it when it saves
        inner.name_or_path = str(base)
    torch.manual_seed(seed)
    return peft.get_peft_model(inner, peft.LoraConfig(**{**LORA, **more}, task_type="CAUSAL_LM"))


def broken_off(tmp_path: Path, **more: Any) -> None:
    """Train an adapter for 5 steps and break it off, with commits up to step 4."""
    failing = [FailAt(5), Patient(tmp_path / "v")]
    run = trainer(tmp_path / "o", resume=str(tmp_path / "v"), callbacks=failing, model=adapted(**more))
    with pytest.raises(Boom):
        run.train()


def said(tmp_path: Path, **more: Any) -> list[str]:
    """Go on with it, and return what was said."""
    run = trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=adapted(**more))
    record = Recorder(run)
    run.train()
    return [event.message for event in record.of("notice")]


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    """An adapter is a difference to its base model: on other weights of the same shapes nothing is trained."""
    broken_off(tmp_path, base=tmp_path / "base")
    with pytest.raises(
        errors.OtherRunError, match=r"the base model is .*base there, and .*chat is asked for"
    ):
        said(tmp_path, seed=1, base=tmp_path / "chat")
    with pytest.raises(errors.OtherRunError, match=r"other weights there .*matrices looked at differ"):
        said(tmp_path, seed=1)


def test_the_same_base_model_under_another_name_goes_on(tmp_path: Path) -> None:
    """A folder that has moved holds the same weights, and nothing is said of it."""
    broken_off(tmp_path, base=tmp_path / "here")
    words = said(tmp_path, base=tmp_path / "there")
    assert not [text for text in words if "base model" in text or "this start" in text]


@pytest.mark.parametrize(
    ("name", "then", "now"), [("lora_alpha", 8, 64), ("lora_dropout", 0.0, 0.5), ("use_rslora", False, True)]
)
def test_another_scale_is_said(tmp_path: Path, name: str, then: Any, now: Any) -> None:
    """Alpha and dropout aren't in the checkpoint's state: this start's hold, and that is what is said."""
    broken_off(tmp_path, **{name: then})
    run = trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=adapted(**{name: now}))
    record = Recorder(run)
    run.train()
    words = [event.message for event in record.of("notice") if event.message.startswith(f"{name}: ")]
    assert words == [
        f"{name}: {then} in the checkpoint's adapter, {now} asked for: this start's holds from here on"
    ]
    layer = run.model.base_model.model.model.layers[0].self_attn.q_proj
    scaling = {"lora_alpha": 32.0, "use_rslora": 8 / 2**0.5}.get(name, 4)
    assert layer.scaling["default"] == pytest.approx(scaling)
    assert getattr(layer.lora_dropout["default"], "p", 0.0) == (0.5 if name == "lora_dropout" else 0.0)


def test_the_same_adapter_is_told_nothing(tmp_path: Path) -> None:
    """Where nothing differs nothing is said, whatever order the targets are named in."""
    broken_off(tmp_path)
    words = said(tmp_path, target_modules=["v_proj", "q_proj"])
    assert not [text for text in words if "asked for" in text or "base model" in text]


@pytest.mark.parametrize("more", [{"target_modules": ["k_proj", "v_proj"]}, {"r": 4}])
def test_another_part_of_the_model_is_refused(tmp_path: Path, more: Any) -> None:
    """Other targets or another rank are other tensors."""
    broken_off(tmp_path)
    with pytest.raises(errors.WrongModelError, match="lora_A"):
        said(tmp_path, **more)


def test_another_type_of_adapter_is_refused(tmp_path: Path) -> None:
    """IA3 in place of LoRA, on the same modules, is another model's parameters."""
    broken_off(tmp_path)
    config = peft.IA3Config(
        target_modules=["q_proj", "v_proj"], feedforward_modules=[], task_type="CAUSAL_LM"
    )
    other = trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=peft.get_peft_model(model(), config))
    with pytest.raises(errors.WrongModelError, match=r"lora_A\.default\.weight is only in the checkpoint"):
        other.train()


@pytest.mark.parametrize(
    "name", ["peft_type", "target_modules", "r", "modules_to_save", "layers_to_transform"]
)
def test_what_makes_another_adapter_is_refused_by_its_config(name: str) -> None:
    """Where the names of the parameters don't show it, what the adapter was made with does."""
    then, now = named("org/a", **{name: ["a"]}), named("org/a", **{name: ["b"]})
    with pytest.raises(errors.OtherRunError, match=rf"{name} is \['a'\] there, and \['b'\] is asked for"):
        adapter_differences(then, now, holds_base=False)


def test_a_folder_that_says_it_by_its_adapter_config_alone(tmp_path: Path) -> None:
    """A checkpoint of the stock Trainer, named by its path, is compared by its adapter_config.json."""
    stock = trainer(tmp_path / "stock", model=adapted(), max_steps=2)
    stock.train()
    named = tmp_path / "elsewhere"
    shutil.move(tmp_path / "stock" / "checkpoint-2", named)
    config = json.loads((named / "adapter_config.json").read_bytes())
    (named / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/base"}))
    assert read_adapters(named).configs["default"]["lora_alpha"] == 8
    other = trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=adapted())
    other.model.peft_config["default"].base_model_name_or_path = "org/chat"
    with pytest.raises(errors.OtherRunError, match="org/base there, and org/chat is asked for"):
        other.train(resume_from_checkpoint=str(named))


def test_the_same_weights_in_another_dtype() -> None:
    """A base model in bfloat16, then in float32, is the same one; another one isn't, in any dtype."""
    then = adapters_of([adapted(dtype=torch.bfloat16)])
    for dtype in (torch.bfloat16, torch.float16):
        assert adapter_differences(then, adapters_of([adapted(dtype=dtype)]), holds_base=False) == []
        with pytest.raises(errors.OtherRunError):
            adapter_differences(then, adapters_of([adapted(seed=1, dtype=dtype)]), holds_base=False)
    # A float32 model of bfloat16's weights holds the same numbers.
    whole = adapted(dtype=torch.bfloat16)
    whole.get_base_model().float()
    assert adapter_differences(then, adapters_of([whole]), holds_base=False) == []


def named(base: str, **more: Any) -> Adapters:
    """An adapter on a base model of which only the name is known, as of a quantised one."""
    return Adapters({"default": {"base_model_name_or_path": base, **more}})


def test_where_only_names_are_known() -> None:
    """Names of the hub decide; a folder's name doesn't tell what is in it, so that is only said."""
    assert adapter_differences(named("org/a"), named("org/a"), holds_base=False) == []
    with pytest.raises(errors.OtherRunError, match="org/a there, and org/b is asked for"):
        adapter_differences(named("org/a"), named("org/b"), holds_base=False)
    words = adapter_differences(named("/mnt/a"), named("/home/a"), holds_base=False)
    assert len(words) == 1
    assert "isn't known" in words[0]
    words = adapter_differences(named("org/a"), named("org/b"), holds_base=True)
    assert len(words) == 1
    assert "these hold" in words[0]


def test_an_adapter_that_changed_its_base() -> None:
    """PiSSA takes the adapter's beginning out of the base model: without it the base is another one."""
    with pytest.raises(errors.OtherRunError, match="changes the base model"):
        adapter_differences(
            named("a", init_lora_weights="pissa"), named("a", init_lora_weights=True), holds_base=False
        )


def test_a_base_that_each_start_changes_by_drawn_numbers(tmp_path: Path) -> None:
    """PiSSA by a randomised decomposition, with no seed ahead of it: the refusal says where the other base is from."""

    def made(seed: int) -> Any:
        base = model()
        torch.manual_seed(seed)  # as an unseeded process has it
        lora = peft.LoraConfig(**LORA, init_lora_weights="pissa_niter_2", task_type="CAUSAL_LM")
        return peft.get_peft_model(base, lora)

    failing = [FailAt(5), Patient(tmp_path / "v")]
    with pytest.raises(Boom):
        trainer(tmp_path / "o", resume=str(tmp_path / "v"), callbacks=failing, model=made(1)).train()
    words = (
        r"init_lora_weights='pissa_niter_2' changes the base as the adapter is made, .*transformers\.set_seed"
    )
    with pytest.raises(errors.OtherRunError, match=words):
        trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=made(2)).train()
    trainer(tmp_path / "o", resume=str(tmp_path / "v"), model=made(1)).train()


def test_a_head_that_each_start_draws_anew() -> None:
    """PEFT trains a copy of it, which its files hold, and leaves the drawn one unused: the base is the same."""
    then, now = (adapted(modules_to_save=["up_proj"]) for _ in range(2))
    with torch.no_grad():
        now.base_model.model.model.layers[0].mlp.up_proj.original_module.weight.add_(1)
    assert adapter_differences(adapters_of([then]), adapters_of([now]), holds_base=False) == []
    with torch.no_grad():
        now.base_model.model.model.layers[0].mlp.gate_proj.weight.add_(1)
    with pytest.raises(errors.OtherRunError, match="gate_proj"):
        adapter_differences(adapters_of([then]), adapters_of([now]), holds_base=False)


def test_what_is_kept_is_plain(tmp_path: Path) -> None:
    """What a checkpoint keeps of an adapter can be read back, whatever its config holds."""
    found = adapters_of([adapted()])
    assert json.loads(json.dumps(found.configs)) == found.configs
    assert found.configs["default"]["target_modules"] == ["q_proj", "v_proj"]
    assert len(found.base) > 3
    assert adapters_of([model()]) == Adapters()


def _with_norms() -> Any:
    made = adapted()
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or "norm" in name)
    return made


def _prompted() -> Any:
    torch.manual_seed(0)
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "encoder_hidden_size": 8}
    return peft.get_peft_model(model(), peft.PromptEncoderConfig(**settings))


def _summed() -> Any:
    tokens: dict[str, Any] = {
        "cpt_token_ids": [1, 2, 3],
        "cpt_mask": [1, 1, 1],
        "cpt_tokens_type_mask": [1, 2, 3],
    }
    return peft.get_peft_model(model(), peft.CPTConfig(task_type="CAUSAL_LM", **tokens))


def _two() -> Any:
    made = adapted()
    made.add_adapter("b", peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    made.base_model.set_adapter(["default", "b"])
    return made


def _ignored() -> Any:
    made = model()
    made._keys_to_ignore_on_save = ["model.norm.weight"]
    return made


def _projected() -> Any:
    torch.manual_seed(0)
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "prefix_projection": True}
    return peft.get_peft_model(model(), peft.PrefixTuningConfig(**settings, encoder_hidden_size=8))


def _ranks() -> Any:
    torch.manual_seed(0)
    steps = {"total_step": 8, "tinit": 1, "tfinal": 2, "deltaT": 1}
    config = peft.AdaLoraConfig(init_r=4, target_r=1, target_modules=["q_proj", "v_proj"], **steps)
    return peft.get_peft_model(model(), config)


def _switched() -> Any:
    made = adapted()
    made.add_adapter("b", peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    for name, parameter in made.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return made


class Adapts(TrainerCallback):
    """Has AdaLoRA leave ranks out, and another adapter train from step 1 on, where a model has such."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if hasattr(model, "base_model") and hasattr(model.base_model, "rankallocator"):
            model.base_model.update_and_allocate(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if state.global_step == 1 and len(getattr(model, "peft_config", ())) > len(active_adapters(model)):
            model.set_adapter("b")


@pytest.mark.parametrize(
    "make", [_with_norms, _prompted, _summed, _two, _ignored, _projected, _ranks, _switched]
)
def test_what_is_trained_beside_an_adapter_comes_back(make: Any, tmp_path: Path) -> None:
    """What no file of PEFT's has, or has in another shape; and of several adapters which are active and trained."""
    vault = tmp_path / "v"
    unbroken = trainer(tmp_path / "u", model=make(), callbacks=[Adapts()])
    unbroken.train()
    for step in (3, 7):
        failing = [Adapts(), FailAt(step), Patient(vault)]
        with pytest.raises(Boom):
            trainer(tmp_path / f"{step}", resume=vault, model=make(), callbacks=failing).train()
    again = trainer(tmp_path / "b", resume=vault, model=make(), callbacks=[Adapts()])
    again.train()
    assert weights(again.model) == weights(unbroken.model)


def test_a_base_model_that_moves_under_an_adapter_is_said(tmp_path: Path) -> None:
    """What merges into the base as it trains changes weights that no file of the adapter holds."""
    made = adapted()
    weight = made.get_parameter("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight")
    merge = Do(on_step_end=lambda _: weight.data.add_(0.1))
    run = trainer(tmp_path / "o", resume=tmp_path / "v", model=made, max_steps=4, callbacks=[merge])
    record = Recorder(run)
    run.train()
    assert [
        "q_proj.base_layer.weight: training changes these" in one.message for one in record.of("inexact")
    ] == [True]
