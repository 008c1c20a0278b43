"""Nodes that share no file system, and nodes that do: who sends what, who fetches what, and what is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import live, resumed_from_newest, same_run
from tests.ranks.launch import Group, Ranks
from tests.ranks.proxy import Proxy
from tests.servers import SeaweedServer


def two_nodes(forks: ForkServer, folder: Path, **spec: object) -> Ranks:
    """A rank on each of two nodes with folders of their own."""
    return Ranks(forks, folder, [folder / "node-0", folder / "node-1"], **spec)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("new", [0, 1])
def test_one_new_node_while_the_other_has_its_files(
    forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group], new: int, each: bool
) -> None:
    """A node with an empty disk beside one that kept its files: both go on from the same commit, exactly."""
    ranks = two_nodes(forks, tmp_path, vault=str(tmp_path / "vault"), save_on_each_node=each)
    group = ranks.start(per_rank={0: {"at": {"end": {"7": [f"await {tmp_path}/never"]}}}})
    group.await_note(0, event="commit", about=6)
    group.kill_all()
    group.wait()
    shutil.rmtree(ranks.outputs[new])
    again = ranks.start()
    again.succeed()
    same_run(reference("ddp", 2), ranks.attempts)
    assert [again.started(rank) for rank in range(2)] == [6, 6]
    kept = again.events(1 - new, "restore")[0]
    if new == 1 or each:  # node 0 has all that it loads; node 1 lacks the model, which stock never gives it
        assert ("0 B fetched" in kept) == (new == 1)


def test_each_file_is_sent_once_from_a_shared_folder(
    forks: ForkServer, tmp_path: Path, s3_server: SeaweedServer, s3_env: dict[str, str], s3_uri: str
) -> None:
    """Two nodes on one file system: counted at the server's door, every object is put exactly once."""
    with Proxy(s3_server.endpoint) as proxy:
        ranks = Ranks(
            forks,
            tmp_path,
            [tmp_path / "shared"] * 2,
            env={None: {**s3_env, "AWS_ENDPOINT_URL": proxy.endpoint}},
            vault=s3_uri,
        )
        ranks.start(max_steps=4).succeed()
        puts = proxy.puts("/data/")
        assert len(puts) > 10
        assert set(puts.values()) == {1}
        shutil.rmtree(tmp_path / "shared")
        proxy.requests.clear()
        ranks.start(max_steps=6).succeed()
        gets = proxy.gets("/checkpoint-4/")
        assert any(path.endswith("model.safetensors") for path in gets)
        assert set(gets.values()) == {1}, "the ranks of a node fetch each file once, together"


@pytest.mark.parametrize("each", [False, True])
def test_each_file_is_sent_once_from_own_folders(
    forks: ForkServer,
    tmp_path: Path,
    s3_server: SeaweedServer,
    s3_env: dict[str, str],
    s3_uri: str,
    each: bool,
) -> None:
    """Two nodes with own disks: what both hold is put once, and each fetches only what its ranks load."""
    with Proxy(s3_server.endpoint) as first, Proxy(s3_server.endpoint) as second:
        ranks = two_nodes(
            forks,
            tmp_path,
            env={
                None: s3_env,
                0: {"AWS_ENDPOINT_URL": first.endpoint},
                1: {"AWS_ENDPOINT_URL": second.endpoint},
            },
            vault=s3_uri,
            save_on_each_node=each,
        )
        ranks.start(max_steps=4).succeed()
        both = first.puts("/data/") + second.puts("/data/")
        assert {count for path, count in both.items() if not path.endswith("/upload.json")} == {1}
        sent = {path.rpartition("/")[2] for path in second.puts("/checkpoint-4/")}
        mark = "upload.json"  # that the folder is ours: each node puts it, ahead of all that it sends
        assert sent == {"rng_state_1.pth", "vaultlayer_data_1.pt", "part-1.json", mark}
        for output in ranks.outputs:
            shutil.rmtree(output)
        first.requests.clear()
        second.requests.clear()
        ranks.start(max_steps=6).succeed()
        for rank, proxy in enumerate((first, second)):
            fetched = {path.rpartition("/")[2] for path in proxy.gets("/checkpoint-4/")}
            own = {f"rng_state_{rank}.pth", f"vaultlayer_data_{rank}.pt"}
            assert {"model.safetensors", "optimizer.pt"} | own <= fetched
            assert not {f"rng_state_{1 - rank}.pth", f"vaultlayer_data_{1 - rank}.pt"} & fetched


