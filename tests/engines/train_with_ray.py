"""`python -m tests.engines.train_with_ray FOLDER ADDRESS`: Ray Train's TorchTrainer, a worker on each of two nodes.

One of them loses its node, once. Under torchrun, without an address: the same training, and nothing in its way. Either
has a vault in the folder, and leaves a digest of the weights that it ended with there.
"""

from __future__ import annotations

import os
import sys
from typing import Any

KILLED_AT = 7


def train(config: dict[str, Any]) -> None:
    """What each worker runs: a Trainer as in any script, with one more argument."""
    import hashlib
    import signal
    from pathlib import Path

    import torch
    from transformers import TrainerCallback, TrainingArguments, set_seed

    from tests.kit.models import tiny_llama
    from vaultlayer_hf import Trainer

    rank = int(os.environ["RANK"])

    class Fate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            once = Path(config["folder"]) / "killed"
            if config["kill"] and rank == 1 and state.global_step == KILLED_AT and not once.exists():
                once.touch()
                os.kill(os.getppid(), signal.SIGKILL)  # the raylet that has started this worker
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    set_seed(0)
    model = tiny_llama(attention_dropout=0.2)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (40, 8))]
    args = TrainingArguments(
        "out", max_steps=12, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        use_cpu=True, report_to=[], disable_tqdm=True, seed=3, dataloader_pin_memory=False, ddp_backend="gloo",
    )  # fmt: skip
    vault = f"file://{config['folder']}/vault"
    Trainer(model=model, args=args, train_dataset=rows, callbacks=[Fate()], resume=vault).train()
    if rank == 0:
        weights = b"".join(value.detach().numpy().tobytes() for value in model.state_dict().values())
        (Path(config["folder"]) / "weights").write_text(hashlib.sha256(weights).hexdigest())


def main(folder: str, address: str) -> None:
    """Train, and have Ray start the workers again when one is gone."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    passed_on = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")}
    ray.init(address, runtime_env={"env_vars": passed_on})
    trainer = TorchTrainer(
        train,
        train_loop_config={"folder": folder, "kill": True},
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False, placement_strategy="STRICT_SPREAD"),
        run_config=RunConfig(storage_path=f"{folder}/ray", failure_config=FailureConfig(max_failures=2)),
    )
    error = trainer.fit().error
    if error is not None:
        raise error


if __name__ == "__main__":
    if "RANK" in os.environ:
        train({"folder": sys.argv[1], "kill": False})
    else:
        main(*sys.argv[1:])
