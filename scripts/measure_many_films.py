"""Measures what many films cost: the search for copies, and the three commands on films that are done or prepared already.

    python scripts/measure_many_films.py --films 10000 100000
    python scripts/measure_many_films.py --films 10 100 1000 10000 100000 1000000 --of inference dataset training

No network predicts: films are hard links to one phantom, and the journal has the phantom's record of each. Every row is a
process of its own: its time on the clock and its processors', and its largest memory. ``start`` ends where the first film
would be read, or the first step of a training compiled. Copies are searched among drawn thumbnails, of which as many pairs
are candidates as of real films (2 to 4 in 10,000), and one film in 50 is a copy of another.

Shapes
    thumbnails  float32 [films, 32, 32], grey levels
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.fft import idctn

from mask_rcnn.config import load_config
from mask_rcnn.dataset import film_cache
from mask_rcnn.dataset.sides import Sides
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.training_films import Traits
from mask_rcnn.films.alignment import sample
from mask_rcnn.films.duplicates import LETTERS, LEVELS, SIDE, find_groups
from mask_rcnn.films.known_groups import KNOWN_COPIES, KnownGroups, key_of, write_known
from mask_rcnn.results.page.pictures import picture_name
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import journal_line, write_json

if __package__:
    from .phantom import draw_phantom
else:
    from phantom import draw_phantom

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS, MOVE, NOISE, FALL = 48, 0.05, 1.0, 1.2  # of the drawn films, as many of which are alike as of real ones
COPIED = 50  # one film in so many is a copy of an earlier one
AT_A_TIME = 10_000  # films that are drawn
A_FOLDER = 1_000  # films


class Measured(NamedTuple):
    """What a process has cost."""

    seconds: float
    of_processors: float  # seconds
    gigabytes: float  # of 2 ** 30 bytes, at most


def measure(command: Sequence[object], until: str = "") -> Measured:
    """Runs a command to its end, or until it has written a line that holds ``until``, and then ends it.

    Raises:
        RuntimeError: it fails, or ends without such a line.
    """
    started, lines, seconds = time.perf_counter(), [], 0.0
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.append(line)
            if until and until in line and not seconds:
                seconds = time.perf_counter() - started
                process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if (until and not seconds) or (not until and process.returncode):
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{''.join(lines[-20:])}")
    seconds = seconds or time.perf_counter() - started
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def draw_fingerprints(count: int, seed: int = 0) -> list[str]:
    """Fingerprints of films that are alike as chest films are, and of copies among them."""
    phantoms = np.stack([
        cv2.resize(draw_phantom(np.random.default_rng([5, k]), (128, 120))[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for k in range(PHANTOMS)
    ]).astype(np.float32) / 255  # fmt: skip
    texts: list[str] = []
    for part, start in enumerate(range(0, count, AT_A_TIME)):
        texts += _draw_some(phantoms, min(AT_A_TIME, count - start), np.random.default_rng([seed, part]))
    return texts


def _draw_some(phantoms: np.ndarray, count: int, rng: np.random.Generator) -> list[str]:
    one, other = rng.integers(0, len(phantoms), (2, count))
    share = rng.random((count, 1, 1), np.float32)
    moves = MOVE * rng.normal(size=(count, 4)) + (1, 0, 1, 0)
    films = sample(share * phantoms[one] + (1 - share) * phantoms[other], moves.astype(np.float32))[0]
    y, x = np.mgrid[:SIDE, :SIDE]
    spectrum = rng.standard_normal((count, SIDE, SIDE), np.float32) / (1 + np.hypot(x, y)).astype(np.float32) ** FALL
    films += NOISE * idctn(spectrum, axes=(1, 2), norm="ortho")
    copies = np.arange(COPIED - 1, count, COPIED)
    crops = np.tile((1, 0, 1, 0), (len(copies), 1)) + 0.02 * rng.uniform(-1, 1, (len(copies), 4))
    films[copies] = sample(films[copies // 2], crops.astype(np.float32))[0]
    ranks = films.reshape(count, -1).argsort(1).argsort(1)
    letters = LETTERS[ranks * LEVELS // SIDE**2]
    regions = np.clip(rng.normal((52, 53, 171, 203), (12, 11, 20, 11), (count, 4)), 0, 255).astype(np.uint8)
    digests = rng.bytes(8 * count).hex()
    return [digests[16 * k : 16 * k + 16] + regions[k].tobytes().hex() + letters[k].tobytes().decode("ascii")
            for k in range(count)]  # fmt: skip


def measure_copies(count: int, folder: Path) -> None:
    """Prints what the search costs where nothing is known, all is, and all but one film in 100."""
    texts = folder / "fingerprints.txt"
    texts.write_text("\n".join(draw_fingerprints(count)), encoding="ascii")
    rest = folder / "some.txt"
    rest.write_text("\n".join(texts.read_text(encoding="ascii").split("\n")[: count - count // 100]), encoding="ascii")
    for name, file in (("nothing known", texts), ("everything known", texts), ("", rest), ("1 % new", texts)):
        done = measure([sys.executable, __file__, "--search", str(file), str(folder / "copies.npz")])
        if name:  # else what is known before
            report(f"search for copies, {name}", count, done)


def search(file: Path, known: Path) -> None:
    """What ``measure_copies`` measures."""
    texts = file.read_text(encoding="ascii").split("\n")
    print(f"{len(set(find_groups(texts, known)))} groups")


@dataclass(frozen=True)
class Links:
    """A folder of films that are links to one."""

    root: Path
    names: list[str]
    version: list[int]

    @classmethod
    def make(cls, root: Path, film: bytes, count: int) -> Links:
        """Writes the film once for each folder of ``A_FOLDER``, more links than which some disks do not take."""
        names = [f"{k // A_FOLDER:04d}/film_{k:07d}.png" for k in range(count)]
        first = root / names[0]
        for k, name in enumerate(names):
            if k % A_FOLDER == 0:
                first = root / name
                first.parent.mkdir(parents=True)
                first.write_bytes(film)
                os.utime(first, (10**9, 10**9))
            else:
                os.link(first, root / name)
        return cls(root, names, [len(film), 10**18])


def phantom() -> bytes:
    film, _ = draw_phantom(np.random.default_rng(7), (1024, 960))
    return bytes(cv2.imencode(".png", film)[1])


def fill_journal(out: Path, one: Path, links: Links, changes: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
    """Writes a journal in which all films are done, with the record of the one film of another; returns that record.

    Args:
        changes: what film ``k`` has of its own.
    """
    head, *lines = [json.loads(line) for line in (one / "films.jsonl").read_text(encoding="ascii").splitlines()]
    record = next(line for line in lines if "film" in line)
    with (out / "films.jsonl").open("w", encoding="ascii") as journal:
        root = {"root": "films", "path": str(links.root), "relative": Path(os.path.relpath(links.root, out)).as_posix()}
        for line in (head, root, {"results": ["films"]}):
            journal.write(json.dumps(line, separators=(",", ":")) + "\n")
        for k, name in enumerate(links.names):
            own = {"film": f"films//{name}", "id": k + 1, "version": links.version, **changes(k)}
            journal.write(json.dumps(record | own, separators=(",", ":")) + "\n")
    return record


def link_all(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Links a file to all of these names, a copy of it for every so many."""
    content, made = source.read_bytes(), source
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if k % A_FOLDER == 0:
            path.write_bytes(content)
            made = path
        else:
            os.link(made, path)


