"""Measures how well networks find the lungs on films whose lungs are drawn: each network, and their bag.

    python scripts/evaluate.py --weights models/*.h5 --data ../shared/data/jsrt --spacing 1.6
    python scripts/evaluate.py --unet models/unet/efficientnetb0.weights.h5 --data ../shared/data/jsrt

``--data`` is a folder with ``images/NAME.*`` and ``masks/NAME.png``, whose pixels are 0, 1 (the patient's left lung) or 2
(right), a COCO JSON, or the published JSON. Where a mask has another size than its film, the found lungs are brought to
the mask's. ``--spacing`` is needed for millimetres where neither a DICOM film nor the JSON (``spacing_mm``) says them.

``OUT/films.csv`` gets a line a film and network, ``OUT/evaluation.json`` means, bootstrap intervals, COCO's average
precision, the calibration of the scores, where along a lung its errors lie and how far the drawn lungs of the whole set
lie beside the found ones, ``OUT/worst/`` the ten films with the lowest Dice of either lung: the drawn lungs outlined in
white, the found ones in colours.

Shapes
    film    uint8 [height, width], grey, bones white
    drawn   uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from tqdm import tqdm

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.bag.members import InferenceError, detect, load_members
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.system.devices import DeviceError, choose_device
from mask_rcnn.dataset.coco import annotation
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.records import AnnotatedFilm, FilmRecord, read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.film import COLUMNS, LUNGS, coco_result, dice_moved, error_map, is_right, measure_film
from mask_rcnn.evaluation.summary import average_precision, calibration, drawn_offset, summarise
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG, SIDES
from mask_rcnn.results.overlay import overlay
from mask_rcnn.results.pictures import picture_png
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import writable, write_bytes, write_json
from mask_rcnn.utils import mask_box

BATCH, BATCH_PIXELS = 8, 16_000_000  # films, and pixels of them, that are in memory at once
ERRORS = ("missed", "excess")  # in the order of ``error_map``
WORST, PICTURE_SIDE = 10, 800  # films, pixels
PRINTED = {"iou": 4, "hd95_px": 2, "hd95_percent": 2, "hd95_mm": 2, "msd_px": 2, "msd_mm": 2, "box_iou": 4}  # with digits


class Finding(NamedTuple):
    """What a network says of one film, its lungs the patient's."""

    lungs: dict[int, Lung]  # as ``inference.py`` would give them, disjoint
    detections: list[tuple[int, Lung]]  # by category: all that it detected, or the lungs of a bag


# From a batch of films to what each network says of them.
Find = Callable[[Sequence[np.ndarray]], dict[str, list[Finding]]]


@dataclass
class Evidence:
    """What is kept of one network: numbers and run lengths, no pixels."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of the CSV, one a film
    results: list[dict[str, Any]] = field(default_factory=list)  # COCO's, one a detection
    right: list[bool] = field(default_factory=list)  # of each detection
    errors: dict[int, list[np.ndarray]] = field(default_factory=lambda: {category: [] for category in CATEGORIES})
    moved: list[tuple[np.ndarray, float]] = field(default_factory=list)  # of each lung drawn, as ``dice_moved`` gives them


@dataclass
class Evaluation:
    """What is kept of all films."""

    images: list[dict[str, Any]] = field(default_factory=list)  # COCO's
    annotations: list[dict[str, Any]] = field(default_factory=list)  # COCO's, the drawn lungs
    networks: dict[str, Evidence] = field(default_factory=dict)
    worst: list[tuple[float, int, FilmRecord, dict[int, Lung]]] = field(default_factory=list)  # Dice, number, film, found


def bag_name(pixels: str) -> str:
    return f"bag by {pixels}"


def unique_names(paths: Sequence[Path], *suffixes: str) -> list[str]:
    """The files' names without folder and suffixes, or their paths where two have the same name."""
    names = [path.name for path in paths]
    for suffix in suffixes:
        names = [name.removesuffix(suffix) for name in names]
    return [writable(name) for name in (names if len(set(names)) == len(names) else map(str, paths))]


