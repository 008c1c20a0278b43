"""Retention: decisions with reasons, and the state that each entry carries. Pure functions, any input."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.retention.policy import Policy, decide_retention


def commit_of(
    number: int, step: int, token: int = 1, *, pinned: bool = False, left_behind: bool = False
) -> Commit:
    """Return a commit as the log would list it."""
    folder = f"data/{token}/checkpoint-{step}"
    return Commit(number, token, number, step, folder, "", 1, 1, "blake3:" + "0" * 64, 1, pinned, left_behind)


@st.composite
def histories(draw: st.DrawFn) -> list[Commit]:
    """Commits in the log's order, of any steps, writers and marks."""
    count = draw(st.integers(0, 12))
    return [
        commit_of(
            2 * index + 2,
            draw(st.integers(0, 20)) * 50,
            draw(st.integers(1, 3)),
            pinned=draw(st.booleans()),
            left_behind=draw(st.booleans()),
        )
        for index in range(count)
    ]


policies = st.builds(
    Policy,
    last=st.none() | st.integers(1, 6),
    every=st.none() | st.integers(1, 300),
    best=st.booleans(),
)


@given(histories(), policies, st.none() | st.integers(0, 20), st.sets(st.integers(0, 30)))
def test_what_must_stay_stays(
    commits: list[Commit], policy: Policy, best: int | None, protected: set[int]
) -> None:
    """The newest, the pinned and the protected are always kept, each decision has a reason, and none is left out."""
    decisions = decide_retention(commits, policy, best_step=best, protected=protected)
    assert [decision.commit for decision in decisions] == commits
    assert all(decision.reason for decision in decisions)
    kept = {decision.commit.number for decision in decisions if decision.keep}
    line = [commit for commit in commits if not commit.left_behind]
    assert {commit.number for commit in line[-1:]} <= kept
    assert {commit.number for commit in commits if commit.pinned or commit.number in protected} <= kept
    if policy.last is None:
        assert kept == {commit.number for commit in commits}
    else:
        assert {commit.number for commit in line[-policy.last :]} <= kept
    if policy.every:
        assert {commit.number for commit in line if commit.step % policy.every == 0} <= kept
    if policy.best and best is not None:
        named = [commit.number for commit in line if commit.step == best]
        assert set(named[-1:]) <= kept


@given(histories(), policies, st.none() | st.integers(0, 20))
def test_what_is_over_goes(commits: list[Commit], policy: Policy, best: int | None) -> None:
    """A commit that no rule names is dropped: space is bounded by the policy."""
    for decision in decide_retention(commits, policy, best_step=best):
        commit = decision.commit
        line = [other for other in commits if not other.left_behind]
        named = (
            commit.pinned
            or policy.last is None
            or commit in line[-policy.last :]
            or commit in commits[-policy.last :]
            or (policy.every and commit.step % policy.every == 0 and not commit.left_behind)
            or (policy.best and commit.step == best and not commit.left_behind)
        )
        if not named:
            assert not decision.keep


@given(histories(), policies, st.none() | st.integers(0, 20), st.sets(st.integers(0, 30)))
def test_a_second_look_drops_nothing_that_the_first_kept_as_newest(
    commits: list[Commit], policy: Policy, best: int | None, protected: set[int]
) -> None:
    """Applying a policy again to what it kept leaves the checkpoint to resume from, and all of its last ones."""
    kept = [
        item.commit
        for item in decide_retention(commits, policy, best_step=best, protected=protected)
        if item.keep
    ]
    again = [
        item.commit
        for item in decide_retention(kept, policy, best_step=best, protected=protected)
        if item.keep
    ]
    state, later = VaultState("v", 99, tuple(kept)), VaultState("v", 99, tuple(again))
    assert state.newest == later.newest == VaultState("v", 99, tuple(commits)).newest


def test_commits_that_the_run_left_behind_push_nobody_out() -> None:
    """Abandoned commits don't count among the last n of the run."""
    commits = [commit_of(2, 100), commit_of(3, 200, left_behind=True), commit_of(4, 300, left_behind=True)]
    commits.append(commit_of(6, 150, 5))
    kept = [item.commit.step for item in decide_retention(commits, Policy(last=2)) if item.keep]
    assert kept == [100, 300, 150]
    commits.append(commit_of(7, 250, 5))
    assert [item.commit.step for item in decide_retention(commits, Policy(last=2)) if item.keep] == [150, 250]