def prepare_films(count: int, folder: Path) -> tuple[Links, Path]:
    """The films, and a folder with the one that is worked on really."""
    film = phantom()
    one = folder / "one" / "films" / "0000"
    one.mkdir(parents=True)
    (one / "film_0000000.png").write_bytes(film)
    return Links.make(folder / "films", film, count), one.parent


def link_pictures(out: Path, done: Path, ids: Sequence[int], digest: str) -> None:
    thumbnail = next((done / "report_files" / "thumbnails").rglob("*.jpg"))
    link_all(thumbnail, out / "report_files" / "thumbnails", [picture_name(k, digest) for k in ids])


def measure_inference(count: int, folder: Path) -> None:
    """Prints what a run costs whose films are all done: to its start, its tables, and with its page."""
    links, one = prepare_films(count, folder)
    command = [sys.executable, "inference.py", "--weights", "models/lungs_small_1.weights.h5", "--device", "cpu"]
    done, out = folder / "one" / "out", folder / "out"
    measure([*command, "--src", one, "--out", done])
    out.mkdir()
    record = fill_journal(out, done, links, lambda k: {"result": links.names[k]})
    for kind in ("masks", "overlays"):
        link_all(next((done / kind).rglob("*.png")), out / kind, links.names)
    link_pictures(out, done, range(1, count + 1), record["digest"])
    run = [*command, "--src", links.root, "--out", out]
    report("inference.py, start", count, measure([*run, "--save", "masks"], until="going on with a run"))
    report("inference.py, whole, no film new, no page", count, measure([*run, "--save", "masks"]))
    report("inference.py, the same with its page", count, measure(run))


