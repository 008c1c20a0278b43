"""What one rank or node can do to the others: nothing but cost a checkpoint, or end the run with one clear error."""

from __future__ import annotations

import platform
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import live, same_run
from tests.ranks.launch import Group, Ranks
from tests.ranks.proxy import Proxy
from tests.ranks.test_nodes import two_nodes
from tests.servers import SeaweedServer
from vaultlayer_hf import open_vault
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault.log.log import Log, Writer


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_the_storage_of_one_node_is_cut_and_comes_back(
    forks: ForkServer,
    tmp_path: Path,
    s3_server: SeaweedServer,
    s3_env: dict[str, str],
    s3_uri: str,
    reference: Callable[[str, int], Group],
    node: int,
) -> None:
    """Training goes on without a commit, rank 0 names the node and the reason; storage back: the next save commits."""
    cut, back = tmp_path / "cut", tmp_path / "back"
    with Proxy(s3_server.endpoint) as proxy:
        ranks = two_nodes(
            forks,
            tmp_path,
            env={None: s3_env, node: {"AWS_ENDPOINT_URL": proxy.endpoint}},
            vault=s3_uri,
            at={"end": {"1": [f"await {cut}"], "3": ["sleep 2"], "7": [f"await {back}"]}},
        )
        group = ranks.start()
        group.await_note(0, step=1)
        proxy.cut = True
        cut.touch()
        group.await_note(0, step=7)
        assert group.events(0, "commit") == []
        said = group.events(0, "trouble")
        assert any(text.startswith(f"rank {node} on {platform.node()}: ") for text in said), said
        assert any("exposure: " in text for text in said)
        proxy.cut = False
        back.touch()
        group.succeed()
        assert [commit.step for commit in live(s3_uri)][-1] == 10
        same_run(reference("ddp", 2), ranks.attempts)


def test_wrong_credentials_on_one_node(
    forks: ForkServer, tmp_path: Path, s3_server: SeaweedServer, s3_env: dict[str, str], s3_uri: str
) -> None:
    """The run ends as trained, without a commit; rank 0 has named the node and that it was denied, and no secret."""
    ranks = two_nodes(
        forks,
        tmp_path,
        env={None: s3_env, 1: {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}},
        vault=s3_uri,
        at={"end": {"3": ["sleep 1"]}},
        settings={"flush_timeout": 3.0},
    )
    group = ranks.start(max_steps=6)
    group.succeed()
    assert live(s3_uri) == []
    said = [text for text in group.events(0, "trouble") if text.startswith("rank 1 on ")]
    assert said
    assert "the secret key is wrong" in said[-1]
    assert "not-the-secret" not in group.errors()
    assert s3_server.secret_key not in group.errors()


def _blocked_run(forks: ForkServer, folder: Path, s3_env: dict[str, str], s3_uri: str, proxy: Proxy) -> Ranks:
    """Two nodes of which node 1 can't upload behind checkpoint-2, killed at step 9: both hold sealed snapshots."""
    ranks = two_nodes(
        forks, folder, env={None: s3_env, 1: {"AWS_ENDPOINT_URL": proxy.endpoint}}, vault=s3_uri
    )
    cut, never = folder / "cut", folder / "never"
    group = ranks.start(at={"end": {"3": [f"await {cut}"], "9": [f"await {never}"]}})
    group.await_note(0, event="commit", about=2)
    proxy.cut = True
    cut.touch()
    group.await_note(0, step=9)
    group.await_note(1, step=9)
    for rank, output in enumerate(ranks.outputs):
        _await_sealed(output, group, rank)
    group.kill_all()
    group.wait()
    proxy.cut = False
    return ranks


def _await_sealed(output: Path, group: Group, rank: int) -> None:
    deadline = time.monotonic() + 30
    while not list(output.glob("_vaultlayer/*/*/*-checkpoint-8/manifest.json")):
        assert time.monotonic() < deadline, f"rank {rank} never sealed checkpoint-8:\n{group.errors()}"
        time.sleep(0.02)


