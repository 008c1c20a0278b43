"""Clusters of engines, each started once or for one test, and what an unbroken run ends with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import ray, slurm
from tests.run.programs import plain


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.SlurmCluster]:
    """Two nodes under Slurm."""
    made = slurm.SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        print(made.logs())
        made.close()


@pytest.fixture
def ray_cluster(s3_env: dict[str, str]) -> Iterator[ray.RayCluster]:
    """Two raylets whose jobs know the S3 server."""
    # A job of Ray has the variables of the node, not of who hands it in.
    made = ray.RayCluster({**s3_env, "PACE": "0.7"})
    try:
        made.start()
        yield made
    finally:
        print(made.logs())
        made.close()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the script's run that nothing disturbs, without any of this."""
    return plain(tmp_path_factory.mktemp("plain")).weights
