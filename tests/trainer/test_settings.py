"""Settings: defaults, variables, what wins, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf import Settings, SettingsError
from vaultlayer_hf.base.spans import parse_cadence
from vaultlayer_hf.run.vaults import choose_vault
from vaultlayer_hf.session.option_names import check_variables, misspelt_variables
from vaultlayer_hf.session.option_values import parse_rate
from vaultlayer_hf.session.settings import settings_table

VARIABLES: dict[str, tuple[str, Any]] = {
    "vault": ("s3://bucket/run", "s3://bucket/run"),
    "fork": ("s3://bucket/other@500", "s3://bucket/other@500"),
    "on_fenced": ("continue", "continue"),
    "save_every": ("200 steps", "200 steps"),
    "max_loss": ("10min", 600.0),
    "signals": ("term, USR1", "SIGTERM,SIGUSR1"),
    "grace": ("90", 90.0),
    "notices": ("AWS, gcp", "aws,gcp"),
    "upload_concurrency": ("3", 3),
    "bandwidth": ("1.5MB", 1.5e6),
    "keep_last": ("7", 7),
    "keep_every": ("100", 100),
    "keep_best": ("no", False),
    "local_keep_last": ("2", 2),
    "local_keep_every": ("50", 50),
    "async_save": ("AUTO", "auto"),
    "exact_data": ("OFF", "off"),
    "log_figures": ("no", False),
    "flush_timeout": ("12.5", 12.5),
    "part_timeout": ("30", 30.0),
    "resume_timeout": ("0", 0.0),
}


@pytest.fixture(autouse=True)
def _none_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _ in settings_table():
        monkeypatch.delenv(variable, raising=False)


def test_every_option_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field is read from VAULTLAYER_<FIELD>; a field without a row here fails."""
    assert {field.name for field in dataclasses.fields(Settings)} == set(VARIABLES)
    plain = Settings()
    for variable, name in settings_table():
        text, value = VARIABLES[name]
        assert variable == f"VAULTLAYER_{name.upper()}"
        monkeypatch.setenv(variable, f" {text} ")
        assert getattr(Settings(), name) == value
        assert getattr(plain, name) != value
        monkeypatch.delenv(variable)


def test_what_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code wins over the variable, also by writing out the default; the variable wins over the default."""
    monkeypatch.setenv("VAULTLAYER_KEEP_LAST", "7")
    monkeypatch.setenv("VAULTLAYER_VAULT", "/from/variable")
    assert Settings().keep_last == 7
    assert Settings(keep_last=3).keep_last == 3
    assert Settings(keep_last=None).keep_last is None
    assert Settings(vault="/from/code").vault == "/from/code"
    assert Settings(vault=None).vault == "/from/variable"


@pytest.mark.parametrize(("text", "value"), [("none", None), ("OFF", None), ("", 3), ("  ", 3)])
def test_none_and_nothing(text: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``none`` switches an option off, and a variable that is set to nothing counts as not set."""
    monkeypatch.setenv("VAULTLAYER_KEEP_LAST", text)
    assert Settings().keep_last == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("on_fenced", "stopp"),
        ("save_every", "often"),
        ("save_every", "0 steps"),
        ("save_every", "2.5 steps"),
        ("save_every", "200"),
        ("save_every", "0s"),
        ("max_loss", "0"),
        ("max_loss", "10"),
        ("max_loss", "200 steps"),
        ("signals", "SIGTREM"),
        ("signals", "SIGKILL"),
        ("grace", "-1"),
        ("notices", "oracle"),
        ("upload_concurrency", "0"),
        ("upload_concurrency", "65"),
        ("upload_concurrency", "many"),
        ("bandwidth", "fast"),
        ("bandwidth", "-3"),
        ("bandwidth", "0"),
        ("keep_last", "0"),
        ("keep_last", "2.5"),
        ("keep_every", "-1"),
        ("keep_best", "maybe"),
        ("local_keep_last", "x"),
        ("local_keep_every", "0"),
        ("flush_timeout", "-1"),
        ("flush_timeout", "nan"),
        ("part_timeout", "inf"),
        ("resume_timeout", "soon"),
    ],
)
def test_bad_variables(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that can't be used is an error that names it and its value; never the default in silence."""
    monkeypatch.setenv(f"VAULTLAYER_{name.upper()}", text)
    with pytest.raises(SettingsError, match=f"(?i){name}|bandwidth") as caught:
        Settings()
    assert text.lstrip("-").split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"keep_last": "3"},
        {"keep_last": True},
        {"keep_last": 2.0},
        {"upload_concurrency": None},
        {"flush_timeout": "long"},
        {"grace": True},
        {"grace": "2 fortnights"},
        {"grace": "10 steps"},
        {"keep_best": "maybe"},
        {"log_figures": 1},
        {"save_every": 0},
        {"save_every": True},
        {"bandwidth": True},
        {"bandwidth": float("inf")},
        {"on_fenced": "Stop"},
    ],
)
def test_bad_values_in_code(given: dict[str, Any]) -> None:
    """A value of the wrong type in code is a SettingsError that names the option."""
    with pytest.raises(SettingsError, match=f"{next(iter(given))}|bandwidth"):
        Settings(**given)


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Misspelt variables, texts that can't be read and values that can't be meant: one error has them all."""
    monkeypatch.setenv("VAULTLAYER_KEEPLAST", "2")
    monkeypatch.setenv("VAULTLAYER_UPLOAD_CONCURRENCY", "many")
    with pytest.raises(SettingsError) as caught:
        Settings(keep_every=0, save_every="often")
    first, *others = str(caught.value).splitlines()
    assert first == "4 settings can't be used:"
    for name in (
        "VAULTLAYER_KEEPLAST",
        "VAULTLAYER_UPLOAD_CONCURRENCY",
        "keep_every=0",
        "save_every='often'",
    ):
        assert sum(line.startswith("- ") and name in line for line in others) == 1


@pytest.mark.parametrize(("given", "seconds"), [("2min", 120.0), ("90", 90.0), ("1.5 h", 5400.0), (7, 7.0)])
def test_times_are_seconds_or_text(given: Any, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time is a number of seconds or text such as "2min", in code and in its variable."""
    for name in ("grace", "flush_timeout", "part_timeout", "resume_timeout"):
        assert getattr(Settings(**{name: given}), name) == seconds
        monkeypatch.setenv(f"VAULTLAYER_{name.upper()}", str(given))
        assert getattr(Settings(), name) == seconds


