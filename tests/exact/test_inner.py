"""Looking into a data set that changes while it is looked into."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.state.data.inner import Inner


class _Restless:
    """A value that gives its owner one more attribute whenever its class is asked for, as a thread may at any time."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    @property
    def __class__(self) -> Any:
        setattr(self.owner, f"more_{len(vars(self.owner))}", 0)
        return _Restless


class _Data:
    count = 0


def test_attributes_that_come_meanwhile() -> None:
    """A data set that gets attributes while it is looked into doesn't raise, and its counters are found."""
    data = _Data()
    data.count = 1
    data.restless = _Restless(data)  # type: ignore[attr-defined]
    inner = Inner(dataset=data)
    data.count = 2
    assert inner.take()["dataset.count"] == ("number", 2)
