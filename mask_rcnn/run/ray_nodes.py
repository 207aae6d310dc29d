"""Joining a Ray cluster, or starting one on this machine, and where on it there is a seat for a worker."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mask_rcnn.films.images import in_one_line
from mask_rcnn.run.folder import RunError
from mask_rcnn.system.console import step
from mask_rcnn.system.silence import silent_descriptor

LOCAL, AUTO = "local", "auto"  # what --ray takes besides HOST:PORT
CPUS = 4  # of a worker, at most: networks gain little from more, and Python's threads wait for one another
OBJECTS = 2**29  # bytes for results on their way, in a cluster that is started here
ANSWER = 10.0  # seconds in which an address has to answer

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
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a hospital's machines goes anywhere
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    warnings.filterwarnings("ignore", module=r"ray\.")
    here = {"include_dashboard": False, "object_store_memory": OBJECTS} if address == LOCAL else {}
    try:
        with step("starting Ray on this machine" if address == LOCAL else f"joining the cluster {address}"):
            with silent_descriptor():  # its libraries in C++ write there
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
    except Exception as error:
        raise RunError(f"--ray {address}: {_reason(address, error)}") from error
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


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes."""
    given = os.environ.get("RAY_ADDRESS", "") if address == AUTO else address
    match = _ADDRESS.fullmatch(given)
    if not match:
        return
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), ANSWER).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"--ray {given}: nothing answers there ({reason}); check the address, start Ray there with ray start "
                       f"--head, or give {LOCAL}") from error  # fmt: skip


def _has_token() -> bool:
    """Whether this user has the token of a cluster that asks for one; ``ray start`` makes such clusters where there is one."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return "RAY_AUTH_TOKEN" in os.environ or (Path(given) if given else Path.home() / ".ray" / "auth_token").is_file()


def _reason(address: str, error: Exception) -> str:
    if isinstance(error, ConnectionError):
        if "Could not find" in str(error):
            return f"Ray does not run on this machine; start it with ray start, or give {LOCAL}"
        import ray

        return (f"no Ray there that this one may join; give HOST:PORT of its head, Ray {ray.__version__} on all nodes and this "
                "machine one of them, and where the cluster has a token, that in ~/.ray/auth_token")
    return f"Ray does not start ({in_one_line(error)[:300]}); see its logs in /tmp/ray"
