"""What a Checkpointer promises beside kills: its files, its refusals, and that nothing of it is in the loop's way."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vaultlayer_hf import (
    Checkpointer,
    NoUsableCheckpointError,
    Settings,
    SettingsError,
    WrongModelError,
    open_vault,
)


def small(width: int = 4) -> torch.nn.Linear:
    """A model."""
    torch.manual_seed(0)
    return torch.nn.Linear(width, width)


def given(folder: Path, model: Any = None, **more: Any) -> Checkpointer:
    """A Checkpointer on a vault in a folder, which saves at each step."""
    model = model if model is not None else small()
    more.setdefault("optimizer", torch.optim.AdamW(model.parameters()))
    settings = Settings(vault=str(folder / "vault"), resume_timeout=2.0)
    return Checkpointer(settings, model=model, output_dir=folder / "output", **{"save_every": 1, **more})


def trained(folder: Path, steps: int = 3, **more: Any) -> Checkpointer:
    """Train some steps, and finish."""
    ckpt = given(folder, **more)
    for step in range(ckpt.resume(), steps):
        ckpt.step(loss=torch.tensor(1.0 / (step + 1), requires_grad=True))
    ckpt.finish()
    return ckpt


def test_a_checkpoint_is_plain_files(tmp_path: Path) -> None:
    """Anybody can load a checkpoint without this package, and without running pickled code."""
    from safetensors.torch import load_file

    model = small()
    trained(tmp_path, model=model)
    folder = tmp_path / "output" / "checkpoint-3"
    assert sorted(path.name for path in folder.iterdir()) == [
        "data_0.pt",
        "model.safetensors",
        "optimizer.pt",
        "rng_state_0.pth",
        "vaultlayer.json",
        "vaultlayer_asked.json",
        "vaultlayer_digests_0.json",
    ]
    assert torch.equal(load_file(folder / "model.safetensors")["weight"], model.weight)
    for name in ("optimizer.pt", "rng_state_0.pth", "data_0.pt"):
        torch.load(folder / name, weights_only=True)
    about = json.loads((folder / "vaultlayer.json").read_text())
    assert (about["step"], about["world_size"], about["loss"]) == (3, 1, pytest.approx(1 / 3))
    assert about["versions"]["torch"] == torch.__version__.split("+")[0] or about["versions"]["torch"]


def test_a_transformers_model_can_be_loaded_from_it(tmp_path: Path) -> None:
    """Where the model has a config, from_pretrained takes the checkpoint's folder; tied weights stay tied."""
    from transformers import LlamaForCausalLM

    from tests.kit.models import tiny_llama

    model = tiny_llama(32, 8, tie_word_embeddings=True)
    trained(tmp_path, model=model)
    again = LlamaForCausalLM.from_pretrained(tmp_path / "output" / "checkpoint-3")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    other = tiny_llama(32, 8, seed=1, tie_word_embeddings=True)
    assert given(tmp_path, model=other).resume() == 3
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)
    assert other.lm_head.weight is other.model.embed_tokens.weight


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("around", [True, False])
def test_adapters_are_no_model_of_transformers(tmp_path: Path, around: bool) -> None:
    """Beside the weights of adapters there is no config.json, by which from_pretrained would make a fresh model."""
    peft = pytest.importorskip("peft")
    from tests.kit.models import tiny_llama

    def adapted(seed: int) -> Any:
        model, config = (
            tiny_llama(32, 8),
            peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
        )
        torch.manual_seed(seed)
        if around:
            return peft.get_peft_model(model, config)
        try:
            model.add_adapter(config)
        except ValueError as error:
            pytest.skip(str(error))  # one of the two is too old for the other
        return model

    trained(tmp_path, model=(model := adapted(1)))
    assert not (tmp_path / "output" / "checkpoint-3" / "config.json").exists()
    assert given(tmp_path, model=(again := adapted(2))).resume() == 3
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())


def test_a_model_of_more_than_tensors(tmp_path: Path) -> None:
    """A model with state of other kinds is kept, too."""

    class Counting(torch.nn.Linear):
        count = 0

        def get_extra_state(self) -> Any:
            return {"count": self.count}

        def set_extra_state(self, state: Any) -> None:
            self.count = state["count"]

    model = Counting(2, 2)
    model.count = 7
    trained(tmp_path, model=model)
    other = Counting(2, 2)
    assert given(tmp_path, model=other).resume() == 3
    assert other.count == 7


def test_another_model_is_refused(tmp_path: Path) -> None:
    """The wrong model for a checkpoint is a WrongModelError before anything is loaded or trained, each time."""
    trained(tmp_path)
    other = small(5)
    before = other.weight.clone()
    ckpt = given(tmp_path, model=other)
    for _ in range(2):
        with pytest.raises(WrongModelError, match="4x4 float32 in the checkpoint, 5x5"):
            ckpt.resume()
    assert torch.equal(other.weight, before)
    with pytest.raises(SettingsError, match="call resume"):
        ckpt.step()


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path) -> None:
    """An object that no checkpoint has is said: it isn't started from scratch in silence beside a trained model."""
    trained(tmp_path)
    ckpt = given(tmp_path)
    ckpt.add("average", torch.optim.SGD(small().parameters()))
    with pytest.raises(NoUsableCheckpointError, match=r"average\.pt"):
        ckpt.resume()


