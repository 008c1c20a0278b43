"""The text of a script that `vl init` edits stays its own, but for what is added."""

from __future__ import annotations

import pytest

from tests.run.insert.kit import SCRIPTS, STEP, proposed
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.insert.propose import propose


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_line_ends_tabs_and_encoding_stay(tmp_path, newline) -> None:
    """A script in Latin-1 with Windows line ends and tabs stays so: added lines have the same."""
    loop = (
        "for step in range(3):\n\toptimizer.zero_grad()\n\tloss = model(torch.ones(1, 2)).sum()\n\tloss.backward()\n"
        "\toptimizer.step()  # Schr\xf6dinger"
    )
    text = "# -*- coding: latin-1 -*-\n" + STEP + loop
    found = proposed(tmp_path, text.replace("\n", newline).encode("latin-1"))
    after = found.after.decode("latin-1")
    assert after.replace(newline, "").count("\n") == after.replace(newline, "").count("\r") == 0
    assert f"\tckpt.step(loss=loss){newline}" in after
    assert "Schr\xf6dinger" in after


def test_a_byte_order_mark_and_a_shebang_stay_first(tmp_path) -> None:
    """What must stand at the very start of a file still does."""
    for start in (b"\xef\xbb\xbf", b"#!/usr/bin/env python\n"):
        text = b"".join([start, (SCRIPTS / "step_loop.py").read_bytes()])
        assert proposed(tmp_path, text).after.startswith(start)


def test_names_that_the_script_uses_are_not_taken(tmp_path) -> None:
    """A script with a ckpt and a start of its own keeps them."""
    loop = (
        "ckpt, start = None, 1.5\nfor i in range(3):\n    loss = model(torch.ones(1, 2)).sum()\n"
        "    optimizer.zero_grad()\n    loss.backward()\n    optimizer.step()\nprint(ckpt, start)"
    )
    after = proposed(tmp_path, STEP + loop).after.decode()
    assert "checkpointer = Checkpointer(" in after
    assert "start_step = checkpointer.resume()" in after
    assert "range(start_step, 3)" in after


def test_what_is_no_python_is_one_sentence(tmp_path) -> None:
    """A file that can't be parsed, or isn't there, is a typed error that names the place."""
    (tmp_path / "train.py").write_text("def f(:\n")
    with pytest.raises(SettingsError, match="line 1"):
        propose(tmp_path / "train.py", "v")
    with pytest.raises(SettingsError, match="No such file"):
        propose(tmp_path / "none.py", "v")
