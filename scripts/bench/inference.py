"""``inference.py`` from end to end, as the command runs it, and by part, one film after the other."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from bench.clock import median_seconds, run
from mask_rcnn.bag.members import load_members, predict
from mask_rcnn.config import Config, config_from_dict
from mask_rcnn.films.levels import equalise
from mask_rcnn.inference.film import film_result
from mask_rcnn.inference.outputs import OUTPUTS, Finished
from mask_rcnn.results.page.pictures import write_pictures
from mask_rcnn.run.engine import read_once
from mask_rcnn.runtime.choice import KERAS, Runtime
from mask_rcnn.utils import mold_film

ROOT = Path(__file__).resolve().parents[2]


class End(NamedTuple):
    """Of a run of the command."""

    start: float  # seconds before the first film
    film: float  # seconds a film
    memory: float  # GiB at most


def write_films(sources: Sequence[Path], folder: Path, side: int) -> None:
    """Films as grey PNGs whose long side has so many pixels."""
    folder.mkdir(parents=True)
    for number, path in enumerate(sources):
        with Image.open(path) as film:
            scale = side / max(film.size)
            size = round(film.width * scale), round(film.height * scale)
            film.convert("L").resize(size).save(folder / f"{number:04}.png")


def end_to_end(
    films: Path, weights: Sequence[str], runtime: str, batch: int, saves: str = "masks,overlays,page"
) -> End:
    """The command over a folder of films.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [str(ROOT / "inference.py"), "--src", str(films), "--out", out, "--weights", *weights]
        command += ["--runtime", runtime, "--batch", str(batch), "--save", saves, "--device", "cpu"]
        whole, memory = run(command)
        done = json.loads(Path(out, "run.json").read_text(encoding="utf-8"))
    return End(whole - done["seconds"], done["seconds"] / len(done["images"]), memory)


def by_part(films: Path, weights: Sequence[str], runtime: Runtime, batch: int) -> dict[str, float]:
    """Seconds a film of each step, on one thread but for the networks, which take all; the networks' parts as well."""
    cv2.setNumThreads(1)
    if runtime.name == KERAS:
        from mask_rcnn.system.backend import import_keras

        import_keras()
    members = load_members(weights, (), runtime)
    paths = sorted(films.iterdir())[:batch]
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any], count: int = 1) -> Any:
        work()
        started = perf_counter()
        result = work()
        took[name] = (perf_counter() - started) / count
        return result

    read = timed("reading", lambda: [read_once(path) for path in paths], len(paths))
    equal = timed("equalising", lambda: [equalise(film.radiograph.pixels) for film in read], len(paths))
    network = members[0].network.config.network
    timed("fitting to the square", lambda: [mold_film(film, network) for film in equal], len(paths))
    predicted = predict(members, equal, batch)
    took["networks"] = median_seconds(lambda: predict(members, equal, batch)) / batch
    took |= _parts_of_networks(members, lambda: predict(members, equal, batch), batch)
    found = timed(
        "pasting, voting, measuring",
        lambda: [film_result(members, film.radiograph, pixels, film.square, film.inverted, of_film)
                 for film, pixels, of_film in zip(read, equal, predicted, strict=True)], len(paths),
    )  # fmt: skip
    finished = [Finished(path, film.radiograph, result, "patient", len(members), "")
                for path, film, result in zip(paths, read, found, strict=True)]  # fmt: skip
    timed("label masks", lambda: [OUTPUTS["masks"](done) for done in finished], len(paths))
    timed("pictures", lambda: [OUTPUTS["overlays"](done) for done in finished], len(paths))
    with tempfile.TemporaryDirectory() as out:
        def write_thumbnails() -> None:
            for path, film, result in zip(paths, read, found, strict=True):
                masks = {category: lung.mask for category, lung in result.lungs.items()}
                write_pictures(Path(out), path, film.radiograph.pixels, masks, 0, film.digest)

        timed("thumbnails", write_thumbnails, len(paths))
    return took


def _parts_of_networks(members: Sequence[Any], work: Callable[[], object], batch: int) -> dict[str, float]:
    """Seconds a film in the parts of all members: the graphs of other runtimes; with Keras the taking of weights."""
    if members[0].runtime.name == KERAS:
        loads = [member.load for member in members if member.load]
        return {"networks: taking weights": median_seconds(lambda: [load() for load in loads]) / batch} if loads else {}
    took: dict[str, float] = defaultdict(float)

    def timed(name: str, graph: Callable[..., Any]) -> Callable[..., Any]:
        def run_timed(inputs: Any) -> Any:
            started = perf_counter()
            outputs = graph(inputs)
            took[f"networks: {name}"] += (perf_counter() - started) / batch
            return outputs

        return run_timed

    for network in (member.network for member in members):
        for parts in ("_weighted", "_weightless"):
            graphs = getattr(network, parts)
            named = zip(graphs._fields, graphs, strict=True)
            setattr(network, parts, type(graphs)(*(timed(name, graph) for name, graph in named)))
    work()
    return dict(took)


def published_network(runtime: Runtime, batch: int) -> dict[str, float]:
    """Seconds a film of the published ResNet-101 configuration with two lungs found, random weights in place of its own."""
    from mask_rcnn.runtime.network import ExportedNetwork
    from mask_rcnn.weights.layer_shapes import layer_shapes

    config = config_from_dict({"detection": {"min_score": 0.0, "max_instances": 2}})
    network = ExportedNetwork(random_layers(config), config, runtime)
    side = config.network.image_size
    films = [mold_film(np.random.default_rng(k).integers(0, 256, (side, side), np.uint8), config.network)
             for k in range(batch)]  # fmt: skip
    weights = sum(int(np.prod(shape)) for of in layer_shapes(config.network).values() for shape in of.values())
    return {"seconds": median_seconds(lambda: network.predict(films, batch), 3) / batch, "weights": float(weights)}


def random_layers(config: Config) -> Mapping[str, Mapping[str, np.ndarray]]:
    """Weights of a network that nobody trained, with numbers of a size that training gives them."""
    from mask_rcnn.weights.layer_shapes import layer_shapes

    rng = np.random.default_rng(0)

    def values(variable: str, shape: tuple[int, ...]) -> np.ndarray:
        if variable == "kernel":
            return (rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
        return np.full(shape, float(variable in ("gamma", "moving_variance")), np.float32)

    return {
        name: {variable: values(variable, shape) for variable, shape in shapes.items()}
        for name, shapes in layer_shapes(config.network).items()
    }
