"""The commands over a real Ray cluster of two workers, one of which is killed, and the command too.

Slow, minutes; and skipped where Ray is not installed, as CI has it: ``pip install ".[ray]"`` first.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILMS, BATCH = 24, 2
WORKER = "ray::FilmWorker"  # how Ray names the processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='Ray is not installed; pip install ".[ray]"'),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc"),
]


class Ray:
    """A cluster of one machine that says it has eight processors, which are two workers."""

    def __init__(self, folder: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", "0",
                   "--num-cpus", "8", "--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", folder,
                   "--object-store-memory", "300000000"]  # fmt: skip
        self.log, self.address = Path(folder, "log.txt"), ""
        for _ in range(3):  # on a busy machine its processes may not find one another within its half a minute
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
            wait_for(self._has_begun, 240)
            if self.address:
                return
        raise AssertionError(self.log.read_text())

    def _has_begun(self) -> bool:
        text = self.log.read_text()
        if (found := re.search(r"--address='(\S+)'", text)) and "block" in text:
            self.address = found[1]
        return bool(self.address) or self.process.poll() is not None

    def workers(self) -> list[int]:
        """The processes of its workers."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                name, session = (path / "cmdline").read_bytes(), os.getsid(int(path.name))
            except (OSError, ProcessLookupError):
                continue
            if name.startswith(WORKER.encode()) and session == self.process.pid:
                found.append(int(path.name))
        return found

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain")


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Ray(folder)  # names of sockets have a hundred characters at most, so not in pytest's folders
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, and a file that is no film."""
    folder = tmp_path_factory.mktemp("drawn")
    command = [sys.executable, "scripts/make_phantoms.py", "--out", str(folder), "--count", str(FILMS), "--seed", "11",
               "--size", "256"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (folder / "images" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    return folder / "images"


def start(command: str, films: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    given = [sys.executable, f"{command}.py", "--src", str(films), "--out", str(out), "--batch", str(BATCH), *more]
    if command == "inference":
        given += ["--weights", "models/lungs_small_1.weights.h5", "--save", "masks,overlays,probabilities,page"]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}  # the fastest runtime
    return subprocess.Popen(
        given, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors[-3000:]
    return out, errors


def contents(out: Path) -> dict[str, bytes]:
    """Every file, without the command and the time."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            content = path.read_bytes().replace(out.name.encode(), b"OUT")
            content = re.sub(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+00:00| UTC)|\"seconds\": ?[\d.]+", b"", content)
            found[path.relative_to(out).as_posix()] = re.sub(rb" --ray \S+?(?= |\"|<|&)", b"", content)
    return found


def done(out: Path) -> list[str]:
    """The films of the journal's whole lines."""
    journal = out / "films.jsonl"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return [film for line in lines if (film := json.loads(line).get("film"))]


@pytest.fixture(scope="module")
def alone(films: Path) -> dict[str, dict[str, bytes]]:
    """What each command writes on one machine."""
    found = {}
    for command in ("inference", "create_dataset"):
        out = films.parent / f"{command} alone"
        finish(start(command, films, out))
        assert len(done(out)) == FILMS
        found[command] = contents(out)
    return found


@pytest.mark.parametrize("command", ["inference", "create_dataset"])
def test_the_bytes_are_those_of_one_machine(
    command: str, ray: Ray, films: Path, alone: dict[str, dict[str, bytes]]
) -> None:
    out = films.parent / f"{command} spread"
    said, errors = finish(start(command, films, out, "--ray", ray.address))
    assert "on 2 workers of 4 CPUs on 1 machine" in said and "ray" not in said.replace("--ray", "").lower()
    assert [line for line in errors.splitlines() if "skipped" in line] and "raylet" not in errors
    assert contents(out) == alone[command]


def test_a_killed_worker_loses_nothing_and_does_nothing_twice(
    ray: Ray, films: Path, alone: dict[str, dict[str, bytes]]
) -> None:
    out = films.parent / "inference killed"
    process = start("inference", films, out, "--ray", ray.address)
    wait_for(lambda: len(done(out)) >= 3 and len(ray.workers()) >= 2, 240)
    before = done(out)
    os.kill(ray.workers()[0], signal.SIGKILL)
    assert len(before) < FILMS
    _, errors = finish(process)
    assert errors.count("ended; what it was doing is done again") == 1 and "raylet" not in errors
    assert sorted(done(out)) == sorted(set(done(out))) and len(done(out)) == FILMS
    assert contents(out) == alone["inference"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on(
    number: signal.Signals, ray: Ray, films: Path, alone: dict[str, dict[str, bytes]]
) -> None:
    out = films.parent / f"inference {number.name}"
    process = start("inference", films, out, "--ray", ray.address)
    wait_for(lambda: len(done(out)) >= 3, 240)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    before = done(out)
    assert 3 <= len(before) < FILMS
    times = {path: path.stat().st_mtime_ns for path in (out / "probabilities").rglob("*.png")}
    wait_for(lambda: not ray.workers(), 60)  # they end with the command that they work for
    said, _ = finish(start("inference", films, out, "--ray", ray.address))
    assert f"{len(before)} of {FILMS + 1} films are done" in said
    names = {Path(film).name for film in before}
    kept = [path for path in times if path.name in names]
    assert kept and all(path.stat().st_mtime_ns == times[path] for path in kept), "not predicted again"
    assert done(out)[: len(before)] == before and len(done(out)) == FILMS == len(set(done(out)))
    assert contents(out) == alone["inference"]


def test_local_is_a_cluster_of_this_machine(films: Path, alone: dict[str, dict[str, bytes]]) -> None:
    out = films.parent / "inference local"
    said, errors = finish(start("inference", films, out, "--ray", "local"))
    assert "on 1 machine" in said and "raylet" not in errors
    assert contents(out) == alone["inference"]
