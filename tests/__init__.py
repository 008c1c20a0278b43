"""The tests; `python -m pytest` runs what everyone runs."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
