"""What a job of `vl run --on ray` runs on the cluster: a task on each node, which runs `vl run` there.

On one node Ray itself retries the task elsewhere when its node is gone. Several nodes are one training: when one is
gone, all are started again, since Ray retries each task by itself.

The tasks' processes get SIGTERM when their worker ends, in whatever way: nothing outlives the job, and all of it saves.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from vaultlayer_hf.run.engines.jobs.base import LASTING

_WAIT = 60
"""Seconds between two lines that say what is waited for."""
_FAILED = 5
"""Exit code of a job that has been started again as often as it may."""


def main() -> int:
    """Run a job; return its exit code."""
    ray: Any = importlib.import_module("ray")
    asked = _arguments()
    logging.basicConfig(format="%(message)s")
    ray.init(log_to_driver=True)
    if asked.nodes == 1:
        task = ray.remote(**_resources(asked), max_retries=asked.max_restarts, retry_exceptions=True)(
            run_node
        )
        return int(ray.get(task.remote(asked.line, {**_job(), "VL_NODE": "0", "VL_HEAD": "127.0.0.1"})))
    for number in range(asked.max_restarts + 1):
        try:
            return _several(ray, asked, number)
        except ray.exceptions.RayError as error:
            logging.warning("[vl] all nodes are started again: %s", " ".join(str(error).split())[:300])
    return _FAILED


def run_node(line: str, variables: dict[str, str]) -> int:
    """Run a line of a shell on this node until it has ended; return its exit code where another start won't help.

    Raises RuntimeError, which Ray retries, where it will.
    """
    process = subprocess.Popen(
        ["sh", "-c", f"exec {line}"], env={**os.environ, **variables}, preexec_fn=_end_with_parent
    )
    code = process.wait()
    if code == 0 or code in LASTING:
        return code
    raise RuntimeError(f"vl run has ended with {code}")


def address() -> tuple[str, int]:
    """Return this node's address and a port of it that is free."""
    ray: Any = importlib.import_module("ray")
    with socket.socket() as one:
        one.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(one.getsockname()[1])


def _several(ray: Any, asked: argparse.Namespace, number: int) -> int:
    """Start all nodes, once; return the exit code. Raises RayError."""
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    sizes = _resources(asked)
    bundle = {"CPU": sizes["num_cpus"], **({"GPU": sizes["num_gpus"]} if sizes["num_gpus"] else {})}
    group = placement_group([bundle] * asked.nodes, strategy="STRICT_SPREAD")
    try:
        while not group.wait(_WAIT):
            logging.warning("[vl] waiting for %d nodes with %s each, all at once", asked.nodes, bundle)

        def on(node: int, **options: Any) -> Any:
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
            return ray.remote(**options, scheduling_strategy=where, max_retries=0)

        head, port = ray.get(on(0, num_cpus=0)(address).remote())
        # Nodes that share a disk don't share a run folder: each `vl run` keeps its own journal.
        home = os.environ.get("VAULTLAYER_RUN_DIR", ".vl")
        shared = {"VL_HEAD": head, "VL_PORT": str(port), **_job(), "VL_TIME": str(number)}
        tasks = [
            on(node, **sizes)(run_node).remote(
                asked.line,
                {
                    **shared,
                    "VL_NODE": str(node),
                    "VAULTLAYER_RUN_DIR": f"{home}/nodes/{node}" if node else home,
                },
            )
            for node in range(asked.nodes)
        ]
        left, codes = tasks, []
        while left:
            done, left = ray.wait(left)
            codes += ray.get(done)  # raises where the node, or its worker, is gone
            if codes[-1]:
                break  # the others would wait for this one in vain
        return int(max(codes))
    finally:
        remove_placement_group(group)  # ends the workers in it, and so what they run


def _resources(asked: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"num_cpus": asked.cpus, "num_gpus": asked.gpus}
    return {**found, "accelerator_type": asked.gpu_kind} if asked.gpu_kind else found


def _job() -> dict[str, str]:
    return {"VL_JOB": os.environ.get("RAY_JOB_SUBMISSION_ID", "job"), "VL_PORT": "29400"}


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("--gpu-kind", default="")
    parser.add_argument("--cpus", type=float, default=1)
    parser.add_argument("--max-restarts", type=int, default=0)
    parser.add_argument("--grace", type=float, default=300)
    parser.add_argument("line")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
