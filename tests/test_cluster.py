"""A run over the workers of a cluster: what it does where workers end, and what it refuses. Ray itself is in test_ray.py.

In the place of Ray stands one that works in this process, and whose workers end when a test wants it.
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from lines import problems
from script import PHANTOMS

from mask_rcnn.commands.inference import main
from mask_rcnn.films.images import FilmError
from mask_rcnn.run import ray_nodes
from mask_rcnn.run.cluster import AHEAD, LOSSES, Cluster, work_with
from mask_rcnn.run.folder import RunError
from mask_rcnn.run.ray_nodes import Node, Seat, ray_address, seats_on
from mask_rcnn.runtime.choice import KERAS, ONNX, Runtime
from mask_rcnn.runtime.on_cluster import runtime_on
from mask_rcnn.system.backend import DeviceError


class Film(NamedTuple):
    number: int

    @property
    def path(self) -> Path:
        return Path(f"film {self.number}")


class Squares:
    """Films are doubled as they are read, negated by the network, and squared."""

    def read(self, film: Film) -> int:
        if film.number == 5:
            raise FilmError(film.path, "is torn", "copy it again")
        return 2 * film.number

    def predict(self, networks: int, films: Sequence[int | None]) -> list[int | None]:
        return [film and networks * film for film in films]

    def finish(self, networks: int, film: Film, ready: int, prediction: int) -> int:
        return ready * prediction


class Ended(Exception):
    """In the place of Ray's errors that mean the end of a worker."""


class TaskError(Ended):
    """In the place of Ray's error that holds one of a worker."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a long traceback")
        self.cause = cause


class Actor:
    def __init__(self, kind: type, arguments: tuple[Any, ...], ends: Callable[[str, tuple[Any, ...]], bool]) -> None:
        self.inner, self.ends, self.dead = kind(*arguments), ends, False

    def __getattr__(self, name: str) -> Any:
        return Method(self, name)


class Method(NamedTuple):
    actor: Actor
    name: str

    def remote(self, *arguments: Any) -> Promise:
        return Promise(self.actor, self.name, arguments)


class Promise:
    def __init__(self, actor: Actor, name: str, arguments: tuple[Any, ...]) -> None:
        self.actor, self.name, self.arguments = actor, name, arguments


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Ray in this process. Its ``ends`` tells of a call of a worker whether the worker ends in it; ``calls`` notes them."""
    fake: Any = ModuleType("ray")
    fake.ends, fake.calls, fake.options, made = (lambda *_: False), [], [], []

    class Remote:
        def __init__(self, kind: type) -> None:
            self.kind = kind

        def options(self, **options: Any) -> Remote:
            fake.options.append(options)
            return self

        def remote(self, *arguments: Any) -> Actor:
            made.append(Actor(self.kind, arguments, fake.ends))
            return made[-1]

    def get(promise: Promise) -> Any:
        actor = promise.actor
        fake.calls.append((promise.name, promise.arguments))
        if actor.dead or fake.ends(promise.name, promise.arguments):
            actor.dead = True
            raise Ended("the worker has ended")
        try:
            return getattr(actor.inner, promise.name)(*promise.arguments)
        except Exception as error:
            raise TaskError(error) from error

    fake.remote, fake.get, fake.put = Remote, get, lambda value: value
    fake.wait = lambda promises, timeout: (promises[-1:], promises[:-1])  # the last one is the first to be done
    fake.kill = lambda actor: setattr(actor, "dead", True)
    fake.exceptions = ModuleType("ray.exceptions")
    fake.exceptions.RayError, fake.exceptions.RayTaskError = Ended, TaskError
    strategies: Any = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)
    for name, module in (("ray", fake), ("ray.util", ModuleType("ray.util")), (strategies.__name__, strategies)):
        monkeypatch.setitem(sys.modules, name, module)
    yield fake
    for actor in made:
        actor.inner._threads.__exit__(None, None, None)


