"""Measures how well networks find the lungs on films whose lungs are drawn, each network and their bag.

    python scripts/evaluate.py --weights models/*.h5 --data ../shared/data/jsrt
    python scripts/evaluate.py --unet models/unet/efficientnetb0.weights.h5 --data ../shared/data/jsrt

``DIR`` holds ``images/NAME.*`` and ``masks/NAME.png``, whose pixels are 0, 1 (the patient's left lung) or 2 (right).
``OUT/films.csv`` gets a line a film and network, ``OUT/evaluation.json`` the summary and the command.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from tqdm import tqdm

from mask_rcnn.coco import CATEGORIES, LEFT_LUNG, RIGHT_LUNG, write_json
from mask_rcnn.devices import DeviceError, choose_device
from mask_rcnn.ensemble import bag_film, label_mask
from mask_rcnn.files import write_bytes
from mask_rcnn.inference_command import InferenceError, load_members
from mask_rcnn.metrics import dice, laterality_swapped
from mask_rcnn.radiograph import FILM_SUFFIXES, FilmError, equalise, read_film, read_labels

BAG, BATCH = "bag", 8
DICES = ("left", "right", "both")
FILM_COLUMNS = ("network", "film", "dice_left", "dice_right", "dice_both", "missed", "swapped")

# From a batch of films to what each network says of them: {network: label masks of the films' sizes}.
Find = Callable[[Sequence[np.ndarray]], dict[str, list[np.ndarray]]]


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The films of ``images/`` that have a mask in ``masks/``, with it, sorted by name.

    Raises:
        InferenceError: there are none.
    """
    films = sorted(path for path in (folder / "images").glob("*") if path.suffix.lower() in FILM_SUFFIXES)
    pairs = [(film, mask) for film in films if (mask := folder / "masks" / f"{film.stem}.png").is_file()]
    if not pairs:
        raise InferenceError(f"{folder}: no film with a mask; give a folder with images/NAME.* and masks/NAME.png")
    if len(pairs) < len(films):
        print(f"{folder}: {len(films) - len(pairs)} films without a mask are left out", file=sys.stderr)
    return pairs


