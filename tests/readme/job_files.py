"""Files for other machines, to be copied: each holds word for word what a guide shows. ``--write`` writes them anew.

python -m tests.readme.job_files --write
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import ROOT
from tests.readme.blocks import Block, blocks

FOLDER = ROOT / "notebooks/jobs"

FILES = {
    "slurm.sh": ("console", "$ vl run --on slurm"),
    "kubernetes.yaml": ("console", "$ vl run --on k8s"),
    "sky.yaml": ("console", "$ vl run --on sky"),
    "ray.sh": ("sh", "vl run --on ray --gpus 1"),
    "hf_jobs.sh": ("sh", "hf jobs run"),
    "spot_vm.sh": ("sh", "shutdown -h now"),
    "rented_machine.sh": ("sh", "The startup command of a template"),
}
"""By name: language of the block, and words that are in no other."""


def text_of(name: str) -> str:
    """Return what a file is to hold: a block, without the command that prints it; of several commands the one meant."""
    language, words = FILES[name]
    found: list[Block] = [block for block in blocks() if block.language == language and words in block.text]
    (block,) = found
    if language == "console":
        return block.text.partition("\n")[2]
    if not block.text.startswith("vl run"):
        return block.text
    return next(line for line in block.text.splitlines(keepends=True) if line.startswith(words))


def write(folder: Path = FOLDER) -> None:
    """Write all of them."""
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text(text_of(name))


if __name__ == "__main__" and "--write" in sys.argv:
    write()
