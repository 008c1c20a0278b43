"""The options of a run, in one typed object; each is also an environment variable.

A value given in code wins over its ``VAULTLAYER_*`` variable, which wins over the default. The variable's
name is the field's, in capitals: ``keep_last`` is ``VAULTLAYER_KEEP_LAST``.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from vaultlayer_hf.base import short_traceback
from vaultlayer_hf.base.spans import parse_cadence, parse_duration, parse_seconds
from vaultlayer_hf.errors import SettingsError, VaultUriError
from vaultlayer_hf.session.option_names import check_variables
from vaultlayer_hf.session.option_values import (
    NONE,
    Seconds,
    Unusable,
    flag,
    from_environment,
    or_none,
    parse_rate,
    parse_signals,
    suggesting,
)
from vaultlayer_hf.stores.uri import parse_vault

CLOUDS = ("aws", "gcp", "azure")
"""Whose notices of preemption are known."""
_CHOICES = {"on_fenced": ("stop", "continue"), "async_save": ("auto", "off"), "exact_data": ("on", "off")}
_NUMBERS = ("keep_last", "keep_every", "local_keep_last", "local_keep_every", "bandwidth")
_TIMES = ("grace", "flush_timeout", "part_timeout", "resume_timeout")
_FLAGS = ("keep_best", "log_figures")


@suggesting
@dataclass(frozen=True)
class Settings:
    """Options of a run.

        settings = Settings(vault="s3://bucket/my-run", keep_last=3, save_every="5min")
        trainer = Trainer(..., resume=settings)

    A variable that is set to nothing counts as not set; ``none`` means None. Times are numbers of seconds or text
    such as ``"2min"``, and are seconds when they are read.

    Attributes:
        vault: URI of the vault; None means the variable ``VAULTLAYER_VAULT``.
        fork: URI of another vault, with ``@STEP`` or without: while ``vault`` holds no checkpoint, the run begins from
            that one's. It is only read. None: no fork.
        on_fenced: when another process has claimed the vault: ``"stop"`` ends train() with FencedError at
            the next step; ``"continue"`` trains on without a vault.
        save_every: also save at this cadence, on top of the training's own saves: ``"5min"``, ``"200 steps"`` or that
            number alone, or ``"auto"``, which measures and keeps these under 1 % of the time, and 1 % more for each
            death; None: no other saves.
        max_loss: for ``"auto"``: training that a failure may cost at most, such as ``"10min"`` or a number of
            seconds; None: no bound.
        signals: which signals announce the end of this process, such as ``"SIGTERM,SIGINT,SIGUSR1"``: training
            saves and stops, and the process ends with exit code 75 (SIGINT: KeyboardInterrupt). ``"none"``: none.
        grace: time from such a signal to the kill, and from GCP's word that a VM is preempted; for SIGINT there is
            no limit.
        notices: whose notices of preemption to look for: ``"auto"`` asks the metadata server where the firmware says
            that this is AWS, GCP or Azure; names such as ``"aws"``; ``"none"``.
        upload_concurrency: parts of a file in flight at once, 1 to 64.
        bandwidth: cap on uploads in bytes per second, as a number or as text such as ``"50MB"``; None: no cap.
        keep_last: how many of the newest checkpoints to keep in the vault; None keeps all.
        keep_every: also keep those whose step is a multiple of this.
        keep_best: also keep the one that the Trainer names as its best.
        local_keep_last: the same in ``output_dir``, for committed checkpoints; None leaves rotation to
            ``save_total_limit``.
        local_keep_every: also keep those in ``output_dir`` whose step is a multiple of this.
        async_save: ``"auto"``: a save of a Trainer or a Checkpointer copies the state into host memory, and training
            goes on while the same files are written from the copy, where that is safe and there is memory for it;
            where not, the reason is said once and saves are as with ``"off"``: training waits until the files are
            written.
        exact_data: ``"on"``: keep the place in the data and the random state of its workers with each checkpoint of a
            Trainer, so that a resume is bit-exact where the Trainer's own isn't; an unbroken run's numbers are the
            same with it and without. ``"off"``: resume as the Trainer does.
        log_figures: put the vault's figures (stall, upload, exposure) into the Trainer's logs, for ``report_to``.
        flush_timeout: time that the end of training waits for uploads that are still under way; for a vault that
            is full two minutes at most.
        part_timeout: time that the ranks of a run wait for each other at a save; who is later costs that
            checkpoint, never the run.
        resume_timeout: time for which an unreachable vault is tried at the start.

    Raises SettingsError where a value can't be used, or a variable is a misspelt one of these; TypeError for an option
    that doesn't exist.
    """

    vault: str | None = from_environment("vault", str, None)
    fork: str | None = from_environment("fork", or_none(str), None)
    on_fenced: Literal["stop", "continue"] = from_environment(
        "on_fenced", lambda text: cast(Literal["stop", "continue"], text), "stop"
    )
    save_every: str | int | None = from_environment("save_every", str, None)
    max_loss: float | str | None = from_environment("max_loss", str, None)
    signals: str = from_environment("signals", str, "SIGTERM,SIGINT")
    grace: Seconds = from_environment("grace", str, 30.0)  # noqa: RUF009  a field, as the others
    notices: str = from_environment("notices", str, "auto")
    upload_concurrency: int = from_environment("upload_concurrency", int, 8)
    bandwidth: float | str | None = from_environment(
        "bandwidth", or_none(parse_rate), None, "bytes per second, such as '50MB'"
    )
    keep_last: int | None = from_environment("keep_last", or_none(int), 3)
    keep_every: int | None = from_environment("keep_every", or_none(int), None)
    keep_best: bool = from_environment("keep_best", flag, True)
    local_keep_last: int | None = from_environment("local_keep_last", or_none(int), None)
    local_keep_every: int | None = from_environment("local_keep_every", or_none(int), None)
    async_save: Literal["auto", "off"] = from_environment(
        "async_save", lambda text: cast(Literal["auto", "off"], text.lower()), "off"
    )
    exact_data: Literal["on", "off"] = from_environment(
        "exact_data", lambda text: cast(Literal["on", "off"], text.lower()), "on"
    )
    log_figures: bool = from_environment("log_figures", flag, True)
    flush_timeout: Seconds = from_environment("flush_timeout", str, 1800.0)  # noqa: RUF009  a field, as the others
    part_timeout: Seconds = from_environment("part_timeout", str, 600.0)  # noqa: RUF009  a field, as the others
    resume_timeout: Seconds = from_environment("resume_timeout", str, 120.0)  # noqa: RUF009  a field, as the others

    def __post_init__(self) -> None:
        short_traceback.install()
        wrong = list[SettingsError]()
        for item in fields(self):
            if isinstance(value := getattr(self, item.name), Unusable):
                wrong.append(SettingsError(value.message))
                self._set(item.name, value.default)
        checks: tuple[Callable[[], object], ...] = (
            lambda: check_variables(os.environ, [item.name for item in fields(self)]),
            self._read_addresses,
            lambda: self._set("bandwidth", parse_rate(self.bandwidth)),
            lambda: self._set("max_loss", parse_duration(self.max_loss, "max_loss")),
            lambda: parse_cadence(self.save_every),
            self._read_signals,
            self._read_notices,
            *(functools.partial(self._check_choice, name) for name in _CHOICES),
            self._check_concurrency,
            *(functools.partial(self._check_number, name) for name in _NUMBERS),
            *(functools.partial(self._read_seconds, name) for name in _TIMES),
            *(functools.partial(self._check_flag, name) for name in _FLAGS),
        )
        for check in checks:
            try:
                check()
            except SettingsError as error:
                wrong.append(error)
        if len(wrong) == 1:
            raise wrong[0]
        if wrong:  # all at once, or a start is lost to each
            raise SettingsError("\n- ".join([f"{len(wrong)} settings can't be used:", *map(str, wrong)]))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _read_addresses(self) -> None:
        if self.vault is None:  # written out, None still means the variable
            self._set("vault", os.environ.get("VAULTLAYER_VAULT", "").strip() or None)
        elif isinstance(self.vault, os.PathLike):
            self._set("vault", os.fspath(self.vault))
        if self.fork is not None:
            _check_fork(self.fork, self.vault)
            self._set("fork", os.fspath(self.fork))

    def _read_signals(self) -> None:
        try:
            names = () if str(self.signals).lower() in NONE else parse_signals(str(self.signals))
        except ValueError as error:
            raise SettingsError(
                f"signals={self.signals!r}: {error}; use such as 'SIGTERM,SIGINT,SIGUSR1'"
            ) from error
        self._set("signals", ",".join(names) or "none")

    def _read_notices(self) -> None:
        self._set("notices", str(self.notices).lower().replace(" ", ""))
        if self.notices not in ("auto", "none") and not set(self.notices.split(",")) <= set(CLOUDS):
            raise SettingsError(f"notices={self.notices!r}: use 'auto', 'none', 'aws', 'gcp' or 'azure'")

    def _check_choice(self, name: str) -> None:
        value, choices = getattr(self, name), _CHOICES[name]
        if value not in choices:
            raise SettingsError(f"{name}={value!r}: use {' or '.join(map(repr, choices))}")

    def _check_concurrency(self) -> None:
        if not _is_number(self.upload_concurrency, whole=True) or not 1 <= self.upload_concurrency <= 64:
            raise SettingsError(f"upload_concurrency={self.upload_concurrency!r}: use 1 to 64")

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if name == "bandwidth" and isinstance(value, str):
            return  # no rate, as has been told
        if value is not None and not (_is_number(value, whole=name != "bandwidth") and value > 0):
            raise SettingsError(f"{name}={value!r}: use a number above 0, or None")

    def _read_seconds(self, name: str) -> None:
        self._set(name, parse_seconds(getattr(self, name), name))

    def _check_flag(self, name: str) -> None:
        if not isinstance(getattr(self, name), bool):
            raise SettingsError(f"{name}={getattr(self, name)!r}: use True or False")

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The names in ``signals``."""
        return () if self.signals == "none" else tuple(self.signals.split(","))

    @property
    def loss(self) -> float | None:
        """``max_loss`` in seconds, or None."""
        return cast("float | None", self.max_loss)

    @property
    def rate(self) -> float | None:
        """The bandwidth cap in bytes per second, or None."""
        return cast("float | None", self.bandwidth)