def measure_dataset(count: int, folder: Path) -> None:
    """Prints what a dataset costs whose films are all done, and whose copies are known."""
    links, one = prepare_films(count, folder)
    command = [sys.executable, "create_dataset.py", "--device", "cpu"]
    done, out, texts = folder / "one" / "out", folder / "out", draw_fingerprints(count)
    measure([*command, "--src", one, "--out", done])
    out.mkdir()
    record = fill_journal(out, done, links, lambda k: {"fingerprint": texts[k]})
    link_pictures(out, done, range(1, count + 1), record["digest"])
    know_all(texts, out / KNOWN_COPIES)
    run = [*command, "--src", links.root, "--out", out]
    report("create_dataset.py, start", count, measure(run, until="films are done already"))
    report("create_dataset.py, whole, no film new", count, measure(run))


def measure_training(count: int, folder: Path) -> None:
    """Prints what the start of a training costs whose films are all in the cache."""
    links, one = prepare_films(count, folder)
    done, texts = folder / "one" / "out", draw_fingerprints(count)
    measure([sys.executable, "create_dataset.py", "--device", "cpu", "--src", one, "--out", done])
    dataset = json.loads((done / "dataset.json").read_text(encoding="utf-8"))
    [image], lungs = dataset["images"], dataset["annotations"]
    dataset["info"]["roots"] = [str(links.root)]
    dataset["images"] = [image | {"id": k, "file_name": name, "group": k} for k, name in enumerate(links.names)]
    dataset["annotations"] = [lung | {"id": 2 * k + n, "image_id": k} for k in range(count) for n, lung in enumerate(lungs)]
    path = folder / "dataset.json"
    write_json(path, dataset)
    fill_cache(path, folder / "runs" / "cache", texts)
    know_all(texts, folder / "runs" / KNOWN_COPIES)
    train = [sys.executable, "train.py", "--config", "lungs_small", "--set", f"data.sources=[{path}]",
             "--out", folder / "models", "--runs", folder / "runs", "--device", "cpu"]  # fmt: skip
    report("train.py, start, films in the cache", count, measure(train, until="compiling"))


def know_all(fingerprints: Sequence[str], path: Path) -> None:
    """Has a file of known copies say of all films that they are copies of none."""
    count = len(fingerprints)
    keys = [key_of(text) for text in fingerprints]
    write_known(path, KnownGroups(keys, np.zeros((3, 2, count), np.uint64), np.arange(count, dtype=np.int32)))


def fill_cache(dataset: Path, cache: Path, fingerprints: Sequence[str]) -> None:
    """Has a cache hold all films of a dataset, their pixels zeros that take no disk."""
    records = read_records(dataset, "patient")
    side = load_config("lungs_small").network.image_size
    cache.mkdir(parents=True)
    with film_cache.index_path(cache, side).open("wb") as index:
        index.write(journal_line(film_cache.head(side)))
        for record, text in zip(records, fingerprints, strict=True):
            traits = Traits(text, Sides(True, False, False), None)
            index.write(film_cache.index_line(film_cache.key_of(record), (0, 0, side, side), "", traits))
    with film_cache.pixels_path(cache, side).open("wb") as pixels:
        pixels.truncate(len(records) * 2 * side**2)


def report(name: str, count: int, done: Measured) -> None:
    figures = f"{done.seconds:.1f} s | {done.of_processors:.1f} s | {done.gigabytes:.2f} GiB"
    print(f"| {name} | {count:,} | {figures} |", flush=True)


PARTS = {"copies": measure_copies, "inference": measure_inference, "dataset": measure_dataset, "training": measure_training}


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--films", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="how many films")
    parser.add_argument("--of", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--search", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.search:
        search(*arguments.search)
        return 0
    print("| what | films | time | of processors | memory |\n|---|---|---|---|---|", flush=True)
    for part in arguments.of:
        for count in arguments.films:
            with tempfile.TemporaryDirectory() as folder:
                PARTS[part](count, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