def with_mask_rcnns(patterns: Sequence[str]) -> tuple[Find, str]:
    """Mask R-CNNs, each for itself and bagged both ways; and which of these ``inference.py`` would give."""
    members = load_members(patterns)
    config = members[0].network.config
    names = unique_names([member.path for member in members], ".h5", ".weights")
    bags = {bag_name(pixels): replace(config.bag, pixels=pixels) for pixels in ("votes", "probabilities")}

    def patients(category: int) -> int:
        return category if config.laterality == "patient" else LEFT_LUNG + RIGHT_LUNG - category

    def of_member(detection: dict[str, np.ndarray]) -> Finding:
        lungs = {patients(category): lung for category, lung in bag_film([detection], config.bag).items()}
        detections = []
        found = zip(detection["class_ids"].tolist(), detection["rois"].tolist(), detection["scores"].tolist(), strict=True)
        for k, (category, (y1, x1, y2, x2), score) in enumerate(found):
            lung = Lung(detection["masks"][..., k] >= 0.5, (y1, x1, y2, x2), score, 1, math.nan)
            detections.append((patients(category), lung))
        return Finding(lungs, detections)

    def of_bag(detections: Sequence[dict[str, np.ndarray]], bag: str) -> Finding:
        lungs = {patients(category): lung for category, lung in bag_film(detections, bags[bag]).items()}
        return Finding(lungs, list(lungs.items()))

    def find(films: Sequence[np.ndarray]) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {name: [] for name in (*sorted(names), *(bags if len(members) > 1 else ()))}
        for detections in detect(members, [equalise(film) for film in films], soft=True):
            for name, one in zip(names, detections, strict=True):
                found[name].append(of_member(one))
            for bag in bags if len(members) > 1 else ():
                found[bag].append(of_bag(detections, bag))
        return found

    return find, bag_name(config.bag.pixels) if len(members) > 1 else names[0]


def with_unets(paths: Sequence[Path]) -> tuple[Find, str]:
    """U-Nets, each for itself and voted as ``create_dataset.py`` does; their mask, without a score, is split in two."""
    from create_dataset.lungs import find_lungs
    from create_dataset.unet import WeightsError, load_unet, prepare, probabilities

    members, names = [], unique_names(paths, ".h5", ".weights")
    for path in paths:
        try:
            members.append(load_unet(path))
        except WeightsError as error:
            raise InferenceError(str(error)) from error

    def of_votes(votes: np.ndarray, shape: tuple[int, int]) -> Finding:
        masks = find_lungs(votes, *shape)
        lungs = {category: Lung(mask, mask_box(mask), math.nan, 1, math.nan) for category, mask in masks.items()}
        return Finding(lungs, list(lungs.items()))

    def find(films: Sequence[np.ndarray]) -> dict[str, list[Finding]]:
        votes = probabilities(members, np.stack([prepare(film) for film in films]))
        chosen = {name: votes[k : k + 1] for k, name in enumerate(names)}
        if len(members) > 1:
            chosen[bag_name("votes")] = votes
        return {name: [of_votes(some[:, k], film.shape) for k, film in enumerate(films)] for name, some in chosen.items()}

    return find, bag_name("votes") if len(members) > 1 else names[0]


def read_batches(
    records: Sequence[FilmRecord], spacing: float | None
) -> Iterator[list[tuple[int, AnnotatedFilm]]]:
    """The films with their numbers, as many at a time as memory should hold; one that cannot be read is named and left out.

    ``spacing`` is that of the drawn masks' pixels in mm where nothing else says it.
    """
    batch: list[tuple[int, AnnotatedFilm]] = []
    for number, record in enumerate(tqdm(records, desc="evaluation", unit="film", disable=None)):
        try:
            annotated_film = read_annotated(record)
        except (FilmError, DatasetError) as error:
            tqdm.write(f"skipped {error}", file=sys.stderr)
            continue
        if spacing and annotated_film.spacing is None:
            annotated_film = annotated_film._replace(spacing=(spacing, spacing))
        batch.append((number, annotated_film))
        if len(batch) == BATCH or sum(film.size for _, (film, _, _) in batch) >= BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def fit(lung: Lung, shape: tuple[int, int]) -> Lung:
    """A lung brought to the size of the drawn ones."""
    if lung.mask.shape == shape:
        return lung
    mask = resize_labels(lung.mask.astype(np.uint8), *shape) > 0
    down, across = np.divide(shape, lung.mask.shape).tolist()
    y1, x1, y2, x2 = lung.box
    return lung._replace(mask=mask, box=(y1 * down, x1 * across, y2 * down, x2 * across))


