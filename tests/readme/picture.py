"""The README's picture, from two real runs: `python -m tests.readme.picture`, some eight minutes.

One training is supervised by `vl run` twice, with a vault and without one (``--no-insert``). Both times the machine is
"taken away" at the same two moments: the process gets SIGKILL, and what it has written beside the vault is deleted.
The pictures are drawn by the code that draws `vl report`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from tests import ROOT
from vaultlayer_hf.cli.gather import find_target, gather
from vaultlayer_hf.cli.side_by_side import side_by_side
from vaultlayer_hf.run.story import RunStory

LIGHT, DARK = (Path(__file__).with_name(f"two-deaths-{name}.svg") for name in ("light", "dark"))
TITLES = {True: "With a vault", False: "Without one"}
TRAIN = textwrap.dedent(
    """
    import os, shutil, signal, time, torch
    torch.set_num_threads(1)
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
    from tests.kit.models import tiny_llama

    class Taken(TrainerCallback):
        # At each of these seconds since the first start the machine goes, and its disk with it.
        def on_step_end(self, args, state, control, **kwargs):
            time.sleep(0.2)
            began = os.path.getmtime("began")
            for number, second in enumerate((70, 140)):
                if time.time() - began > second and not os.path.exists(f"taken-{number}"):
                    open(f"taken-{number}", "w").close()
                    shutil.rmtree(args.output_dir, ignore_errors=True)
                    os.kill(os.getpid(), signal.SIGKILL)

    set_seed(0)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (64, 16))]
    args = TrainingArguments(
        "output", max_steps=600, save_steps=50, logging_steps=10, per_device_train_batch_size=4, use_cpu=True,
        report_to=[], disable_tqdm=True,
    )
    Trainer(model=tiny_llama(), args=args, train_dataset=rows, callbacks=[Taken()]).train()
    """
)


def run(kept: bool, folder: Path) -> RunStory:
    """Run the training to its end, with a vault or without one, and return what happened."""
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "began").touch()
    vl = [sys.executable, "-m", "vaultlayer_hf.cli", "run", "--no-spare", *([] if kept else ["--no-insert"])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VAULTLAYER_")}
    subprocess.run(
        [*vl, "--vault", str(folder / "vault"), "--", sys.executable, "train.py"],
        cwd=folder,
        check=True,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    return gather(find_target(str(folder / ".vl")))


def main() -> None:
    """Run both, and write both pictures."""
    folder = Path(tempfile.mkdtemp(prefix="vl-picture-"))
    try:
        runs = [(TITLES[kept], run(kept, folder / str(kept))) for kept in (True, False)]
    finally:
        shutil.rmtree(folder)
    for path, dark in ((LIGHT, False), (DARK, True)):
        path.write_text(side_by_side(runs, dark=dark))
        print(path.relative_to(ROOT), f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