def with_mask_rcnns(patterns: Sequence[str]) -> Find:
    """Mask R-CNNs, each for itself and bagged as ``inference.py`` bags them."""
    members = load_members(patterns)
    config = members[0].network.config
    names = unique_names([member.path for member in members])

    def to_labels(detections: Sequence[dict[str, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
        labels = label_mask(bag_film(detections, config.bag), shape)
        # The drawn lungs are the patient's.
        return labels if config.laterality == "patient" else (len(CATEGORIES) + 1 - labels) * (labels > 0)

    def find(films: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
        equalised = [equalise(film) for film in films]
        detections = [member.network.detect(equalised) for member in members]
        found = {
            name: [to_labels([one], film.shape) for one, film in zip(of_member, films, strict=True)]
            for name, of_member in zip(names, detections, strict=True)
        }
        if len(members) > 1:
            found[BAG] = [
                to_labels(of_film, film.shape)
                for of_film, film in zip(zip(*detections, strict=True), films, strict=True)
            ]
        return found

    return find


def with_unets(paths: Sequence[Path]) -> Find:
    """U-Nets, each for itself and voted as ``create_dataset.py`` does; their mask is split into left and right."""
    from create_dataset.lungs import find_lungs
    from create_dataset.unet import WeightsError, load_unet, prepare, probabilities

    members, names = [], unique_names(paths)
    for path in paths:
        try:
            members.append(load_unet(path))
        except WeightsError as error:
            raise InferenceError(str(error)) from error

    def to_labels(votes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        lungs = find_lungs(votes, *shape)
        return sum((category * mask.astype(np.uint8) for category, mask in lungs.items()), np.zeros(shape, np.uint8))

    def find(films: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
        votes = probabilities(members, np.stack([prepare(film) for film in films]))
        chosen = {name: votes[k : k + 1] for k, name in enumerate(names)} | ({BAG: votes} if len(members) > 1 else {})
        return {
            name: [to_labels(of_some[:, k], film.shape) for k, film in enumerate(films)]
            for name, of_some in chosen.items()
        }

    return find


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The files' names without folder and suffix, or their paths where two have the same name."""
    names = [path.name.removesuffix(".h5").removesuffix(".weights") for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def compare(found: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """The measures of one film: Dice of either lung and of both together (NaN where none is drawn and none found).

    ``missed`` counts the drawn lungs that were not found, ``swapped`` is 1 where a lung bears the other's name. The
    found labels are brought to the size of the drawn ones.
    """
    if found.shape != drawn.shape:
        found = cv2.resize(found, drawn.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return {
        "dice_left": round(dice(found == LEFT_LUNG, drawn == LEFT_LUNG), 6),
        "dice_right": round(dice(found == RIGHT_LUNG, drawn == RIGHT_LUNG), 6),
        "dice_both": round(dice(found > 0, drawn > 0), 6),
        "missed": sum(bool((drawn == lung).any() and not (found == lung).any()) for lung in CATEGORIES),
        "swapped": int(laterality_swapped(found, drawn)),
    }


def evaluate(find: Find, pairs: Sequence[tuple[Path, Path]]) -> Iterator[dict[str, Any]]:
    """A row of ``FILM_COLUMNS`` for every network and film; a pair that cannot be read is named and left out."""
    with tqdm(total=len(pairs), desc="evaluation", unit="film", disable=None) as progress:
        for start in range(0, len(pairs), BATCH):
            names, films, drawn = [], [], []
            for film_path, mask_path in pairs[start : start + BATCH]:
                try:
                    film, labels = read_film(film_path), read_labels(mask_path)
                except FilmError as error:
                    tqdm.write(f"skipped {error}", file=sys.stderr)
                    continue
                names.append(film_path.name)
                films.append(film)
                drawn.append(labels)
            for network, found in find(films).items() if films else ():
                for name, found_labels, drawn_labels in zip(names, found, drawn, strict=True):
                    yield {"network": network, "film": name, **compare(found_labels, drawn_labels)}
            progress.update(min(BATCH, len(pairs) - start))


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, median and worst Dice of one network's rows, over the films where it is defined, and the failures."""
    summary: dict[str, Any] = {"films": len(rows)}
    for lung in DICES:
        defined = [row for row in rows if not np.isnan(row[f"dice_{lung}"])]
        values = [row[f"dice_{lung}"] for row in defined]
        worst = min(defined, key=lambda row: row[f"dice_{lung}"], default={"film": None})
        summary[lung] = {
            "mean": float(np.mean(values)) if values else None,
            "median": float(np.median(values)) if values else None,
            "worst": min(values, default=None),
            "worst_film": worst["film"],
            "undefined": len(rows) - len(values),
        }
    return summary | {key: sum(row[key] for row in rows) for key in ("missed", "swapped")}


def print_table(summaries: dict[str, dict[str, Any]]) -> None:
    heading = "Dice: mean, median, worst"
    width = max(map(len, [heading, *summaries]))
    print(f"{heading:{width}}" + "".join(f"  {lung:^20}" for lung in DICES) + "  missed swapped")
    for network, summary in summaries.items():
        cells = [
            " ".join("   -  " if summary[lung][key] is None else f"{summary[lung][key]:.4f}"
                     for key in ("mean", "median", "worst"))
            for lung in DICES
        ]
        print(f"{network:{width}}" + "".join(f"  {cell}" for cell in cells)
              + f"  {summary['missed']:6} {summary['swapped']:7}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument("--weights", nargs="+", metavar="FILE", help="Mask R-CNNs")
    networks.add_argument("--unet", nargs="+", type=Path, metavar="FILE", help="U-Nets of create_dataset.py")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds images/ and masks/")
    parser.add_argument("--out", type=Path, default=Path("results/evaluation"), metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    arguments = parser.parse_args(argv)
    try:
        pairs = find_pairs(arguments.data)
        print(choose_device(arguments.device), flush=True)
        find = with_mask_rcnns(arguments.weights) if arguments.weights else with_unets(arguments.unet)
        rows = list(evaluate(find, pairs))
        if not rows:
            raise InferenceError(f"{arguments.data}: none of its {len(pairs)} films could be used")
        summaries = {
            network: summarise([row for row in rows if row["network"] == network])
            for network in dict.fromkeys(row["network"] for row in rows)
        }
        table = io.StringIO()
        writer = csv.DictWriter(table, FILM_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(arguments.out / "films.csv", table.getvalue().encode("utf-8", "replace"))
        command = shlex.join(["scripts/evaluate.py", *(sys.argv[1:] if argv is None else argv)])
        write_json(arguments.out / "evaluation.json", {
            "command": command, "data": str(arguments.data), "networks": summaries
        })
    except (InferenceError, DeviceError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: stopped, nothing was written", file=sys.stderr)
        return 130
    print_table(summaries)
    print(f"{arguments.out}: films.csv, evaluation.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