def test_old_folders_go_on_every_node(forks: ForkServer, tmp_path: Path) -> None:
    """Rotation and snapshots: at the end each node holds as much as save_total_limit says, and nothing waits there."""
    ranks = two_nodes(forks, tmp_path, vault=str(tmp_path / "vault"), save_total_limit=1)
    ranks.start().succeed()
    for output in ranks.outputs:
        assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-10"]
        left = [path.name for path in (output / "_vaultlayer").rglob("*") if path.is_file()]
        assert left == []


def test_local_retention_holds_on_every_node(forks: ForkServer, tmp_path: Path) -> None:
    """local_keep_last is applied on nodes that don't commit, too."""
    ranks = two_nodes(
        forks,
        tmp_path,
        vault=str(tmp_path / "vault"),
        save_on_each_node=True,
        settings={"local_keep_last": 2},
        at={"end": {str(step): ["sleep 0.3"] for step in (3, 5, 7, 9)}},
    )
    ranks.start().succeed()
    for output in ranks.outputs:
        names = sorted(path.name for path in output.glob("checkpoint-*"))
        assert names == ["checkpoint-10", "checkpoint-8"]


@pytest.mark.slow
def test_a_node_slower_than_the_saves_costs_only_those_in_between(forks: ForkServer, tmp_path: Path) -> None:
    """A node whose part takes several saves' time: some are abandoned, commits go on, and the last is among them."""
    ranks = two_nodes(
        forks,
        tmp_path,
        vault=str(tmp_path / "vault"),
        per_rank={1: {"settings": {"bandwidth": 50_000}}},  # 75 kB a save, so 1.5 s
        settings={"keep_last": 20},
        max_steps=24,
        at={"end": {str(step): ["sleep 0.1"] for step in range(25)}},
    )
    group = ranks.start()
    group.succeed()
    steps = [commit.step for commit in live(tmp_path / "vault")]
    assert steps[-1] == 24
    assert 3 <= len(steps) < 12
    assert group.events(0, "abandon")
    assert resumed_from_newest(ranks.attempts) == []


def test_a_fork_on_two_nodes(
    forks: ForkServer, tmp_path: Path, reference: Callable[[str, int], Group]
) -> None:
    """Rank 0 decides, each node fetches from the other vault what its ranks load, and the run is the same one."""
    origin = tmp_path / "origin"
    first = two_nodes(forks, tmp_path / "first", vault=str(origin), settings={"keep_last": None})
    first.start().succeed()
    fork = {"fork": f"{origin}@4"}
    second = two_nodes(forks, tmp_path / "second", vault=str(tmp_path / "vault"), settings=fork)
    group = second.start()
    group.succeed()
    assert [group.started(rank) for rank in range(2)] == [4, 4]
    assert all("the fork begins at step 4" in group.events(rank, "restore")[0] for rank in range(2))
    same_run(reference("ddp", 2), [*first.attempts, group])
    wrong = two_nodes(
        forks, tmp_path / "third", vault=str(tmp_path / "other"), settings={"fork": f"{origin}@5"}
    )
    failed = wrong.start()
    assert all(failed.wait(agents=False))
    assert failed.errors().count("holds no checkpoint of step 5") >= 2, "the same error on both ranks"


def test_other_batch_sizes_on_a_node_are_said(forks: ForkServer, tmp_path: Path) -> None:
    """A script that asks for another micro-batch on one node is trained as stock does it, and told what that means."""
    ranks = two_nodes(
        forks, tmp_path, vault=str(tmp_path / "vault"), per_rank={1: {"per_device_train_batch_size": 1}}
    )
    group = ranks.start(max_steps=2)
    group.succeed()
    said = [one for one in group.events(0, "notice") if "dealt out evenly" in one]
    assert len(said) == 1
    assert "rank 0 takes 2 samples 2 times a step and rank 1 takes 1 samples 2 times" in said[0]
