"""What an engine does, and what any of them refuses: the interface that all engines share."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.engines.jobs.base import EngineError, Job, JobRequest, JobState


@dataclass(frozen=True)
class OwnOption:
    """An option of one engine.

    Attributes:
        meaning: what it is, for the error where a value can't be meant.
        form: what the whole value looks like.
    """

    meaning: str
    form: str = r".+"


class Engine(ABC):
    """What takes a job, and starts it again elsewhere when its machine is gone.

    Attributes:
        name: as `vl run --on` has it.
        own_options: the names that ``JobRequest.more`` may have, each with what its value may be; None: any.
        shared_disk: its nodes are expected to see this machine's disk.
        copies_folder: its nodes get a copy of the working directory, and nothing else of this machine's disk.
    """

    name: str
    own_options: Mapping[str, OwnOption] | None = None
    shared_disk = False
    copies_folder = False

    @abstractmethod
    def cannot(self, request: JobRequest) -> list[str]:
        """Return a sentence for each thing that was asked for and that this engine can't do. Submits nothing."""

    def differs(self, request: JobRequest) -> list[str]:
        """Return a sentence for each thing that is other here than elsewhere, and that may surprise."""
        return []

    @abstractmethod
    def manifest(self, request: JobRequest) -> str:
        """Return what would be submitted, as text. Raises MissingExtraError, SettingsError."""

    @abstractmethod
    def submit(self, request: JobRequest) -> Job:
        """Hand a job in. Raises EngineError where the engine is out of reach or refuses; MissingExtraError."""

    @abstractmethod
    def state(self, job: Job) -> JobState:
        """Return how a job is. Raises EngineError."""

    @abstractmethod
    def logs(self, job: Job, *, follow: bool = False) -> Iterator[str]:
        """Yield what a job has written; with ``follow``, until it has ended. Raises EngineError."""

    def stop(self, job: Job, *, now: bool = False) -> str:
        """Tell a job to save and end, and not to be started again; with ``now``, end it at once.

        Returns a sentence that says what was done. Raises EngineError, also for a job that the engine doesn't know.
        """
        state = self.state(job)
        if state.state == "unknown":
            raise EngineError(f"{job} can't be stopped: {state.detail}")
        if not state.alive:
            return f"{job} has ended already: {state.detail}"
        return self.end(job, state, now=now)

    @abstractmethod
    def end(self, job: Job, state: JobState, *, now: bool) -> str:
        """Do what ``stop`` promises for a job that waits or runs. Raises EngineError."""

    def refuse(self, request: JobRequest) -> None:
        """Raise SettingsError, with all sentences, where something was asked for that this engine can't do."""
        found = self.cannot(request)
        if self.own_options is not None:
            found += _unknown_or_wrong(self.own_options, request.more)
        if self.copies_folder and (outside := _outside(request)):
            found.append(
                f"{outside} lies outside of this folder, which is what the nodes get: start it from a folder above"
            )
        if request.time_limit is not None and request.time_limit <= request.grace:
            found.append(
                f"the time limit ({request.time_limit:.0f} s) must be longer than the grace ({request.grace:.0f} s)"
            )
        if not self.shared_disk and request.vault.startswith("file:") and not self.mounted(request):
            found.append(
                f"the vault {request.vault} is a folder of this machine, and another one won't see it: name a bucket "
                "with --vault"
            )
        if found:
            raise SettingsError(f"no job for {self.name}: {'; '.join(found)}")

    def mounted(self, request: JobRequest) -> bool:
        """Tell whether the vault's folder is on a disk that the nodes mount."""
        return False


def paths_of_here(request: JobRequest) -> list[str]:
    """Return a sentence for each path of this machine's that a node which has a copy of the folder may not have."""
    return [
        f"{word} is a path of this machine: where the nodes have no such file, "
        + (
            "write python"
            if os.path.basename(word).startswith("python")
            else "name it from the working directory"
        )
        for word in request.command
        if os.path.isabs(word) and os.path.exists(word)
    ]


def _outside(request: JobRequest) -> str | None:
    """Return the script of a job where it is named by a path that leads out of the working directory."""
    for word in request.command:
        if word.endswith((".py", ".sh", ".ipynb")) and not os.path.isabs(word):
            return word if os.path.normpath(word).startswith("..") else None
    return None


def _unknown_or_wrong(known: Mapping[str, OwnOption], given: Mapping[str, str]) -> list[str]:
    """Return a sentence for each option that an engine doesn't have, or whose value it can't have."""
    names = ", ".join(known) or "none"
    return [
        f"it has no option {name!r} of its own (--engine-option): it has {names}"
        if name not in known
        else f"--engine-option {name}={value}: {name} is {known[name].meaning}"
        for name, value in given.items()
        if name not in known or re.fullmatch(known[name].form, value) is None
    ]
