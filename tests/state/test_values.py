"""Values of a script's own objects, kept and put back."""

from __future__ import annotations

import io
from array import array
from typing import Any

import numpy
import pytest
import torch

from vaultlayer_hf.state.fingerprints import moved, take_fingerprints
from vaultlayer_hf.state.object_kinds import is_meter, may_hide_state
from vaultlayer_hf.state.put_values import fits, put_value
from vaultlayer_hf.state.take_values import Room, UnkeptError, take_value


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
        ("raw", b"Bearer planted-in-a-variable"),
        ("token", bytearray(b"0123456789")),
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


def _library(**members: Any) -> Any:
    """Return a new object of a class that isn't the script's own."""
    return type("Meter", (), {"__module__": "sysconfig", **members})()


def _meter() -> Any:
    made = _library()
    vars(made).update(total=0.0, seen=[], scale=torch.zeros(2), render=str)
    return made


class Momentum(torch.optim.Optimizer):
    """Keeps its state in attributes of its own, and tells a part of it in a form of its own."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.speed, self.steps = torch.zeros(2), 0

    def step(self, closure: Any = None) -> None:
        self.speed += 1
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"speed": self.speed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.speed.copy_(state["speed"])


class Bare(torch.optim.Optimizer):
    """Is an optimizer by its name alone."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, closure: Any = None) -> None:
        self.steps += 1


class Many:
    """Has more attributes than of a container are looked at."""

    def __init__(self) -> None:
        vars(self).update({f"option_{number}": number for number in range(99)}, total=0)


def _many_modules(dropout: float = 0.1) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(40)), torch.nn.Dropout(dropout))


def _nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"count": 0}
    for _ in range(depth):
        made = {"in": made}
    return made


def _innermost(value: dict[str, Any]) -> dict[str, Any]:
    while "in" in value:
        value = value["in"]
    return value


def _count_meter(value: Any) -> None:
    value.total += 1.5
    value.seen.append(3)
    value.scale += 1


_MOVING = {
    "array": (lambda: array("d", [0, 1]), lambda value: value.append(2)),
    "empty array": (lambda: array("i"), lambda value: value.append(2)),
    "bytearray": (lambda: bytearray(b"ab"), lambda value: value.extend(b"c")),
    "in a dict": (lambda: {"a": bytearray(1), "b": b""}, lambda value: value.update(b=b"x")),
    "4 deep": (lambda: _nested(4), lambda value: _innermost(value).update(count=1)),
    "12 deep": (lambda: _nested(12), lambda value: _innermost(value).update(count=1)),
    "a tensor 5 deep": (
        lambda: {"a": {"b": {"c": {"d": [torch.zeros(2)]}}}},
        lambda value: value["a"]["b"]["c"]["d"][0].add_(1),
    ),
    "a library's meter": (_meter, _count_meter),
    "meters in a dict": (lambda: {"loss": _meter()}, lambda value: _count_meter(value["loss"])),
    "an optimizer": (lambda: Momentum([torch.zeros(2)]), lambda value: value.step()),
    "a bare optimizer": (Bare, lambda value: value.step()),
    "many attributes": (Many, lambda value: vars(value).update(total=1)),
    "many modules": (_many_modules, lambda value: value[0].weight.data.add_(1)),
}


def _shown(value: Any) -> Any:
    """Return what of a value is to be the same."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, torch.nn.Module):
        return _shown(dict(value.state_dict()))
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    if isinstance(value, list):
        return list(map(_shown, value))
    if isinstance(value, (array, bytearray, bytes, int, float, str, type)):
        return value
    return _shown(
        {
            name: one
            for name, one in vars(value).items()
            if name in ("total", "seen", "scale", "speed", "steps")
        }
    )


@pytest.mark.parametrize("what", _MOVING)
def test_what_moves_is_seen_and_comes_back(what: str, tmp_path: Any) -> None:
    """Whatever holds it: rows of bytes, dictionaries however deep, a library's meter, an optimizer of the script's."""
    make, move = _MOVING[what]
    value, new = make(), make()
    then = take_fingerprints({"it": {"value": value}}, ())
    assert not moved(then, take_fingerprints({"it": {"value": value}}, ()))
    move(value)
    assert moved(then, take_fingerprints({"it": {"value": value}}, ())) == ["it.value"]
    torch.save(take_value(value, Room(), first=then["it.value"]), tmp_path / "kept")
    kept = torch.load(tmp_path / "kept", weights_only=True)
    assert fits(kept, new)
    assert _shown(new) != _shown(value)
    assert _shown(put_value(kept, new)) == _shown(value)
    assert put_value(kept, new) is new  # others may hold it, too


def test_what_has_not_moved_is_this_starts() -> None:
    """Numbers of a large module that training doesn't change are as this start makes them."""
    value, new = _many_modules(), _many_modules(0.5)
    then = take_fingerprints({"it": {"value": value}}, ())
    value[0].weight.data.add_(1)
    kept = take_value(value, Room(), first=then["it.value"])
    put_value(kept, new)
    assert (new[0].weight.item(), new[-1].p) == (value[0].weight.item(), 0.5)


def test_in_data_no_meter_is_looked_at() -> None:
    """A library's transform keeps what it did last, which is no state: nothing is said of it where it can't be told."""
    held = {"it": {"transforms": [_meter()], "rows": [1]}}
    then = take_fingerprints(held, (), meters=False)
    _count_meter(held["it"]["transforms"][0])
    held["it"]["rows"].append(2)
    assert moved(then, take_fingerprints(held, (), meters=False)) == ["it.rows"]


def test_what_cannot_be_loaded_is_not_kept() -> None:
    """An optimizer that tells no groups, and leaves the load to torch, is said at the save, not at the resume alone."""
    told = type("Told", (Momentum,), {"load_state_dict": torch.optim.Optimizer.load_state_dict})
    with pytest.raises(UnkeptError):
        take_value(told([torch.zeros(2)]), Room())


def test_one_value_that_cannot_be_looked_at_hides_no_other() -> None:
    """It counts as changed, and of the others is seen what there is to see."""

    class Odd(torch.nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            raise RuntimeError

    held = {"odd": Odd(), "count": 0}
    then = take_fingerprints({"it": held}, ())
    held["count"] = 1
    assert moved(then, take_fingerprints({"it": held}, ())) == ["it.odd", "it.count"]


def test_what_is_a_meter() -> None:
    """A bar on a screen, a file, a tracker, an object with something in C, or of the script's own, is none."""
    bar = _library(close=lambda self: None)
    vars(bar).update(n=0)
    hiding = _meter()
    vars(hiding).update(inner=memoryview(b"x"))
    assert is_meter(_meter())
    others = [bar, hiding, _library(), io.BytesIO(), ValueError("x"), Client(), torch.nn.Linear(1, 1)]
    assert not any(map(is_meter, others))


def test_what_may_hide_state() -> None:
    """A library's table or index may, as nobody sees what is in it; what is looked at, or is a file, doesn't."""
    table = type("Table", (), {"__module__": "pytest"})()
    bar = type("Bar", (), {"__module__": "pytest", "close": None})()
    assert may_hide_state(table)
    assert not any(map(may_hide_state, [bar, _meter(), Client(), [1], torch.zeros(1), str, io.BytesIO()]))
