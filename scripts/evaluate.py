"""Measures how well networks find the lungs on films whose lungs are annotated: each network, and their bag.

    python scripts/evaluate.py --weights models/*.h5 --data ../shared/data/jsrt --spacing 1.6
    python scripts/evaluate.py --weights models/*.h5 --data ../shared/data/openist --held-out configs/held_out.csv

``--data`` is a folder with ``images/NAME.*`` and ``masks/NAME.png``, whose pixels are 0, 1 (the patient's left lung) or 2
(right), a COCO JSON, or the published JSON. Where a mask has another size than its film, the found lungs are brought to
the mask's. ``--spacing`` is needed for millimetres where neither a DICOM film nor the JSON (``spacing_mm``) holds them.

Several sets give a table over them: whole lungs, or the lateral thirds of sets whose drawings hold the heart (a folder's
``convention.txt`` or ``configs/conventions.csv`` tells). Of a set some of whose films ``--held-out`` lists to report by,
those alone are measured. Each of several sets has a folder of its own in OUT.

``OUT/films.csv`` gets a line a film and network, ``OUT/evaluation.json`` means, bootstrap intervals, COCO's average
precision, the calibration of the scores, where along a lung its errors lie and how far the annotations of the whole set
lie beside the predictions, ``OUT/worst/`` the ten films with the lowest Dice of either lung: the annotated lungs outlined in
white, the predicted ones in colours.

Shapes
    film    uint8 [height, width], grey, bones white
    votes   float32 [members, films, 256, 256], probabilities
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mask_rcnn.bag.lung import Lung
from mask_rcnn.bag.members import InferenceError, load_members
from mask_rcnn.dataset.conventions import HEART_DRAWN_IN, convention_of
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.evaluation.lateral import COLUMNS as THIRDS
from mask_rcnn.evaluation.over_sets import WHOLE, set_lines, summarise_set
from mask_rcnn.evaluation.predictors import Find, Finding, bag_name, unique_names, with_members
from mask_rcnn.evaluation.report import csv_text, error_lines, offset_line, table_lines, write_worst
from mask_rcnn.evaluation.sets import evaluate, measured_records, summaries_of
from mask_rcnn.films.images import FilmError
from mask_rcnn.runtime.choice import KERAS, Runtime, choose_runtime
from mask_rcnn.runtime.start import add_runtime, start_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import writable, write_bytes, write_json
from mask_rcnn.utils import mask_box


def with_unets(paths: Sequence[Path], runtime: Runtime) -> tuple[Find, str]:
    """U-Nets, each for itself and voted as ``create_dataset.py`` does; their mask, without a score, is split in two."""
    from create_dataset.lungs import find_lungs
    from create_dataset.members import load_network
    from create_dataset.unet import WeightsError, prepare, probabilities

    members, names = [], unique_names(paths, ".h5", ".weights")
    for path in paths:
        try:
            members.append(load_network(path, runtime))
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
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR",
                        help="folders with images/ and masks/, or COCO JSONs")
    parser.add_argument("--held-out", type=Path, metavar="CSV", help="of a set that it lists films of, only these")
    parser.add_argument("--spacing", type=_millimetres, metavar="MM",
                        help="between the pixels of the annotations, where neither DICOM nor the JSON holds it")
    parser.add_argument("--out", type=Path, default=Path("results/evaluation"), metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add_runtime(parser, KERAS)  # the same numbers on every machine
    arguments = parser.parse_args(argv)
    command = writable(shlex.join(["scripts/evaluate.py", *(sys.argv[1:] if argv is None else argv)]))
    names, sets = unique_names(arguments.data, ".json"), []
    try:
        held_out = read_held_out(arguments.held_out) if arguments.held_out else None
        records_of = [measured_records(source, held_out) for source in arguments.data]
        runtime = choose_runtime(arguments.runtime, arguments.device)
        start_runtime(runtime, arguments.device)
        find, judged = (with_members(load_members(arguments.weights, runtime=runtime)) if arguments.weights
                        else with_unets(arguments.unet, runtime))
        for source, name, records in zip(arguments.data, names, records_of, strict=True):
            kept = evaluate(find, judged, records, arguments.spacing)
            if not kept.images:
                raise InferenceError(f"{source}: none of its {len(records)} films could be used")
            summaries = summaries_of(kept)
            out = arguments.out if len(names) == 1 else arguments.out / name.strip("/").replace("/", "_")
            write_bytes(out / "films.csv", csv_text(kept).encode("utf-8", "replace"))
            write_json(out / "evaluation.json", {"command": command, "data": writable(str(source)), "networks": summaries})
            write_worst(kept, out / "worst")
            thirds = convention_of(source) == HEART_DRAWN_IN
            sets.append(summarise_set(name, kept.networks[judged].rows, THIRDS if thirds else WHOLE))
        write_json(arguments.out / "sets.json", {"command": command, "network": judged, "sets": sets})
    except (InferenceError, DatasetError, DeviceError, FilmError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: stopped; the sets that were measured are written", file=sys.stderr)
        return 130
    if len(names) == 1:
        print(*table_lines(summaries), *error_lines(summaries[judged]["error_map"]), sep="\n")
        print(offset_line(summaries[judged]["drawn_offset"]))
    print(*set_lines(sets), sep="\n")
    print(f"{arguments.out}: films.csv, evaluation.json, worst/ ({judged})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
