"""What objects of libraries count for a script comes back."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback

from tests.trainer.kit import STEPS, Boom, Do, FailAt, Patient, Tokens, model, trainer, weights


class Stopping(EarlyStoppingCallback):
    """Early stopping that counts besides, which the Trainer's own state of it leaves out."""

    steps = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps += 1


def _adaptive() -> Any:
    peft = pytest.importorskip("peft")
    base = model()
    lora = peft.AdaLoraConfig(
        target_modules=["q_proj", "v_proj"],
        init_r=4,
        target_r=2,
        tinit=1,
        tfinal=2,
        deltaT=1,
        total_step=STEPS,
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(base, lora)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's
@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # AdaLoRA leaves out all ranks of a layer
def test_what_libraries_objects_count_for_a_script_comes_back(tmp_path: Path) -> None:
    """How important AdaLoRA has found its ranks, the scales of layers, and what a script's early stopping counts."""

    def allot(run: Any) -> None:
        run.model.base_model.update_and_allocate(run.state.global_step)
        for module in run.model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling["default"] *= 0.9

    found = []
    for place, fails in (("u", 0), ("a", 5), ("c", 0)):
        stopping = Stopping(8)
        run = trainer(
            tmp_path / place,
            model=_adaptive(),
            resume=None if place == "u" else tmp_path / "vault",
            callbacks=[stopping, *([FailAt(fails), Patient(tmp_path / "vault")] if fails else [])],
            eval_dataset=Tokens(4),
            eval_strategy="steps",
            eval_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="loss",
        )
        run.add_callback(Do(on_optimizer_step=lambda _, run=run: allot(run)))
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        found.append((weights(run.model), stopping.steps))
    assert found[0] == found[-1]
