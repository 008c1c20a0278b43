"""Which trainings an attempt's notes hold, and which attempts are at which training."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.trainings import newest_of, of_training, parts_of, vaults_of


def note(time: float, kind: str, **fields: Any) -> dict[str, Any]:
    """Return one note."""
    return {"time": time, "kind": kind, **fields}


def stage(time: float, vault: str, *, passed: bool = False) -> list[dict[str, Any]]:
    """Return the notes of one training, from its claim to its end."""
    within = note(time + 2, "vault", event="finished") if passed else note(time + 2, "first-step", step=1)
    return [
        note(time, "vault", event="claim"),
        note(time + 1, "train", step=0, vault=vault),
        within,
        note(time + 3, "trained", step=9),
    ]


HOOKED = note(0.5, "hooked")


def test_a_training_lasts_until_the_next_ones_vault_is_claimed() -> None:
    """What is logged behind its end, as by evaluate(), is its own; where one ends, the next begins."""
    evaluated = note(5, "log", step=9, eval_loss=1.0)
    first, second = parts_of([HOOKED, *stage(1, "a"), evaluated, *stage(10, "b")])
    assert (first.vault, first.begin, first.end, first.over) == ("a", None, 4, True)
    assert first.notes == (HOOKED, *stage(1, "a"), evaluated)
    assert (second.vault, second.begin, second.end) == ("b", 10, None)
    assert second.notes == tuple(stage(10, "b"))


def test_a_second_train_on_the_same_vault_goes_on_with_the_training() -> None:
    """One training whose train() is called twice is one; so are notes that name no vault, and one without an end."""
    twice = [*stage(1, "a"), *stage(10, "a")]
    (one,) = parts_of(twice)
    assert one.notes == tuple(twice)
    (bare,) = parts_of([note(1, "train", step=0), note(2, "train", step=5)])
    assert (bare.vault, bare.over) == ("", False)
    assert parts_of([HOOKED]) == []


def test_a_training_that_was_over_is_passed_by() -> None:
    """A start that trains no step of the first one is about the second: its imports count for that one's start."""
    parts = parts_of([HOOKED, *stage(1, "a", passed=True), *stage(10, "b")])
    assert [part.passed for part in parts] == [True, False]
    assert (parts[1].begin, parts[1].notes[0]) == (None, HOOKED)
    assert newest_of([parts_of(stage(1, "b")), parts_of(stage(10, "a", passed=True))]) == "b"
    assert newest_of([parts_of(stage(1, "a", passed=True))]) == "a"
    assert newest_of([[]]) is None


def test_an_attempt_that_never_trained_counts_for_what_came_next() -> None:
    """One that died in its imports ahead of the second training belongs to it, and the last one to the newest."""
    attempts = [parts_of(notes) for notes in (stage(1, "a"), [HOOKED], stage(10, "b"), [HOOKED])]
    assert vaults_of(attempts) == ["a", "b"]
    assert [place for place, _ in of_training(attempts, "a")] == [0]
    assert [place for place, _ in of_training(attempts, "b")] == [1, 2, 3]
    assert [place for place, _ in of_training([[], []], None)] == [0, 1]
