"""The Trainer's answers to what a save and a start ask about a checkpoint's files; ``layout.py`` knows their names."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from transformers import TrainingArguments

from vaultlayer_hf.session.checkpoint_files import CheckpointFiles, Conversion
from vaultlayer_hf.state.layouts import is_zero, missing_shards, refusal
from vaultlayer_hf.state.loadable import LoadTrial
from vaultlayer_hf.state.model_identity import ModelIdentity
from vaultlayer_hf.trainer import zero
from vaultlayer_hf.trainer.added import Added, paths_of
from vaultlayer_hf.trainer.data_file import file_name
from vaultlayer_hf.trainer.layout import STATE, best_step, missing_files, wanted_files
from vaultlayer_hf.trainer.loadable import load_trial
from vaultlayer_hf.trainer.state_file import fitted_state, left_out

_OF_A_LOOP = "vaultlayer.json"  # what each checkpoint of a Checkpointer holds, and none of a Trainer


class TrainerFiles(CheckpointFiles):
    """The files of a Trainer's checkpoints.

    Args:
        args: of the Trainer.
        model: the identity of its model; without parameters where it isn't known.
        data: whether each rank saves its place in the data.
        added: what is carried with each checkpoint beside the model.
        trial: tries whether files can be loaded; None: as stock's Trainer loads them.

    Attributes:
        left_out: what of a checkpoint's state this transformers doesn't know, in words; empty where it knows all.
    """

    def __init__(
        self,
        args: TrainingArguments,
        model: ModelIdentity,
        *,
        data: bool = False,
        trial: LoadTrial | None = None,
        added: Sequence[Added] = (),
    ) -> None:
        self._output_dir = str(args.output_dir)
        self._zero = zero.configuration(args)
        self._model, self._data = model, data
        self._added = added
        self._trial = trial or load_trial(None)
        self._whole = not args.save_only_model
        self.left_out = ""
        self._best = bool(cast(Any, args).load_best_model_at_end)

    @property
    def model(self) -> ModelIdentity:
        """The identity of the model; without parameters where it isn't known."""
        return self._model

    @property
    def best(self) -> bool:
        """Whether the Trainer loads the best checkpoint at the end of its training."""
        return self._best

    def missing(self, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a resume by this Trainer lacks: an optimizer state that it can load, for one."""
        if STATE not in paths and _OF_A_LOOP in paths:
            return [
                "all that a Trainer saves (a Checkpointer has written it, so this is the vault of another run: give "
                "this one a vault of its own)"
            ]
        found = missing_files(paths, world_size)
        if self._zero is None and is_zero(paths):
            found.append("an optimizer state that a run without DeepSpeed can load")
        if self._zero is not None and not any(path.startswith("global_step") for path in paths):
            found.append("the state of DeepSpeed, which this run uses")
        return found

    def unwritten(self, folder: Path, paths: set[str], *, world_size: int) -> list[str]:
        """Return what the Trainer's save lacks: nothing where it is told to save the model only."""
        if not self._whole:
            return []
        places = [file_name(rank) for rank in range(world_size)] if self._data else []
        places += paths_of(self._added, world_size)
        lost = [name for name in places if name not in paths]
        return list(dict.fromkeys((*missing_files(paths, world_size), *missing_shards(folder, paths), *lost)))

    def unloadable(self, folder: Path, paths: Collection[str]) -> list[str]:
        """Return what of these files of a folder the Trainer can't load, each with the reason. Never raises."""
        return self._trial(folder, paths)

    def best_step(self, folder: Path) -> int | None:
        """Return the step of the best checkpoint as the trainer state has it. Raises OSError, ValueError."""
        return best_step(json.loads((folder / STATE).read_text())) if (folder / STATE).is_file() else None

    def wanted(self, paths: set[str], ranks: tuple[int, ...], *, world_size: int) -> set[str]:
        """Return those of these paths that ``ranks`` load: all but those of other ranks alone."""
        return wanted_files(paths, ranks, world_size)

    def refusal(self, paths: set[str], *, written: int, now: int) -> str:
        """Return why the checkpoint can't be resumed on another number of ranks; empty where it can."""
        converts = self._zero is not None and is_zero(paths) and zero.can_convert()
        return "" if converts else refusal(paths, written, now)

    def localised(self, folder: Path, output_dir: Path, versions: Mapping[str, str]) -> dict[str, bytes]:
        """Return the trainer state as this Trainer can read it on this host; empty where nothing changes.

        The Trainer compares the best checkpoint's path as text, so it begins as the arguments have ``output_dir``,
        relative where that is relative, and not as the absolute ``output_dir`` given here.
        """
        data, unknown = fitted_state(folder, self._output_dir)
        if unknown:
            self.left_out = left_out(unknown, versions)
        return {STATE: data} if data else {}

    def conversion(self, paths: set[str], *, written: int, now: int) -> Conversion | None:
        """Return how ZeRO's state is made to fit ``now`` ranks; None where it fits, or DeepSpeed isn't used."""
        config = self._zero
        if config is None or not is_zero(paths):
            return None
        if written == now and not zero.loads_universal(config):
            return None
        return Conversion(lambda folder: zero.convert(folder, paths), lambda: zero.ask_for_universal(config))
