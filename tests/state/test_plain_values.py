"""Values of a script's own objects, kept and put back."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

from vaultlayer_hf.state.plain_values import Room, UnkeptError, put_value, take_value


class Client:
    """An object of a script's own that has logged in somewhere."""

    def __init__(self) -> None:
        self.token, self.seen = "0123456789", 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "0123456789"),
        ("header", "hf_" + "a" * 34),
        ("headers", {"note": "x", "password": "0123456789"}),
        ("client", Client()),
        ("urls", ["https://me:0123456789@example.org/"]),
        ("line", "Bearer planted-in-a-variable"),
    ],
)
def test_a_secret_is_not_kept(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is a secret by its name, its form or this process's variables gets into no checkpoint."""
    monkeypatch.setenv("TRACKER_TOKEN", "planted-in-a-variable")
    with pytest.raises(UnkeptError):
        take_value(value, Room(), name=name)


def test_what_only_sounds_like_one_is_kept() -> None:
    """Counts of tokens and words about keys are state like any other."""
    for name, value in {"num_tokens": 7, "token": 7, "best_key": "eval_loss", "tokens": ["a", "b"]}.items():
        assert take_value(value, Room(), name=name)


@pytest.mark.parametrize("value", [torch.zeros(2), numpy.zeros(2)])
def test_it_can_be_put_back_once_more(value: Any) -> None:
    """What changes a value that was put back changes nothing of what is kept."""
    kept = take_value(value, Room())
    put_value(kept, None)[:] = 1
    assert put_value(kept, None).tolist() == [0, 0]