@pytest.mark.parametrize(("unsealed", "words"), [((), "(sealed)"), ((0, 1), "(whole,"), ((1,), "(whole,")])
def test_a_snapshot_that_all_nodes_hold_is_adopted(
    forks: ForkServer,
    tmp_path: Path,
    s3_server: SeaweedServer,
    s3_env: dict[str, str],
    s3_uri: str,
    reference: Callable[[str, int], Group],
    unsealed: tuple[int, ...],
    words: str,
) -> None:
    """Sealed or whole on both nodes, newer than the newest commit: the run goes on from it exactly, and commits it."""
    with Proxy(s3_server.endpoint) as proxy:
        ranks = _blocked_run(forks, tmp_path, s3_env, s3_uri, proxy)
        assert [commit.step for commit in live(s3_uri)] == [2]
        for node in unsealed:  # as where the kill had come before the seal
            for seal in ranks.outputs[node].glob("_vaultlayer/*/*/*/manifest.json"):
                seal.unlink()
        again = ranks.start()
        again.succeed()
        assert [again.started(rank) for rank in range(2)] == [8, 8]
        assert f"complete on all nodes {words}" in again.events(0, "adopt")[0]
        assert [commit.step for commit in live(s3_uri)] == [2, 8, 10]
        same_run(reference("ddp", 2), ranks.attempts)


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_snapshot_that_one_node_lacks_isnt_adopted(
    forks: ForkServer,
    tmp_path: Path,
    s3_server: SeaweedServer,
    s3_env: dict[str, str],
    s3_uri: str,
    reference: Callable[[str, int], Group],
    damage: str,
) -> None:
    """One part gone or damaged: the newest commit counts, on all nodes alike."""
    with Proxy(s3_server.endpoint) as proxy:
        ranks = _blocked_run(forks, tmp_path, s3_env, s3_uri, proxy)
        for snapshot in ranks.outputs[1].glob("_vaultlayer/*/*/*-checkpoint-*"):
            if damage == "missing":
                shutil.rmtree(snapshot)
                continue
            data = bytearray((snapshot / "files" / "rng_state_1.pth").read_bytes())
            data[100] ^= 1
            (snapshot / "files" / "rng_state_1.pth").write_bytes(data)
        again = ranks.start()
        again.succeed()
        assert [again.started(rank) for rank in range(2)] == [2, 2]
        assert again.events(0, "adopt") == []
        if damage == "flipped":
            assert "isn't adopted" in again.events(0, "walk-back")[0]
        same_run(reference("ddp", 2), ranks.attempts)


def test_a_stopped_rank_costs_that_checkpoint(
    forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group]
) -> None:
    """A rank that stands still at a save is named after part_timeout; back again, the next save commits."""
    ranks = Ranks(
        forks,
        tmp_path,
        [tmp_path / "output"] * 2,
        vault=str(tmp_path / "vault"),
        settings={"part_timeout": 2.0},
        per_rank={1: {"at": {"saved": {"4": ["stop"]}}}},
    )
    group = ranks.start()
    group.runs[1].wait_stopped()
    group.await_note(0, event="abandon", about=4)
    group.runs[1].signal(signal.SIGCONT)
    group.succeed()
    assert "no word from rank 1 within 2 s" in group.events(0, "abandon")[0]
    steps = [commit.step for commit in live(tmp_path / "vault")]
    assert 4 not in steps
    assert steps[-1] == 10
    same_run(reference("ddp", 2), ranks.attempts)


def test_a_rank_that_fails_in_a_save_isnt_waited_for(forks: ForkServer, tmp_path: Path) -> None:
    """The others would wait for part_timeout, deaf to a launcher's SIGTERM: they are told, and all end at once."""
    ranks = Ranks(
        forks,
        tmp_path,
        [tmp_path / "output"] * 2,
        vault=str(tmp_path / "vault"),
        per_rank={1: {"at": {"saved": {"4": ["fail"]}}}},
    )
    group = ranks.start()
    assert group.wait(timeout=60, agents=False) == [1, 1]
    assert "ValueError: fail" in group.errors()
    assert f"rank 1 on {platform.node()} has ended its training" in group.events(0, "abandon")[0]
    assert [commit.step for commit in live(tmp_path / "vault")] == [2]


def test_a_snapshot_that_one_node_cant_take(
    forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group]
) -> None:
    """A node that can't freeze its folder costs that checkpoint, named with rank and host; the next one commits."""
    go, on = tmp_path / "go", tmp_path / "on"
    ranks = two_nodes(
        forks,
        tmp_path,
        vault=str(tmp_path / "vault"),
        at={"end": {"3": [f"await {go}"], "5": [f"await {on}"]}},
    )
    group = ranks.start()
    group.await_note(0, event="commit", about=2)
    folder = next((tmp_path / "node-1").glob("_vaultlayer/*/*"))
    shutil.rmtree(folder)
    folder.touch()
    go.touch()
    group.await_note(0, event="abandon", about=4)
    folder.unlink()
    on.touch()
    group.succeed()
    assert f"rank 1: on {platform.node()}, it can't be copied for upload" in group.events(0, "abandon")[0]
    steps = [commit.step for commit in live(tmp_path / "vault")]
    assert 4 not in steps
    assert steps[-1] == 10
    same_run(reference("ddp", 2), ranks.attempts)


def test_ranks_that_would_train_alone_are_refused(forks: ForkServer, tmp_path: Path) -> None:
    """Under torchrun on CPU without use_cpu=True each rank would train alone on one vault: said, before training."""
    group = Ranks(
        forks, tmp_path, [tmp_path / "output"] * 2, vault=str(tmp_path / "vault"), kind="alone"
    ).start()
    assert group.wait(agents=False) == [1, 1]
    for run in group.runs:
        assert "SettingsError: there are 2 ranks" in (run.folder / "stderr").read_text()
    assert not (tmp_path / "vault").exists()


