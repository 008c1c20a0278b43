"""A module of a script's own that keeps a count at its top."""

from __future__ import annotations

seen = 0
