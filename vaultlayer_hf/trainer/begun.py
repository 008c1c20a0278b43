"""A training that a Trainer has begun: what it hands to its callbacks, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from vaultlayer_hf.trainer.step_sizes import PlaceInPass
from vaultlayer_hf.trainer.trained import Trained


@dataclass(frozen=True)
class Begun:
    """A training that a Trainer has begun.

    Attributes:
        args: the Trainer's arguments.
        state: the Trainer's own; it changes while it trains.
        loader: the DataLoader of the training data.
        trained: the model, its optimizer and its schedule.
        resumed: the folder of the checkpoint that it goes on from; None for a training from the start.
        place: where that is in this start's steps, where they have other sizes; None where the Trainer counts.
    """

    args: TrainingArguments
    state: TrainerState
    loader: Any
    trained: Trained
    resumed: Path | None
    place: PlaceInPass | None = None