def test_a_run_that_has_finished_stays_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Started again, the loop has nothing to do, and the vault still says that the run is done."""
    trained(tmp_path)
    again = given(tmp_path)
    with caplog.at_level("INFO", "vaultlayer_hf"):
        assert again.resume() == 3
    assert "this run is over, at step 3: a loop that asks for no more steps trains none" in caplog.text
    assert again.finished == 3
    again.finish()
    with open_vault(str(tmp_path / "vault")) as vault:
        assert vault.state is not None
        assert vault.state.finished == 3
        assert vault.state.metrics == {"loss": pytest.approx(1 / 3)}


def test_more_steps_go_on(tmp_path: Path) -> None:
    """A finished run that is asked for more steps goes on from its last one."""
    trained(tmp_path)
    ckpt = given(tmp_path)
    assert list(range(ckpt.resume(), 5)) == [3, 4]
    ckpt.step()
    ckpt.close()


def test_with_block(tmp_path: Path) -> None:
    """The end of a with block finishes the run, an exception leaves it to be gone on with."""

    def fail() -> None:
        with given(tmp_path) as ckpt:
            ckpt.resume()
            ckpt.step()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with given(tmp_path) as ckpt:
        assert ckpt.resume() == 1
        ckpt.step()
    with open_vault(str(tmp_path / "vault")) as vault:
        assert vault.state is not None
        assert vault.state.finished == 2


@pytest.mark.parametrize("name", ["optimizer", "model", "rng_state_0", "a/b", "", ".."])
def test_names_of_added_objects(tmp_path: Path, name: str) -> None:
    """A name that would hide one of our files or lead out of the folder is refused."""
    with pytest.raises(SettingsError):
        given(tmp_path).add(name, small())


def test_a_checkpointer_shows_where_it_is(tmp_path: Path) -> None:
    """``repr`` names the vault, when it saves, and the step."""
    ckpt = given(tmp_path)
    shown = f"Checkpointer('file://{tmp_path}/vault', save_every='1 steps'; "
    assert repr(ckpt) == f"{shown}not resumed yet)"
    ckpt.resume()
    ckpt.step()
    assert repr(ckpt) == f"{shown}at step 1)"
    ckpt.finish()
    assert repr(ckpt) == f"{shown}ended at step 1)"


def test_misuse_is_said(tmp_path: Path) -> None:
    """Calls that can't be meant raise a typed error that names the fix."""
    ckpt = given(tmp_path)
    for call in (ckpt.step, ckpt.save, ckpt.finish, ckpt.steps):
        with pytest.raises(SettingsError, match="call resume"):
            call()
    ckpt.resume()
    with pytest.raises(SettingsError, match="one number"):
        ckpt.step(loss=torch.ones(2))
    with pytest.raises(SettingsError, match="too late"):
        ckpt.add("late", small())
    with pytest.raises(SettingsError, match="needs a dataloader"):
        ckpt.steps()
    with pytest.raises(SettingsError, match="goes on from step 0"):
        ckpt.steps([1], start=3)
    with pytest.raises(SettingsError, match="no batches"):
        list(ckpt.steps([], total=3))
    with pytest.raises(SettingsError, match="state_dict"):
        given(tmp_path, optimizer=3)
    with pytest.raises(SettingsError, match="save_every"):
        given(tmp_path, save_every="often")
    with pytest.raises(SettingsError, match="accelerator= alone"):
        given(tmp_path, accelerator=object())
    ckpt.finish()
    for call in (ckpt.step, ckpt.save, ckpt.steps):
        with pytest.raises(SettingsError, match="call resume\\(\\) again"):
            call()


def test_no_vault_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a vault there is an error that says how to name one; the variable names it, too."""
    with pytest.raises(SettingsError, match="VAULTLAYER_VAULT"):
        Checkpointer(model=small())
    monkeypatch.setenv("VAULTLAYER_VAULT", str(tmp_path / "vault"))
    assert Checkpointer(model=small(), output_dir=tmp_path / "output").resume() == 0


class Counted(Dataset[int]):
    """Notes which samples were fetched."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        self.fetched.append(index)
        return index


def test_batches_behind_are_not_fetched(tmp_path: Path) -> None:
    """The position comes back without loading a single sample that was trained on, in the middle of a shuffled pass."""
    whole = [batch.tolist() for _, batch in _walk(tmp_path / "whole", Counted(), 250)]
    part = [batch.tolist() for _, batch in _walk(tmp_path / "part", Counted(), 150, finish=False)]
    data = Counted()
    rest = [batch.tolist() for _, batch in _walk(tmp_path / "part", data, 250)]
    assert part + rest == whole
    assert data.fetched == [index for batch in rest for index in batch]


def _walk(folder: Path, data: Counted, steps: int, *, finish: bool = True) -> list[tuple[int, torch.Tensor]]:
    torch.manual_seed(1)
    loader = DataLoader(data, batch_size=10, shuffle=True)
    ckpt = given(folder, save_every="none", dataloader=loader)
    ckpt.resume()
    seen = []
    for step, batch in ckpt.steps(total=steps):
        seen.append((step, batch))
        ckpt.step()
    ckpt.save()
    ckpt.finish() if finish else ckpt.close()
    return seen


def test_several_batches_a_step(tmp_path: Path) -> None:
    """Where several batches make a step, the position counts batches and the number steps."""
    found = []
    for stop in (3, 5):
        ckpt = given(tmp_path)
        ckpt.resume()
        for number, (step, item) in enumerate(ckpt.steps(range(10), total=stop)):
            found.append((step, item))
            if number % 2:
                ckpt.step()
        ckpt.close()
    assert found == [(item // 2, item) for item in range(10)]


def test_retries_draw_no_random_numbers_of_the_training(tmp_path: Path) -> None:
    """What the store needs of chance is its own: Python's random numbers are the training's alone."""
    ckpt = given(tmp_path)
    random.seed(5)
    before = random.getstate()
    ckpt.resume()
    ckpt.step()
    ckpt.finish()
    assert random.getstate() == before