SEATS = [Seat("a", 0, "node a", 4, 0), Seat("b", 0, "node b", 4, 0)]


def load() -> tuple[int, str, dict[str, str]]:
    return -1, "the network", {"numpy": "2.0"}


def outcome(count: int = 20, batch: int = 3) -> tuple[list[int], dict[int, str]]:
    """The numbers of the films that were kept, in order, and the reasons of the others."""
    skipped: dict[int, str] = {}
    kept: list[int] = []

    def keep(film: Film, made: int) -> int:
        kept.append(film.number)
        return made

    cluster: Cluster[str] = Cluster(SEATS, load, [])
    assert cluster.facts == "the network" and cluster.versions == {"numpy": "2.0"}
    films = [(k, Film(k)) for k in range(count)]
    entries = list(work_with(cluster, films, Squares(), keep, batch, lambda film, why: skipped.update({film.number: why})))
    assert [entry for _, entry in entries] == [-4 * film.number**2 for film, _ in entries]
    assert sorted(kept) == [film.number for film, _ in entries], "kept once each"
    return [film.number for film, _ in entries], skipped


def test_films_come_in_order_as_on_one_machine(ray: Any) -> None:
    kept, skipped = outcome()
    assert kept == [k for k in range(20) if k != 5] and skipped == {5: "is torn; copy it again"}
    here = [film.number for film, _ in work_with([-1], [(0, Film(4)), (1, Film(7))], Here(), lambda _, made: made, 3, print)]
    assert here == [4, 7]
    assert [option["scheduling_strategy"] for option in ray.options] == [("a", True), ("b", True)]
    assert all(option["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "4" for option in ray.options)


class Here(Squares):
    def predict(self, networks: Any, films: Sequence[int | None]) -> list[int | None]:
        return super().predict(networks[0], films)


def test_a_batch_is_the_same_whichever_worker_ended_with_it(ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that ends takes all that it has with it; no other film is done twice."""
    lost: list[int] = []

    def ends(name: str, arguments: tuple[Any, ...]) -> bool:
        if name == "work" and not lost and arguments[1][0][0] == 9:
            lost.append(9)
            return True
        return False

    ray.ends = ends
    kept, _ = outcome()
    assert lost and kept == [k for k in range(20) if k != 5]
    warned = [line for line in capsys.readouterr().err.splitlines() if "ended" in line]
    assert len(warned) == 1 and warned[0].endswith("ended; what it was doing is done again")
    batches = [[place for place, _ in arguments[1]] for name, arguments in ray.calls if name == "work"]
    assert all(batch == list(range(batch[0], min(20, batch[0] + 3))) for batch in batches), "places as on one machine"
    assert 7 < len(batches) <= 7 + AHEAD


def test_a_film_that_ends_its_workers_is_left_out(ray: Any) -> None:
    ray.ends = lambda name, arguments: name == "work" and any(place == 10 for place, _ in arguments[1])
    kept, skipped = outcome()
    assert kept == [k for k in range(20) if k not in (5, 10)]
    assert skipped[10] == f"ended {LOSSES} workers of the cluster; try it alone on one machine"
    alone = [arguments[1] for name, arguments in ray.calls if name == "work" and len(arguments[1]) == 1]
    assert {films[0][0] for films in alone} == {9, 10, 11}


def test_workers_that_do_not_load_are_given_up(ray: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ray.ends = lambda name, _: name == "load"
    with pytest.raises(RunError, match="every worker ended while it was loading"):
        outcome()
    assert sum(name == "load" for name, _ in ray.calls) == LOSSES * len(SEATS)
    assert capsys.readouterr().err.count("going on without") == len(SEATS)


def test_what_a_worker_refuses_names_its_node(ray: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^node b: does not see .*gone; films have to lie where all nodes see them"):
        Cluster(SEATS, load, [tmp_path / "gone"])

    def fails() -> Any:
        raise DeviceError("--runtime onnx: onnx is not installed; pip install onnx")

    with pytest.raises(RunError, match="^node b: --runtime onnx: onnx is not installed; pip install onnx$"):
        Cluster(SEATS, fails, [])
    monkeypatch.setattr(Squares, "predict", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(RunError, match="^node .: there is too little memory for the networks; give a smaller --batch"):
        outcome()


def test_workers_that_differ_are_refused(ray: Any) -> None:
    answers = iter([(-1, "a", {"numpy": "2.0"}), (-1, "a", {"numpy": "2.1"})])
    ray.wait = lambda promises, timeout: (promises[:1], promises[1:])
    with pytest.raises(RunError, match="node b has numpy 2.1, node a 2.0; install the same on every node"):
        list(work_with(Cluster(SEATS, lambda: next(answers), []), [(0, Film(0))], Squares(), None, 1, print))  # type: ignore
    weights = iter([(-1, "a", {}), (-1, "b", {})])
    with pytest.raises(RunError, match="node b has loaded other weights than node a"):
        list(work_with(Cluster(SEATS, lambda: next(weights), []), [(0, Film(0))], Squares(), None, 1, print))  # type: ignore


def test_seats_are_shared_out_by_cpus_or_gpus() -> None:
    nodes = [Node("a", "a", 16, 2), Node("b", "b", 6, 0), Node("c", "c", 0, 0), Node("d", "d", 1, 1)]
    assert [(seat.node, seat.cpus) for seat in seats_on(nodes, False, 99)] == [
        ("a", 4), ("b", 3), ("d", 1), ("a", 4), ("b", 3), ("a", 4), ("a", 4),
    ]  # fmt: skip
    on_gpus = [(seat.node, seat.cpus, seat.gpus) for seat in seats_on(nodes, True, 99)]
    assert on_gpus == [("a", 4, 1), ("d", 1, 1), ("a", 4, 1)]
    assert len(seats_on(nodes, False, 2)) == 2
    with pytest.raises(RunError, match="no GPU"):
        seats_on(nodes[1:3], True, 9)


def test_all_workers_have_one_runtime_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    gpus, cpus = [Node("a", "a", 16, 2)], [Node("b", "b", 6, 0)]
    assert runtime_on(gpus, "auto", "auto") == (Runtime(KERAS), "gpu") == runtime_on(gpus, "keras", "gpu")
    assert runtime_on(gpus, ONNX, "auto") == (Runtime(ONNX), "cpu")
    assert runtime_on(cpus, "keras", "auto") == (Runtime(KERAS), "cpu")
    for nodes, device, words in ((cpus, "gpu", "the cluster has no GPU"), (gpus, "gpu:1", "Ray gives each worker its GPU")):
        with pytest.raises(DeviceError, match=words):
            runtime_on(nodes, "auto", device)
    with pytest.raises(DeviceError, match="runs ONNX Runtime in float32, not in bfloat16"):
        Runtime(ONNX, "bfloat16").check_here()
    Runtime(ONNX).check_here()


def test_the_option_takes_addresses() -> None:
    for address in ("local", "auto", "10.0.0.1:6379", "head:6379", "[::1]:6379"):
        assert ray_address(address) == address
    for wrong in ("", "head", "head:", ":6379", "ray://head:10001", "a b:1"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be local, auto or HOST:PORT"):
            ray_address(wrong)


def test_without_ray_or_a_cluster_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--src", str(PHANTOMS / "images"), "--out", str(tmp_path / "out"), "--ray"]
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more))
    assert main([*arguments, "local"]) == 1
    assert problems(capsys.readouterr().err) == ['inference: --ray: ray is not installed; pip install ".[ray]"']
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RunError, match=f"--ray {address}: nothing answers there .*; check the address"):
            ray_nodes._check_answers(address)
    assert not (tmp_path / "out").exists()
