"""Python in five lines, for notebooks and other programs:

    import mask_rcnn

    bag = mask_rcnn.load_bag()  # the five networks that ship
    result = bag.predict(mask_rcnn.read_film("film.dcm"))
    print(result.lungs["left"].box, result.agreement, result.reasons)

A film's result is that of ``inference.py``: the same labels, measurements and reasons. Every error that a film, a weights
file or a folder can give is a ValueError whose message is one line and names what would help.

Shapes
    pixels  uint8 [height, width], grey, 0 black (air) to 255 white (bone)
    labels  uint8 [height, width], 0 background, 1 left lung, 2 right lung: ``mask_rcnn.lungs``
    mask    bool [height, width]
    box     (y1, x1, y2, x2) pixels, the lower right corner outside the box
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mask_rcnn.bag.lung import Lung
from mask_rcnn.bag.members import Member, load_members, predict, split_settings
from mask_rcnn.config import Config, QualityConfig, apply_settings
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.films.images import FilmError, check_size, to_8_bit
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.polarity import with_white_bones
from mask_rcnn.films.radiograph import Radiograph, check_sides, read_radiograph
from mask_rcnn.films.sidecar import read_sidecar
from mask_rcnn.films.spacing import Calibration
from mask_rcnn.films.square import stretch_to_square
from mask_rcnn.inference.film import film_result
from mask_rcnn.lungs import SIDES
from mask_rcnn.prediction import Prediction
from mask_rcnn.results.names import DATASET
from mask_rcnn.results.overlay import overlay
from mask_rcnn.results.records import review_reasons
from mask_rcnn.results.tables import COLUMNS, measurements
from mask_rcnn.runtime.choice import AUTO, KERAS, choose_runtime
from mask_rcnn.system.backend import import_keras
from mask_rcnn.system.shipped import shipped_members, shipped_unet

ARRAY = "array"  # what messages call a film that has no file


@dataclass(frozen=True, eq=False)
class Film:
    """A film as it was read, upright where its DICOM header tells how it lies, its bones white."""

    pixels: np.ndarray  # uint8 [height, width]
    path: Path | None = None  # of its file
    spacing: tuple[float, float] | None = None  # millimetres between rows, and between columns; of DICOM or NAME.json
    inverted: bool = False  # whether its bones were black
    turned: str = ""  # how the DICOM header had it turned, in words
    doubts: tuple[str, ...] = ()  # what the DICOM header says against an upright frontal film with both lungs, in words
    calibration: Calibration | None = None  # where the spacing comes from


@dataclass(frozen=True, eq=False)
class Result:
    """What a bag finds on a film; everything in the film's own pixels."""

    film: Film
    labels: np.ndarray  # uint8 [height, width], 0 background, 1 left lung, 2 right lung; the lungs do not overlap
    lungs: Mapping[str, Lung]  # "left" and "right", each with mask, box, score, votes, agreement; absent where not found
    agreement: float  # of the networks on this film, 0 to 1, ``bag.agreement.film_agreement``; NaN of a single network
    risk: float  # that a lung's Dice is below 0.90, 0 to 1, ``bag.risk.film_risk``; NaN of a single network
    reasons: tuple[str, ...]  # why a person should look at it; none where nothing speaks against it
    measurements: Mapping[str, Any]  # the film's row of ``measurements.csv``; None where it is empty
    laterality: str  # "patient", whose left lung lies on the image's right; or "image", where sides are the image's

    def overlay(self) -> np.ndarray:
        """The film beside itself with the lungs outlined and named, uint8 [height, width, 3], RGB."""
        lungs = {category: self.lungs[side] for category, side in SIDES.items() if side in self.lungs}
        return overlay(self.film.pixels, self.labels, lungs, self.laterality)