def evaluate(find: Find, judged: str, records: Sequence[FilmRecord], spacing: float | None = None) -> Evaluation:
    """Measures every network on every film; of the one that is ``judged`` the worst films are kept."""
    names = unique_names([record.path for record in records])
    kept = Evaluation()
    for batch in read_batches(records, spacing):
        for number, (_, drawn, _) in batch:
            kept.images.append({"id": number, "height": drawn.shape[0], "width": drawn.shape[1]})
            for category in CATEGORIES:
                if (drawn == category).any():
                    lung_id = len(kept.annotations) + 1
                    kept.annotations.append(annotation(lung_id, number, category, drawn == category))
        for network, findings in find([film for _, (film, _, _) in batch]).items():
            evidence = kept.networks.setdefault(network, Evidence())
            for (number, (_, drawn, mm)), finding in zip(batch, findings, strict=True):
                lungs = {category: fit(lung, drawn.shape) for category, lung in finding.lungs.items()}
                row = measure_film(lungs, drawn, mm)
                evidence.rows.append({"network": network, "film": names[number], **row})
                for category, maps in evidence.errors.items():
                    if (drawn == category).any():
                        mask = lungs[category].mask if category in lungs else np.zeros(drawn.shape, bool)
                        maps.append(error_map(mask, drawn == category, category))
                        evidence.moved.append(dice_moved(mask, drawn == category))
                for category, lung in finding.detections:
                    lung = fit(lung, drawn.shape)
                    evidence.results.append(coco_result(number, category, lung))
                    evidence.right.append(is_right(category, lung.mask, drawn))
                dices = [row[f"dice_{side}"] for side in SIDES.values()]
                if network == judged and not np.isnan(dices).all():
                    kept.worst.append((float(np.nanmin(dices)), number, records[number], lungs))
            kept.worst = sorted(kept.worst, key=lambda film: film[:2])[:WORST]
    return kept


def summaries_of(kept: Evaluation) -> dict[str, dict[str, Any]]:
    return {
        network: summarise(evidence.rows)
        | {"average_precision": average_precision(kept.images, kept.annotations, evidence.results)}
        | {"calibration": calibration([found["score"] for found in evidence.results], evidence.right)}
        | {"error_map": {SIDES[category]: dict(zip(ERRORS, np.mean(maps, axis=0).tolist(), strict=True))
                         for category, maps in evidence.errors.items() if maps}}
        | {"drawn_offset": drawn_offset(evidence.moved)}
        for network, evidence in kept.networks.items()
    }