@pytest.mark.parametrize(
    ("action", "code"), [("kill", -9), pytest.param("sleep 8", 1, marks=pytest.mark.slow)]
)
def test_a_rank_that_is_lost_in_the_start_is_said(
    forks: ForkServer, tmp_path: Path, action: str, code: int
) -> None:
    """One dead, or one that comes far too late: the others end with RanksError within the bound, not in a hang."""
    ranks = two_nodes(
        forks,
        tmp_path,
        vault=str(tmp_path / "vault"),
        settings={"part_timeout": 2.0},
        per_rank={1: {"before": [action]}},
    )
    begin = time.monotonic()
    group = ranks.start()
    assert group.wait(timeout=60) == [1, code]
    assert time.monotonic() - begin < 50
    assert "RanksError: not all ranks have come here within 2 s" in group.errors()


def test_a_fenced_run_stops_at_the_same_step_on_all_ranks(forks: ForkServer, tmp_path: Path) -> None:
    """Another process claims the vault: both ranks raise FencedError at the end of one step, soon."""
    vault, claimed = tmp_path / "vault", tmp_path / "claimed"
    ranks = two_nodes(
        forks,
        tmp_path,
        vault=str(vault),
        max_steps=80,
        save_steps=30,
        at={"end": {"6": [f"await {claimed}"], **{str(step): ["sleep 0.05"] for step in range(31, 80)}}},
    )
    group = ranks.start()
    group.await_note(0, step=6)
    store = open_store(parse_vault(str(vault)))
    Writer.claim(store, Log(store))
    claimed.touch()
    assert group.wait(agents=False) == [1, 1]
    last = [max(note["step"] for note in group.notes(rank) if set(note) == {"step"}) for rank in range(2)]
    assert last[0] == last[1]
    assert 30 < last[0] < 60, "soon, and not only at a save"
    for run in group.runs:
        assert "FencedError" in (run.folder / "stderr").read_text()


@pytest.mark.parametrize("node", [0, 1])
def test_a_full_disk_on_one_node_is_the_same_error_on_all(
    forks: ForkServer, tmp_path: Path, node: int
) -> None:
    """A restore that one node can't write ends the start on all ranks, with that node's rank and reason."""
    ranks = two_nodes(forks, tmp_path, vault=str(tmp_path / "vault"))
    ranks.start(max_steps=4).succeed()
    for output in ranks.outputs:
        shutil.rmtree(output)
    group = ranks.start(per_rank={node: {"file_limit": 8192}})
    assert group.wait(agents=False) == [1, 1]
    for run in group.runs:
        last = (run.folder / "stderr").read_text()
        assert f"ResumeError: rank {node} on {platform.node()}: checkpoint-4 can't be restored" in last
        assert "File too large" in last
    assert [group.started(rank) for rank in range(2)] == [None, None]


def test_a_rank_that_can_not_write_costs_checkpoints_on_all(forks: ForkServer, tmp_path: Path) -> None:
    """Where one rank has no room for its file of a checkpoint all go on without that checkpoint, to the last step."""
    vault = tmp_path / "vault"
    ranks = two_nodes(forks, tmp_path, vault=str(vault))
    group = ranks.start(max_steps=4, per_rank={1: {"file_limit": 12_000}})
    group.succeed()
    said = (group.runs[0].folder / "stderr").read_text()
    assert (
        "checkpoint-4 isn't committed, training goes on: rank 1: it can't be written: the disk is full"
        in said
    )
    with open_vault(vault) as opened:
        assert opened.checkpoints() == []
    assert not list(tmp_path.glob("**/checkpoint-*"))


@pytest.mark.parametrize("empty", [True, False])
def test_killed_between_rank_0s_save_and_the_others(
    forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group], empty: bool
) -> None:
    """With save_total_limit=1 stock has one torn checkpoint then; here the one before is in the vault."""
    ranks = Ranks(
        forks, tmp_path, [tmp_path / "output"] * 2, vault=str(tmp_path / "vault"), save_total_limit=1
    )
    group = ranks.start(per_rank={1: {"slow_rng": 1.5}}, at={"end": {"3": [f"await {tmp_path}/go"]}})
    group.await_note(0, event="commit", about=2)
    (tmp_path / "go").touch()
    torn = tmp_path / "output" / "checkpoint-4"
    deadline = time.monotonic() + 60
    while not (torn / "trainer_state.json").exists() or (tmp_path / "output" / "checkpoint-2").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    group.kill_all()
    group.wait()
    assert not (torn / "rng_state_1.pth").exists(), "the kill came too late to prove anything"
    if empty:
        shutil.rmtree(tmp_path / "output")
    again = ranks.start()
    again.succeed()
    assert [again.started(rank) for rank in range(2)] == [2, 2]
    same_run(reference("ddp", 2), ranks.attempts)
