"""The scripts that `vl init` is tried on, and what it says about each."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "scripts"
VARIANTS = Path(__file__).parent / "variants"
"""Scripts of the same kinds, written to find an edit that is wrong."""
GOLDEN = Path(__file__).parent / "golden"
VAULT = "vaults/run"
LEFT_ALONE = (
    "integrated",
    "data_generator",
    "lightning",
    "module_of_a_loop",
    "policy",
    "round_in_memory",
    "spread_parameters",
    "unknown_trainer",
    "unseeded_split",
)
"""Scripts in which nothing is changed."""
BY_HAND = ("counted_for_ever", "maybe_optimizer", "names_of_letters", "word_model")
"""Scripts that change the parameters without an optimizer."""
TURNS = {
    "two_optimizers": 2,
    "bare_tensor": 2,
    "cleared_behind": 2,
    "adversaries": 2,
    "encoder_decoder": 2,
    "penalty": 3,
    # Two optimizers at each third batch, one at the others: 30 times at 21 batches.
    "critic_turns": 30 / 21,
    # The round of a checkpoint counts those that are left out: 24 of 30 train.
    "left_out_rounds": 24 / 30,
    "caught_rounds": 19 / 30,
    # accelerate's save_state() at the end of each epoch of 8 steps makes a checkpoint, and a step of the vault.
    "states_by_epoch": 8,
}
"""How many times optimizers step in one step of a script's checkpoints, where it isn't once."""
UNEVEN = ("caught_rounds", "critic_turns", "left_out_rounds")
"""Scripts of which that is a mean."""
EDITED = tuple(sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem not in LEFT_ALONE))

STEP = """\
import torch
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
"""The begin of a script whose loop a test writes."""


@functools.cache
def proposal(name: str) -> Any:
    """Return what `vl init` makes of a script."""
    from vaultlayer_hf.run.insert.propose import propose

    return propose(SCRIPTS / f"{name}.py", VAULT)


def proposed(tmp_path: Path, text: str | bytes, vault: str | None = "v") -> Any:
    """Return the proposal for a script of this text."""
    from vaultlayer_hf.run.insert.propose import Proposal, propose

    path = tmp_path / "train.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = propose(path, vault)
    assert isinstance(found, Proposal), found
    return found


def proposal_text(name: str) -> str:
    """Return what `vl init` shows of a script, as it is kept in golden/."""
    from vaultlayer_hf.cli.init import proposal_lines, unrecognised_text
    from vaultlayer_hf.run.insert.propose import Unrecognised

    found = proposal(name)
    text = (
        unrecognised_text(found)
        if isinstance(found, Unrecognised)
        else "\n".join(proposal_lines(found)) + "\n"
    )
    return text.replace(str(SCRIPTS) + "/", "")


def write_golden() -> None:
    """Write golden/ anew: ``python -m tests.run.insert.kit``; then read the diff."""
    GOLDEN.mkdir(exist_ok=True)
    for name in (*EDITED, *LEFT_ALONE):
        (GOLDEN / f"{name}.txt").write_text(proposal_text(name))


if __name__ == "__main__":
    write_golden()
