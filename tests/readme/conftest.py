"""The vault that the command line's tests look at is the README's example, too."""

from tests.cli.conftest import trained

__all__ = ["trained"]
