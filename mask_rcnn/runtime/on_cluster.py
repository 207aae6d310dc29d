"""The option ``--ray`` of a command: which runtime the workers of a cluster have, and starting them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mask_rcnn.run.cluster import Cluster
from mask_rcnn.run.ray_nodes import AUTO as JOINED
from mask_rcnn.run.ray_nodes import LOCAL, Node, ray_address, seats_on
from mask_rcnn.run.ray_worker import Load
from mask_rcnn.runtime.choice import AUTO, KERAS, Runtime, choose_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import inform, step


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Adds the option."""
    parser.add_argument("--ray", type=ray_address, metavar="ADDRESS",
                        help=f"spread the films over a Ray cluster, whose nodes all see them: HOST:PORT of its head, "
                             f"{JOINED} for the one that this machine is a node of, {LOCAL} for one of this machine alone "
                             "(default: no cluster)")


def runtime_on(nodes: Sequence[Node], name: str, device: str) -> tuple[Runtime, str]:
    """The runtime that all workers have, and the device that each has: "cpu" or "gpu".

    Args:
        nodes: of the cluster; none where the networks are to run in this process, on the device that was given.
        name, device: as ``choose_runtime`` takes them.

    Raises:
        DeviceError: as ``choose_runtime``; or the cluster has no GPU, and one is wanted.
    """
    if nodes:
        if ":" in device:
            raise DeviceError(f"--device {device}: Ray gives each worker its GPU; give gpu")
        has_gpus = any(node.gpus for node in nodes)
        if device == "gpu" and not has_gpus:
            raise DeviceError("--device gpu: the cluster has no GPU; give auto or cpu")
        device = "gpu" if device == "gpu" or (device == "auto" and has_gpus and name in (AUTO, KERAS)) else "cpu"
    return choose_runtime(name, device), device


def start_workers(
    nodes: Sequence[Node], runtime: Runtime, device: str, batches: int, load: Load, must_see: Sequence[Path]
) -> Cluster[Any]:
    """Starts workers, as many as there is room for; what they are is a line on standard output.

    Args:
        runtime, device: as ``runtime_on`` gives them.
        batches: that there are to do, of films.
        load: loads the networks in each worker.
        must_see: files and folders that each worker has to find.

    Raises:
        RunError: as ``Cluster``; or there is no room.
    """
    seats = seats_on(nodes, device == "gpu", batches)
    each = f"{seats[0].gpus} GPU" if seats[0].gpus else f"{seats[0].cpus} CPU{'s' * (seats[0].cpus > 1)}"
    count, machines = len(seats), len({seat.node_id for seat in seats})
    inform(f"running {runtime} on {count} worker{'s' * (count > 1)} of {each} on {machines} "
           f"machine{'s' * (machines > 1)}")  # fmt: skip
    with step("waiting for a worker to load the networks"):
        return Cluster(seats, load, must_see)
