"""Joining a Ray cluster, or starting one on this machine, and where on it there is a seat for a worker."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from mask_rcnn.films.images import in_one_line
from mask_rcnn.run.folder import RunError
from mask_rcnn.system.console import step
from mask_rcnn.system.silence import silent_descriptor

LOCAL, AUTO = "local", "auto"  # what --ray takes besides HOST:PORT
CPUS = 4  # of a worker, at most: networks gain little from more, and Python's threads wait for one another
OBJECTS = 2**29  # bytes for results on their way, in a cluster that is started here
ANSWER = 60.0  # seconds in which a cluster has to answer

_ADDRESS = re.compile(r"([^:/\s]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")


class Node(NamedTuple):
    """A machine of the cluster."""

    id: str
    name: str
    cpus: int
    gpus: int


class Seat(NamedTuple):
    """Where a worker is started first; where its machine is lost, another one takes it."""

    node_id: str
    number: int  # on its node
    node: str  # by name
    cpus: int
    gpus: int


def ray_address(text: str) -> str:
    """``local``, ``auto`` or ``HOST:PORT``, as ``type`` of an option."""
    if text in (LOCAL, AUTO) or _ADDRESS.fullmatch(text):
        return text
    where = "; run the command on a node of the cluster" if text.startswith("ray://") else ""
    raise argparse.ArgumentTypeError(f"must be {LOCAL}, {AUTO} or HOST:PORT, not {text}{where}")


@contextmanager
def joined(address: str | None) -> Iterator[list[Node]]:
    """Joins a cluster, or starts one on this machine, while the block runs; gives its machines.

    Args:
        address: as ``ray_address`` takes it: HOST:PORT of the cluster's head, "auto" for the cluster that this machine is a
            node of, or "local" for one of this machine alone, which ends with the block. None joins none, and gives no
            machine.

    Raises:
        RunError: Ray is not installed, or nothing answers.
    """
    if address is None:
        yield []
        return
    if importlib.util.find_spec("ray") is None:
        raise RunError('--ray: ray is not installed; pip install ".[ray]"')
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a hospital's machines goes anywhere
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    import ray._private.worker as unheard

    warnings.filterwarnings("ignore", module=r"ray\.")
    # What Ray has to say of each worker that ends, at length and on standard output; nothing it is a setting of.
    unheard.print_to_stdstream = lambda *_, **__: None
    here = {"include_dashboard": False, "object_store_memory": OBJECTS} if address == LOCAL else {}
    try:
        with step("starting Ray on this machine" if address == LOCAL else f"joining the cluster {address}"):
            if address != LOCAL:
                _check_answers(address)
            with silent_descriptor():  # its libraries in C++ write there
                _init(address, logging_level=logging.ERROR, log_to_driver=False, **here)
    except RunError:
        raise
    except Exception as error:  # Ray raises what it raises: other versions of it or of Python, ports, disks
        reason = in_one_line(error)[:300]
        raise RunError(f"--ray {address}: Ray does not start ({reason}); its logs are in /tmp/ray") from error
    try:
        yield [
            Node(node["NodeID"], node["NodeManagerHostname"], int(node["Resources"].get("CPU", 0)),
                 int(node["Resources"].get("GPU", 0)))
            for node in ray.nodes() if node["Alive"]
        ]  # fmt: skip
    finally:
        ray.shutdown()


def seats_on(nodes: Sequence[Node], on_gpus: bool, most: int) -> list[Seat]:
    """A seat for each GPU of a cluster, or for every few CPUs, spread over its nodes.

    Args:
        most: seats that can be used.

    Raises:
        RunError: there is none.
    """
    seats = []
    for node in nodes:
        count = node.gpus if on_gpus else -(-node.cpus // CPUS)
        seats += [Seat(node.id, k, node.name, min(CPUS, node.cpus // count), int(on_gpus)) for k in range(count)]
    if not seats:
        raise RunError(f"--ray: the cluster has no {'GPU' if on_gpus else 'CPU'}; start Ray on its nodes with ray start")
    return sorted(seats, key=lambda seat: seat.number)[:most]


def _init(address: str, **options: Any) -> None:
    """Calls ``ray.init``, twice for a cluster of this machine, whose processes get half a minute to find one another."""
    import ray

    if address == LOCAL:
        with suppress(Exception):
            ray.init(address=address, **options)
            return
        ray.shutdown()
    ray.init(address=address, **options)


def _check_answers(address: str) -> None:
    """Raises a RunError where no cluster answers: Ray itself may wait for ever."""
    if match := _ADDRESS.fullmatch(address):
        try:
            socket.create_connection((match[1].strip("[]"), int(match[2])), 10.0).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"--ray {address}: nothing answers there ({reason}); check the address, start Ray there with ray "
                           f"start --head, or give {LOCAL}") from error  # fmt: skip
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        done = subprocess.run(command + (["--address", address] if match else []), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=ANSWER)  # fmt: skip
        is_well = done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        is_well = False
    if not is_well:
        where = "there" if match else "on this machine"
        raise RunError(f"--ray {address}: no Ray answers {where} that this machine may join; start it with ray start, the "
                       "same version on every node, copy ~/.ray/auth_token of a cluster that has one, or give "
                       f"{LOCAL}")  # fmt: skip


def _has_token() -> bool:
    """Whether this user has the token of a cluster that asks for one, as ``ray start`` makes them where there is one."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return "RAY_AUTH_TOKEN" in os.environ or (Path(given) if given else Path.home() / ".ray" / "auth_token").is_file()