def _check_fork(fork: str, vault: str | None) -> None:
    """Raise SettingsError for a vault that can't be forked, and VaultUriError for an address that can't be meant."""
    origin = parse_vault(fork)
    if vault is not None and parse_vault(vault).uri == origin.uri:
        raise SettingsError(
            f"fork={fork!r}: that is this run's own vault; a fork needs a new one: vault='…/another', or to go back in "
            f"the same vault: vault='{origin.uri}@STEP'"
        )


def _is_number(value: object, *, whole: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return math.isfinite(value)


def settings_from(given: object, argument: str) -> Settings:
    """Return what a script names where a vault is asked for, as Settings that name one.

    ``given``: a URI, a path, Settings, or True or None for the vault of ``VAULTLAYER_VAULT``. ``argument``: as the
    message calls it. Raises SettingsError, and VaultUriError for a URI that can't be meant.
    """
    if isinstance(given, Settings):
        settings = given
    elif given is True or given is None:
        settings = Settings()
    elif isinstance(given, (str, os.PathLike)):
        settings = Settings(vault=os.fspath(given) or None)
    else:  # its type alone: it may hold a key, or all of a model
        raise SettingsError(
            f"{argument} is of type {type(given).__name__}: give a vault's address, such as 's3://bucket/my-run' or a "
            "folder, or Settings(vault=…)"
        )
    if not settings.vault:
        shown = "" if given is None or isinstance(given, Settings) else f"={given!r}"
        raise SettingsError(
            f"{argument}{shown} names no vault, and VAULTLAYER_VAULT isn't set: give its address, such as "
            "'s3://bucket/my-run' or a folder, or set that variable"
        )
    address = parse_vault(settings.vault)
    back = "" if address.named else _step_of_variable(address.uri)
    return replace(settings, vault=f"{address.uri}@{back}") if back else settings


def _step_of_variable(uri: str) -> str:
    """Return the step that ``VAULTLAYER_VAULT`` names in this very vault, or ``best``; else an empty string.

    Whoever starts a script that names its vault says there, or by `vl run --vault`, which step to go back to.
    """
    try:
        named = parse_vault(os.environ.get("VAULTLAYER_VAULT", "").strip() or uri)
    except VaultUriError:
        return ""  # no vault that anything is asked of
    return named.named if named.uri == uri else ""


def settings_table() -> list[tuple[str, str]]:
    """Return (variable, field) for each option, for documentation and its test."""
    return [(f"VAULTLAYER_{item.name.upper()}", item.name) for item in fields(Settings)]