def draw(film: np.ndarray, drawn: np.ndarray, lungs: dict[int, Lung]) -> np.ndarray:
    """The film with the drawn lungs outlined in white, and beside it with the found ones over them; RGB."""
    scale = min(1.0, PICTURE_SIDE / max(film.shape))
    height, width = (max(1, round(side * scale)) for side in film.shape)
    film = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    for category in CATEGORIES:
        outlined = resize_labels((drawn == category).astype(np.uint8), height, width)
        contours, _ = cv2.findContours(outlined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(film, contours, -1, 255, 1)
    lungs = {category: fit(lung, (height, width)) for category, lung in lungs.items()}
    named = {category: lung for category, lung in lungs.items() if not math.isnan(lung.score)}
    return overlay(film, label_mask(lungs, (height, width)), named)


def draw_worst(kept: Evaluation, folder: Path) -> None:
    """Pictures of the worst films, in their order; those of an earlier run are removed."""
    for path in folder.glob("[0-9][0-9]_*.png"):
        path.unlink()
    for place, (_, _, record, lungs) in enumerate(kept.worst, start=1):
        film, drawn, _ = read_annotated(record)
        name = f"{place:02}_{writable(record.path.stem)[:80]}.png"
        write_bytes(folder / name, picture_png(draw(film, drawn, lungs)))


def csv_text(kept: Evaluation) -> str:
    """A line a network and film; what is undefined is empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, ("network", "film", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    for evidence in kept.networks.values():
        for row in evidence.rows:
            writer.writerow({
                key: "" if isinstance(value, float) and math.isnan(value)
                else round(value, 6) if isinstance(value, float) else value
                for key, value in row.items()
            })
    return table.getvalue()


def table_lines(summaries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each lung of each network; precision, the calibration error and the failures beside both lungs."""
    lines = [["network", "lung", "Dice [95 % interval]", "worst", "IoU", "HD95 px", "% of width", "HD95 mm", "MSD px",
              "MSD mm", "box IoU", "AP mask", "AP box", "ECE", "missed", "swapped"]]
    for network, summary in summaries.items():
        for lung in LUNGS:
            dice = summary[lung]["dice"]
            line = [network, lung, "undefined", ""]
            if dice["mean"] is not None:
                low, high = dice["interval"]
                line[2:] = f"{dice['mean']:.4f} [{low:.4f}, {high:.4f}]", f"{dice['worst']:.4f}"
            for measure, digits in PRINTED.items():
                mean = summary[lung].get(measure, {}).get("mean")
                line.append("" if mean is None else f"{mean:.{digits}f}")
            if lung == LUNGS[-1]:
                precision, calibrated = summary["average_precision"], summary["calibration"]
                line += [f"{precision[kind]['ap']:.4f}" if precision else "" for kind in ("mask", "box")]
                line.append(f"{calibrated['expected_calibration_error']:.4f}" if calibrated else "")
                line += [str(summary["missed"]), str(summary["swapped"])]
            lines.append(line + [""] * (len(lines[0]) - len(line)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def error_lines(maps: dict[str, dict[str, list[list[float]]]]) -> Iterator[str]:
    """Where along each lung the errors lie, in percent of its area."""
    for lung, of_lung in maps.items():
        yield f"{lung} lung, % of its area: {', '.join(of_lung)}, each from medial to lateral"
        for name, *rows in zip(("apex", "", "", "base"), *of_lung.values(), strict=True):
            yield f"  {name:4}  " + "   |".join("".join(f"{100 * share:7.2f}" for share in row) for row in rows)


def offset_line(offset: dict[str, float] | None) -> str:
    """How far the drawn lungs lie beside the found ones."""
    if offset is None:
        return "the drawn lungs lie beside the found ones by an amount that cannot be told"
    return (f"the drawn lungs lie {offset['right']:+.2f} % of the width to the right of the found ones and "
            f"{offset['down']:+.2f} % below them; without that, Dice would be {offset['dice_gained']:.4f} more")


def _millimetres(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument("--weights", nargs="+", metavar="FILE", help="Mask R-CNNs")
    networks.add_argument("--unet", nargs="+", type=Path, metavar="FILE", help="U-Nets of create_dataset.py")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="a folder with images/ and masks/, or a COCO JSON")
    parser.add_argument("--spacing", type=_millimetres, metavar="MM",
                        help="between the pixels of the drawn masks, where DICOM or the JSON does not say it")
    parser.add_argument("--out", type=Path, default=Path("results/evaluation"), metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    arguments = parser.parse_args(argv)
    try:
        records = read_records(arguments.data, "patient")
        print(choose_device(arguments.device), flush=True)
        find, judged = with_mask_rcnns(arguments.weights) if arguments.weights else with_unets(arguments.unet)
        kept = evaluate(find, judged, records, arguments.spacing)
        if not kept.images:
            raise InferenceError(f"{arguments.data}: none of its {len(records)} films could be used")
        summaries = summaries_of(kept)
        write_bytes(arguments.out / "films.csv", csv_text(kept).encode("utf-8", "replace"))
        write_json(arguments.out / "evaluation.json", {
            "command": writable(shlex.join(["scripts/evaluate.py", *(sys.argv[1:] if argv is None else argv)])),
            "data": writable(str(arguments.data)), "networks": summaries,
        })
        draw_worst(kept, arguments.out / "worst")
    except (InferenceError, DatasetError, DeviceError, FilmError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: stopped, nothing was written", file=sys.stderr)
        return 130
    print(*table_lines(summaries), *error_lines(summaries[judged]["error_map"]), sep="\n")
    print(offset_line(summaries[judged]["drawn_offset"]))
    print(f"{arguments.out}: films.csv, evaluation.json, worst/ ({judged})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