def test_reasons_are_for_people() -> None:
    """Each kind of decision says why in plain words."""
    commits = [
        commit_of(2, 50),
        commit_of(3, 100),
        commit_of(4, 150, pinned=True),
        commit_of(5, 200),
        commit_of(6, 250),
        commit_of(7, 260, left_behind=True),
        commit_of(9, 300, 8),
        commit_of(10, 350, 8),
    ]
    found = decide_retention(commits, Policy(last=2, every=100), best_step=250, protected={2})
    assert [(item.commit.step, item.keep, item.reason) for item in found] == [
        (50, True, "a start went on from it"),
        (100, True, "step is a multiple of 100"),
        (150, True, "pinned"),
        (200, True, "step is a multiple of 100"),
        (250, True, "the best"),
        (260, False, "the run went on from an older one"),
        (300, True, "among the last 2"),
        (350, True, "the newest"),
    ]


# The state after each entry ----------------------------------------------------------------------------


def after(state: VaultState, number: int, step: int, token: int, resumed_from: int | None) -> VaultState:
    """Return the state after a commit."""
    return state.committed(commit_of(number, step, token), resumed_from=resumed_from, best_step=None)


def line(state: VaultState) -> list[int]:
    """Return the steps of the commits that the run may walk back to."""
    return [commit.step for commit in state.commits if not commit.left_behind]


def test_a_run_that_goes_on_from_an_older_commit_leaves_the_newer_ones_behind() -> None:
    """What another writer committed after the commit that was resumed from is abandoned by the first new commit."""
    state = VaultState("v", 1)
    for number, step in ((2, 100), (3, 200), (4, 300)):
        state = after(state, number, step, 1, None)
    state = after(state.claimed(5), 6, 150, 5, 2)
    assert line(state) == [100, 150]
    state = after(state, 7, 250, 5, 2)
    assert line(state) == [100, 150, 250]
    assert state.newest is not None
    assert state.newest.step == 250


def test_a_run_from_step_0_leaves_everything_behind() -> None:
    """A run that was started from elsewhere never walks back into another's checkpoints."""
    state = after(VaultState("v", 1), 2, 100, 1, None)
    assert line(after(state.claimed(3), 4, 10, 3, None)) == [10]


def test_a_run_that_was_left_behind_and_is_taken_up_again_is_on_the_way() -> None:
    """A commit that was left behind and is then resumed from is what a later walk back leads to."""
    state = VaultState("v", 1)
    for number, step in ((2, 100), (3, 200)):
        state = after(state, number, step, 1, None)
    state = after(state.claimed(4), 5, 150, 4, 2)
    assert line(state) == [100, 150]
    state = after(state.claimed(6), 7, 250, 6, 3)
    assert line(state) == [100, 200, 250]


def test_the_origin_of_a_run_is_a_live_commit() -> None:
    """The commit that a run went on from is found by its entry's number, or what is left before it."""
    state = VaultState("v", 9, (commit_of(2, 100), commit_of(4, 200), commit_of(6, 300)))
    assert state.origin(4) == state.commits[1]
    assert state.origin(5) == state.commits[1]
    assert state.origin(None) is None
    assert state.origin(1) is None


@given(histories(), st.sets(st.integers(0, 30)))
def test_retiring_takes_exactly_what_it_names(commits: list[Commit], numbers: set[int]) -> None:
    """Retirement moves the named commits' folders to what is to be deleted, but for pinned ones, and nothing else."""
    taken = {commit.number for commit in commits if commit.number in numbers and not commit.pinned}
    state = VaultState("v", 40, tuple(commits), retiring=("data/1/old",))
    retired = state.retired(numbers)
    assert {commit.number for commit in retired.commits} == {item.number for item in commits} - taken
    gone = [commit.folder for commit in commits if commit.number in taken]
    assert retired.retiring == ("data/1/old", *gone)
    assert retired.deleted(set(retired.retiring)).retiring == ()
    assert replace(retired, commits=state.commits, retiring=state.retiring) == state