class Bag:
    """Trained networks that find the lungs together; ``load_bag`` makes one. Not for several threads at once."""

    def __init__(self, members: Sequence[Member], quality: QualityConfig) -> None:
        self.members = members
        self.quality = quality
        self.config = members[0].network.config  # how their results are read

    def predict(self, film: Film | str | Path | np.ndarray) -> Result:
        """The lungs on one film; the first call compiles the networks, which takes seconds.

        Args:
            film: a film, or what ``read_film`` takes.

        Raises:
            FilmError: it cannot be read.
            InferenceError: there is too little memory.
        """
        return next(self.predict_many([film], batch=1))

    def predict_many(self, films: Iterable[Film | str | Path | np.ndarray], batch: int = 8) -> Iterator[Result]:
        """The lungs on each film, in order; ``batch`` films are in memory at a time.

        Fewer than ``batch`` films are predicted as one smaller batch, as ``inference.py`` does: the last digits of a score
        depend on that.

        Args:
            films: films, or what ``read_film`` takes; read as they are needed.
            batch: films that the networks see at a time, 1 or more.

        Raises:
            FilmError: one cannot be read; those before its batch have come.
            InferenceError: there is too little memory.
            ValueError: ``batch`` is below 1.
        """
        if batch < 1:
            raise ValueError(f"batch must be 1 or more, not {batch}")
        return self._predict_many(iter(films), batch)

    def _predict_many(self, films: Iterator[Film | str | Path | np.ndarray], batch: int) -> Iterator[Result]:
        size = 0
        while some := [film if isinstance(film, Film) else read_film(film) for film in islice(films, batch)]:
            size = size or len(some)  # the first batch is smaller only where there is no second one
            equalised = [equalise(film.pixels) for film in some]
            for film, pixels, of_film in zip(some, equalised, predict(self.members, equalised, size), strict=True):
                yield self._result(film, pixels, of_film)

    def _result(self, film: Film, equalised: np.ndarray, predictions: Sequence[Prediction]) -> Result:
        radiograph = Radiograph(film.pixels, film.spacing, film.turned, film.doubts, film.calibration)
        lungs, labels, record, _ = film_result(
            self.members, radiograph, equalised, stretch_to_square(film.pixels), film.inverted, predictions
        )
        reasons = review_reasons(record, self.quality, self.config.bag)
        name = "" if film.path is None else str(film.path)
        row = measurements({"result": "", **record}, 0, name, self.config.laterality, len(self.members), reasons)
        return Result(
            film, labels, {SIDES[category]: lung for category, lung in sorted(lungs.items())},
            math.nan if record["agreement"] is None else record["agreement"],
            math.nan if record["risk"] is None else record["risk"], tuple(reasons),
            {column: row.get(column) for column in COLUMNS if column not in ("image_id", "result")}, self.config.laterality,
        )  # fmt: skip


class Scores(NamedTuple):
    """What an evaluation gives."""

    networks: dict[str, dict[str, Any]]  # by name, each member's and the bags': ``networks`` of ``evaluation.json``
    films: list[dict[str, Any]]  # rows of ``films.csv``, one a network and film; NaN where a measure is undefined
    judged: str  # the name of what ``Bag.predict`` gives


def read_film(source: str | Path | np.ndarray) -> Film:
    """Reads a film: a file (DICOM, JPEG, PNG, TIFF, BMP, WebP, ..., by its content), or an array.

    An array is read as a PNG of it would be: grey [height, width] of any integer or float type, whose lowest level becomes
    0 and whose highest 255 unless it is uint8, or colours uint8 [height, width, 3], RGB. Black bones are inverted.

    Raises:
        FilmError: the file is absent, torn, no image or not a single one; the array is none of these; it has fewer than
            32 pixels a side or more than 120 megapixels; or ``NAME.json`` beside it names a spacing that is none.
    """
    path = None if isinstance(source, np.ndarray) else Path(source)
    radiograph = read_radiograph(path) if path is not None else _radiograph_of(np.asarray(source))
    spacing, calibration = radiograph.spacing, radiograph.calibration
    if path is not None and spacing is None:
        spacing, calibration = read_sidecar(path)
    pixels, inverted, _ = with_white_bones(radiograph.pixels)
    return Film(pixels, path, spacing, inverted, radiograph.turned, radiograph.doubts, calibration)


def _radiograph_of(array: np.ndarray) -> Radiograph:
    is_grey = array.ndim == 2 and array.dtype.kind in "uif"
    is_colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not is_grey and not is_colour:
        raise FilmError(ARRAY, f"of shape {array.shape} and type {array.dtype}",
                        "give grey levels [height, width], or RGB [height, width, 3] of type uint8")
    check_size(ARRAY, array.shape[1], array.shape[0])
    check_sides(ARRAY, array)
    array = np.ascontiguousarray(array)
    return Radiograph(np.asarray(Image.fromarray(array).convert("L")) if is_colour else to_8_bit(array), None)


