"""All cases: importing this registers them."""

from __future__ import annotations

from tests.cases import again, beside, data, machine, scripts, state, told

__all__ = ["again", "beside", "data", "machine", "scripts", "state", "told"]
