"""Checkpoints of any files, for tests and benchmarks in which it doesn't matter what a seam asks of them."""

from __future__ import annotations

from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.state.model_identity import ModelIdentity, Parameters


class AnyFiles(CheckpointFiles):
    """Nothing is missing, all is wanted, and any number of ranks may go on.

    Args:
        parameters: of the model; empty where it isn't known.
    """

    def __init__(self, parameters: Parameters = ()) -> None:
        self._model = ModelIdentity(parameters)

    @property
    def model(self) -> ModelIdentity:
        return self._model

    def missing(self, paths: set[str], *, world_size: int) -> list[str]:
        return []

    def wanted(self, paths: set[str], ranks: tuple[int, ...], *, world_size: int) -> set[str]:
        return paths

    def refusal(self, paths: set[str], *, written: int, now: int) -> str:
        return ""
