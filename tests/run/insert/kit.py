"""The scripts that `vl init` is tried on, and what it says about each."""

from __future__ import annotations

from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
GOLDEN = Path(__file__).parent / "golden"
VAULT = "vaults/run"
LEFT_ALONE = (
    "integrated",
    "bare_tensor",
    "data_generator",
    "lasting_gradients",
    "left_pass",
    "lightning",
    "local_sgd",
    "maybe_optimizer",
    "module_of_a_loop",
    "new_group",
    "policy",
    "repeated_ahead",
    "round_in_memory",
    "spread_parameters",
    "unknown_trainer",
    "unseeded_split",
)
"""Scripts in which nothing is changed."""
EDITED = tuple(sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem not in LEFT_ALONE))


def proposal_text(name: str) -> str:
    """Return what `vl init` shows of a script, as it is kept in golden/."""
    from vaultlayer_hf.cli.init import proposal_lines, unrecognised_text
    from vaultlayer_hf.run.insert.propose import Unrecognised, propose

    found = propose(SCRIPTS / f"{name}.py", VAULT)
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
