"""Host memory is copied behind the save, by whoever waits first; what a forward pass may change, within it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy, TornError


def begun(monkeypatch: pytest.MonkeyPatch) -> tuple[StateCopy, torch.Tensor, torch.Tensor, list[int]]:
    """A copy of a parameter and a buffer that has begun; and the sizes of what is copied when somebody waits."""
    copied: list[int] = []
    run = StateCopy.run

    def noted(self: StateCopy, pairs: Any) -> None:
        copied.append(len(pairs))
        run(self, pairs)

    monkeypatch.setattr(StateCopy, "run", noted)
    parameter, buffer = torch.arange(1000.0), torch.arange(500.0)
    storages = [parameter.untyped_storage(), buffer.untyped_storage()]
    arena = Arena(pinned=False)
    copy = StateCopy(arena, storages, beside={parameter.data_ptr()})
    arena.reserve(copy.size)
    copy.start([parameter])
    return copy, parameter, buffer, copied


def test_the_state_is_copied_once_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then only the buffer is copied; who waits copies the parameter, once, as it was at the save."""
    copy, parameter, buffer, copied = begun(monkeypatch)
    buffer.zero_()  # as a forward pass changes it
    assert copied == []
    copy.wait()
    copy.wait()
    assert copied == [1]
    parameter.zero_()  # as the optimizer's step does behind it
    as_it_was = copy.later(parameter)(), copy.later(buffer)()
    assert torch.equal(as_it_was[0], torch.arange(1000.0))
    assert torch.equal(as_it_was[1], torch.arange(500.0))


def test_a_parameter_that_changes_ahead_of_its_copy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing torn is written, however late the copy begins."""
    copy, parameter, _, _ = begun(monkeypatch)
    parameter.add_(1)
    with pytest.raises(TornError, match="changed before the copy was over"):
        copy.wait()


def test_a_copy_that_is_given_up_isnt_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs no time, and whoever waits for it is told."""
    copy, _, _, copied = begun(monkeypatch)
    copy.give_up()
    assert copied == []
    with pytest.raises(TornError, match="given up"):
        copy.wait()
