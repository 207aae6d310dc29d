"""Makes a folder of annotated films of a set that has several folders of masks, by another than ``masks/``.

    python scripts/with_masks.py --set ../shared/data/shenzhen --masks masks_completed --out runs/sets/shenzhen
    python scripts/with_masks.py --set ../shared/data/wingspan --masks heart --out runs/hearts/wingspan

``OUT/images`` links to those films of the set that have such a mask, and ``OUT/masks`` holds the masks, so that
``--data OUT`` reads them. A mask of 0 and 255, of a heart for instance, becomes one of 0 and 1. The last folder of OUT
should have the set's name: by that films are held out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.results.pictures import picture_png
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes


def as_labels(mask: np.ndarray) -> np.ndarray:
    """A mask of 0 and 255 as one of 0 and 1; label masks stay."""
    return np.minimum(mask, 1) if set(np.unique(mask)) <= {0, 255} else mask


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--set", type=Path, required=True, metavar="DIR", help="has images/ and the masks")
    parser.add_argument("--masks", required=True, metavar="NAME", help="of their folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    masks = sorted((arguments.set / arguments.masks).glob("*.png"))
    if not masks or not (arguments.set / "images").is_dir():
        print(f"with_masks: {arguments.set}: has no images/ or no {arguments.masks}/*.png", file=sys.stderr)
        return 1
    for folder in ("images", "masks"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    names = {path.stem for path in masks}
    for film in (arguments.set / "images").iterdir():
        link = arguments.out / "images" / film.name
        if film.stem in names and not link.exists():
            link.symlink_to(film.resolve())
    for table in arguments.set.glob("films.csv"):
        shutil.copyfile(table, arguments.out / table.name)
    for path in masks:
        try:
            write_bytes(arguments.out / "masks" / path.name, picture_png(as_labels(read_film(path))))
        except FilmError as error:
            print(f"left out {error}", file=sys.stderr)
    print(f"{arguments.out}: {len(masks)} films")
    return 0


if __name__ == "__main__":
    sys.exit(main())
