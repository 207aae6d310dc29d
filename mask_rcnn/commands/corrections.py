"""``corrections``: films for annotation tools, and what a person corrected there back into ``corrections.json``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mask_rcnn.dataset.annotators import COCO_FILE, IMAGES, MASKS, TASKS, write_pack
from mask_rcnn.dataset.corrections import CORRECTIONS, write_corrections
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.returned import read_returned, take_back
from mask_rcnn.results.found import read_found
from mask_rcnn.system.command_line import DONE, NOTHING_DONE, CommandLine

EXPORT, IMPORT = "export", "import"


def main(argv: Sequence[str] | None = None) -> int:
    """Exports or imports; returns the exit status.

    Raises:
        SystemExit: the command line is wrong, or wants help.
    """
    parser = CommandLine(
        "scripts/corrections.py",
        f"Exports the films and lungs of a run for annotation tools, and imports what was corrected into {CORRECTIONS}.",
        "ACTION FOLDER PATH [--films WHICH]",
        ["scripts/corrections.py export data/dataset to_correct",
         "scripts/corrections.py import data/dataset cvat_export.zip"],
    )  # fmt: skip
    parser.add_argument("action", choices=(EXPORT, IMPORT), metavar="ACTION", help=f"{EXPORT} or {IMPORT}")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the --out of create_dataset.py or inference.py")
    parser.add_argument("path", type=Path, metavar="PATH",
                        help=f"the folder to {EXPORT} to; or, to {IMPORT}, what a tool exported: a COCO JSON, a JSON of "
                             "Label Studio, a folder of PNG masks, or a ZIP of one of these")
    parser.add_argument("--films", choices=("review", "all"), default="review",
                        help=f"which to {EXPORT}: review, those for review and those whose lungs a person marked as wrong, "
                             "or all (default: %(default)s)")
    parser.add_argument("-h", "--help", action="help", help="print this help")
    arguments = parser.parse_args(argv)
    try:
        if arguments.action == EXPORT:
            return _export(arguments.folder, arguments.path, arguments.films == "all")
        return _import(arguments.folder, arguments.path)
    except DatasetError as error:
        print(f"corrections: {error}", file=sys.stderr)
    except OSError as error:
        print(f"corrections: {error.filename or arguments.path}: {error.strerror or error}", file=sys.stderr)
    return NOTHING_DONE


def _export(folder: Path, out: Path, of_all: bool) -> int:
    found = read_found(folder)
    films = found.films if of_all else found.to_correct
    if not films:
        print(f"corrections: {folder}: no film is for review or has lungs marked as wrong; --films all exports every film",
              file=sys.stderr)
        return NOTHING_DONE
    if out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out}: is not empty; give a new folder, as what lies there may be a person's work")
    count = write_pack(out, films, found.laterality)
    print(f"{out}: {count} films in {IMAGES}/, their lungs in {COCO_FILE} (CVAT, FiftyOne), {TASKS} and {MASKS}/")
    return DONE if count else NOTHING_DONE


def _import(folder: Path, path: Path) -> int:
    found = read_found(folder)
    returned, refused = read_returned(path)
    if not returned and not refused:
        raise DatasetError(f"{path}: nobody has annotated a film in it; submit the annotations and export again")
    taken = take_back(found.films, returned, datetime.now(UTC).isoformat(timespec="seconds"), str(path))
    for file, reason in (refused | taken.refused).items():
        print(f"left out {file}: {reason}", file=sys.stderr)
    if taken.corrections:
        kept = found.corrections | {item.image_id: item for item in taken.corrections if item.image_id is not None}
        write_corrections(folder / CORRECTIONS, kept.values(), found.laterality)
    left_out = len(refused) + len(taken.refused)
    print(f"{folder / CORRECTIONS}: films corrected: {len(taken.corrections)}; as they were: {taken.unchanged}; "
          f"left out: {left_out}")
    return DONE if taken.corrections or taken.unchanged else NOTHING_DONE
