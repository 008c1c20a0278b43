"""What a resume has in memory is what was saved: loaded whole, or no step is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, TrainerCallback

from tests.kit.models import tiny_llama
from tests.trainer.conftest import Reference
from tests.trainer.kit import Boom, FailAt, Patient, arguments, trainer, weights
from vaultlayer_hf import errors
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.trainer.loaded import check_loaded, keep_digests
from vaultlayer_hf.trainer.trained import Trained


class Patches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Ten fixed pictures of 16 x 16, of two classes."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.rand(3, 16, 16, generator=generator) + index % 2, "labels": index % 2}


def picture_model(seed: int = 0) -> Any:
    """A ViT of a few thousand parameters: under transformers 5 its files have other names than its modules."""
    torch.manual_seed(seed)
    config = transformers.ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config)


def test_a_model_with_other_names_in_its_files_goes_on_as_the_same_run(tmp_path: Path) -> None:
    """A ViT that is broken off and goes on ends with the weights of an unbroken run."""
    given = {"train_dataset": Patches(), "remove_unused_columns": False}
    whole = trainer(tmp_path / "whole", cls=transformers.Trainer, model=picture_model(), **given)
    whole.train()
    broken = trainer(
        tmp_path / "o",
        model=picture_model(),
        resume=str(tmp_path / "v"),
        callbacks=[FailAt(5), Patient(tmp_path / "v")],
        **given,
    )
    with pytest.raises(Boom):
        broken.train()
    again = trainer(tmp_path / "o", model=picture_model(seed=9), resume=str(tmp_path / "v"), **given)
    assert again.train().global_step == 8
    assert weights(again.model) == weights(whole.model)


def test_a_compiled_models_checkpoint_is_loaded_into_a_plain_one(tmp_path: Path) -> None:
    """torch.compile puts a word ahead of each name in the file: its checkpoint goes on without it, bit for bit."""
    saved, plain = tiny_llama(seed=0), tiny_llama(seed=1)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    keep_digests(folder, Ranks(), Events(), Trained(saved))
    renamed = {f"_orig_mod.{name}": value.clone() for name, value in saved.state_dict().items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    transformers.Trainer(plain, arguments(tmp_path))._load_from_checkpoint(str(folder))
    assert weights(plain) != weights(saved)
    check_loaded(folder, Ranks(), Events(), Trained(plain))
    assert weights(plain) == weights(saved)


class Renaming(LlamaForCausalLM):
    """A model of a user's own that can't be made by from_pretrained, and is saved under other names than it has."""

    def __init__(self, config: Any, needed: int = 0) -> None:
        if not needed:
            raise TypeError("needed is needed")
        super().__init__(config)

    def save_pretrained(self, folder: Any, *args: Any, state_dict: Any = None, **kwargs: Any) -> None:
        renamed = {f"old.{name}": value.clone() for name, value in self.state_dict().items()}
        super().save_pretrained(folder, *args, state_dict=renamed, **kwargs)


def renaming(seed: int) -> Any:
    """Return such a model."""

    class Made(Renaming):
        def __init__(self, config: Any) -> None:
            super().__init__(config, needed=1)

    made = tiny_llama(64, 16, seed=seed, cls=Made)
    made.__class__ = Renaming
    return made


def test_what_cannot_be_loaded_whole_is_refused_before_the_first_step(tmp_path: Path) -> None:
    """A model that would go on with untouched weights isn't trained: the error says how many tensors, and which."""
    steps: list[int] = []

    class Count(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append(state.global_step)

    broken = trainer(
        tmp_path / "o",
        model=renaming(0),
        resume=str(tmp_path / "v"),
        callbacks=[FailAt(3), Patient(tmp_path / "v")],
    )
    with pytest.raises(Boom):
        broken.train()
    again = trainer(tmp_path / "o", model=renaming(1), resume=str(tmp_path / "v"), callbacks=[Count()])
    with pytest.raises(errors.NotLoadedError, match=r"of \d+ tensors of the model aren't what was saved"):
        again.train()
    assert steps == []


class Meddle(TrainerCallback):
    """Changes a part of what was loaded, as a mistake of a library would."""

    def __init__(self, part: str) -> None:
        self.part = part

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.part == "model":
            with torch.no_grad():
                kwargs["model"].model.norm.weight[3] += 1e-3
        elif self.part == "optimizer":
            next(iter(kwargs["optimizer"].state.values()))["exp_avg"].view(-1)[0] += 1e-3
        else:
            kwargs["lr_scheduler"].last_epoch += 1


@pytest.mark.parametrize("part", ["optimizer", "schedule"])
def test_every_part_of_the_state_is_compared(tmp_path: Path, part: str) -> None:
    """Where another optimizer state or schedule is in memory than was saved, the start is refused and names it."""
    trainer(tmp_path / "o", resume=str(tmp_path / "v"), max_steps=4).train()
    again = trainer(tmp_path / "o", resume=str(tmp_path / "v"), callbacks=[Meddle(part)])
    with pytest.raises(errors.NotLoadedError, match=part):
        again.train()


def test_a_weight_that_was_not_loaded_is_loaded(tmp_path: Path, reference: Reference) -> None:
    """One wrong number in one tensor is enough to be seen, and the run ends with the weights of an unbroken one."""
    broken = trainer(
        tmp_path / "o", resume=str(tmp_path / "v"), callbacks=[FailAt(5), Patient(tmp_path / "v")]
    )
    with pytest.raises(Boom):
        broken.train()
    again = trainer(tmp_path / "o", resume=str(tmp_path / "v"), callbacks=[Meddle("model")])
    again.train()
    assert weights(again.model) == reference.weights


def test_a_checkpoint_without_digests_is_taken_as_it_is(tmp_path: Path) -> None:
    """A checkpoint of stock transformers, named by the script, is gone on from as before."""
    stock = trainer(tmp_path / "o", cls=transformers.Trainer, max_steps=4)
    stock.train()
    again = trainer(tmp_path / "p", resume=str(tmp_path / "v"))
    assert again.train(resume_from_checkpoint=str(tmp_path / "o" / "checkpoint-4")).global_step == 8


def test_a_part_that_is_called_module_is_no_wrapped_model() -> None:
    """A model of the script's own that calls a part so is looked at whole; what torch puts around it isn't a part."""

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)

    own = Own()
    names = Trained(own).digests(1).model
    assert Trained(torch.nn.DataParallel(own)).digests(1).model == names
    torch.nn.init.constant_(own.head.weight, float("nan"))
    assert Trained(own).nonfinite(0, []) == "head.weight is nan or infinite"
    assert Trained(own).digests(1).model != names


def test_each_checkpoint_says_what_its_tensors_are(tmp_path: Path) -> None:
    """Beside the Trainer's own files stands one with a digest of each tensor of the model and the optimizer."""
    made = trainer(tmp_path / "o", resume=str(tmp_path / "v"), max_steps=2)
    made.train()
    content = json.loads((tmp_path / "o" / "checkpoint-2" / "vaultlayer_digests_0.json").read_text())
    assert set(content["model"]) == set(made.model.state_dict())
    assert any(name.endswith("exp_avg_sq") for name in content["optimizer"])
    assert content["schedule"]["last_epoch"] == 2
