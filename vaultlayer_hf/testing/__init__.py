"""For people who write a store, or test what is built on one. Needs pytest for the conformance suite.

    from vaultlayer_hf.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self): ...

``FaultStore`` wraps any store, records its operations and makes chosen ones fail. ``VaultModel`` says what a vault
must be after any sequence of log entries.

    _reading.py      the part of the conformance suite that reads and lists
    _writing.py      the part of the conformance suite that creates, writes, uploads, copies and deletes
    conformance.py   the contract of ``vaultlayer_hf.stores.base`` as tests
    faults.py        a store around a store that numbers every operation and fails where it is told to
    model.py         what a vault must be after any sequence of entries

Imports vault and below; tests of others import it, and nothing of the package does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.testing.model import ForbiddenError, VaultModel

if TYPE_CHECKING:
    from vaultlayer_hf.testing.conformance import StoreConformance

__all__ = ["Fault", "FaultStore", "ForbiddenError", "Operation", "StoreConformance", "VaultModel"]


def __getattr__(name: str) -> Any:
    if name == "StoreConformance":  # late: it alone needs pytest
        import pytest

        for module in ("conformance", "_reading", "_writing"):
            if f"{__name__}.{module}" not in sys.modules:
                pytest.register_assert_rewrite(f"{__name__}.{module}")  # so that a failure shows the values
        from vaultlayer_hf.testing.conformance import StoreConformance

        globals()[name] = StoreConformance
        return StoreConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