def load_bag(
    weights: str | Path | Sequence[str | Path] | None = None, settings: Sequence[str] = (), runtime: str = AUTO
) -> Bag:
    """Loads trained networks that predict together.

    Args:
        weights: files, or glob patterns; by default the five networks that ship.
        settings: KEY=VALUE each, as ``inference.py --set`` takes them: ``bag.min_agreement=0.9``,
            ``detection.min_score=0.5``, ``quality.min_area=0.05``.
        runtime: "keras", "onnx" or "openvino"; by default the fastest that is installed, as ``inference.py`` chooses it.

    Raises:
        DeviceError: the runtime is not installed, or Keras does not start.
        ConfigError: a setting is wrong.
        InferenceError: a file is not there or is a folder, none can be used, or they differ in what their classes mean. One
            of several that cannot be used is named on standard error and left out.
    """
    if weights is None:
        weights = shipped_members()
    quality, of_networks = split_settings(settings)
    chosen = choose_runtime(runtime)
    if chosen.name == KERAS:
        import_keras()
    return Bag(load_members(_paths(weights), of_networks, chosen), quality)


def evaluate(bag: Bag | str | Path | Sequence[str | Path], data: str | Path, spacing: float | None = None) -> Scores:
    """Measures each network of a bag, and the bag, on annotated films, as ``scripts/evaluate.py`` does.

    Args:
        bag: or weights, as ``load_bag`` takes them.
        data: a folder with ``images/`` and ``masks/NAME.png``, or a COCO JSON.
        spacing: millimetres between the pixels of the masks where neither DICOM nor the JSON says it.

    Raises:
        DatasetError: ``data`` is not there or cannot be used, or none of its films can.
        InferenceError: the weights cannot be used, as ``load_bag`` tells.
    """
    from mask_rcnn.dataset.sources import read_records
    from mask_rcnn.evaluation import sets
    from mask_rcnn.evaluation.predictors import with_members

    records = read_records(data, "patient")
    find, judged = with_members((bag if isinstance(bag, Bag) else load_bag(bag)).members)
    kept = sets.evaluate(find, judged, records, spacing)
    if not kept.images:
        raise DatasetError(f"{data}: none of its {len(records)} films could be used")
    rows = [row for evidence in kept.networks.values() for row in evidence.rows]
    return Scores(sets.summaries_of(kept), rows, judged)


def build_dataset(
    src: str | Path | Sequence[str | Path],
    out: str | Path,
    unet: str | Path | Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    laterality: str = "patient",
) -> Path:
    """Finds the lungs on films without labels and writes a COCO dataset, as ``create_dataset.py`` does, and prints.

    Stopped, the same call goes on where it was.

    Args:
        src: folders of films, or films.
        out: the folder of the dataset, its table, its report and its journal.
        unet: weights of the ensemble's members; by default the one that ships.
        settings: KEY=VALUE each, of section ``quality``.
        laterality: "patient" or "image".

    Returns:
        The path of ``dataset.json``.

    Raises:
        DatasetError: no film could be used; standard error says why.
        ValueError: an argument, a path or a file cannot be used; the message names it.
        OSError: ``out`` cannot be written.
    """
    from create_dataset import run
    from create_dataset.members import find_unets

    if laterality not in ("patient", "image"):
        raise ValueError(f"laterality must be patient or image, not {laterality!r}")
    thresholds = apply_settings(Config(), settings, ["quality"]).quality
    unets = find_unets(_paths(unet) if unet else [shipped_unet()])
    found = run.find_sources(_paths(src), Path(out))
    if not found.films:
        raise DatasetError(f"{', '.join(_paths(src))}: no film of it could be used; see the lines above")
    command = shlex.join(["mask_rcnn.build_dataset", *_paths(src)])
    wanted = run.Settings(Path(out), laterality, thresholds, runtime=choose_runtime(), command=command)
    print(*run.create_dataset(found, unets, wanted), sep="\n")
    return Path(out) / DATASET


def _paths(given: str | Path | Sequence[str | Path]) -> list[str]:
    return [os.fspath(path) for path in ([given] if isinstance(given, (str, Path)) else given)]