def test_a_number_of_steps_is_a_cadence() -> None:
    """save_every=200 is every 200 steps, as in a Checkpointer."""
    assert parse_cadence(Settings(save_every=200).save_every) == parse_cadence("200 steps")


def test_errors_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that can't be used is answered with what can."""
    for name, text, remedy in (
        ("GRACE", "2 weeks", "or such as '90s' or '2min'"),
        ("KEEP_BEST", "maybe", "keep_best is 'yes' or 'no'"),
        ("KEEP_LAST", "few", "keep_last is a whole number, or 'none'"),
        ("BANDWIDTH", "fast", "bandwidth is bytes per second, such as '50MB', or 'none'"),
        ("UPLOAD_CONCURRENCY", "few", "upload_concurrency is a whole number"),
    ):
        monkeypatch.setenv(f"VAULTLAYER_{name}", text)
        with pytest.raises(SettingsError, match=remedy):
            Settings()
        monkeypatch.delenv(f"VAULTLAYER_{name}")


def test_misspelt_variables_are_named_with_what_was_meant() -> None:
    """A name that is near a setting's is told, with that setting; others and those of `vl run` aren't."""
    names = [
        "VAULTLAYER_KEEPLAST", "VAULTLAYER_KEEP_LAST", "VAULTLAYER_GRACE_", "VAULTLAYER_RUN_ATTEMPT", "VAULT_ADDR",
        "VAULTLAYER_MY_OWN_THING", "VAULTLAYER_VERBOSTY", "VAULT_LAYER_GRACE", "VAULT_TOKEN", "VAULTLAYER_TEST_SEED",
    ]  # fmt: skip
    meant = {
        "VAULTLAYER_KEEPLAST": "VAULTLAYER_KEEP_LAST",
        "VAULTLAYER_GRACE_": "VAULTLAYER_GRACE",
        "VAULTLAYER_VERBOSTY": "VAULTLAYER_VERBOSITY",
        "VAULT_LAYER_GRACE": "VAULTLAYER_GRACE",
    }
    options = [name for _, name in settings_table()]
    assert misspelt_variables(names, options) == sorted(meant)
    for name, known in meant.items():
        with pytest.raises(SettingsError, match=f"there is no variable {name}: did you mean {known}\\?"):
            check_variables([name], options)


@pytest.mark.parametrize(
    ("source", "error"), [("code", TypeError), ("variable", SettingsError), ("configuration", SettingsError)]
)
def test_an_option_that_does_not_exist_is_answered_with_the_one_that_was_meant(
    source: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is named: left out in silence, it would keep three checkpoints where five were asked for."""
    monkeypatch.chdir(tmp_path)
    said = "there is no option keep_lats: did you mean keep_last?"
    if source == "variable":
        monkeypatch.setenv("VAULTLAYER_KEEP_LATS", "5")
        said = "there is no variable VAULTLAYER_KEEP_LATS: did you mean VAULTLAYER_KEEP_LAST?"
    if source == "configuration":
        (tmp_path / "vaultlayer.toml").write_text("keep_lats = 5")
    with pytest.raises(error, match=re.escape(said)):
        choose_vault(None, ["true"]) if source == "configuration" else Settings(
            **({"keep_lats": 5} if source == "code" else {})
        )


def test_an_option_that_is_like_none_is_answered_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is guessed where nothing is near; a variable that is like none may be another program's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAULTLAYER_COLOUR", "red")
    with pytest.raises(TypeError, match="there is no option colour; there are vault, fork, on_fenced"):
        Settings(colour="red")  # type: ignore[call-arg]
    (tmp_path / "vaultlayer.toml").write_text("colour = 'red'")
    with pytest.raises(SettingsError, match=r"there is no option colour; there are vault, .*, spare$"):
        choose_vault(None, ["true"])


def test_paths(tmp_path: Path) -> None:
    """A vault may be given as a path object."""
    assert Settings(vault=tmp_path).vault == str(tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        (None, None),
        (5, 5.0),
        ("5", 5.0),
        ("50MB", 50e6),
        ("50 mb/s", 50e6),
        ("1.5GiB/s", 1.5 * 2**30),
        ("2k", 2e3),
        ("2KiB", 2048.0),
    ],
)
def test_rates(text: Any, rate: float | None) -> None:
    """Bandwidths are numbers or text with the usual units; k, M, G count in thousands, Ki, Mi, Gi in 1024s."""
    assert parse_rate(text) == rate


def test_settings_do_not_change() -> None:
    """Settings are frozen: what a run has begun with is what it goes on with."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().keep_last = 1  # type: ignore[misc]
