"""Renders digital chest phantoms with exact lung masks.

    python scripts/make_phantoms.py --out data/phantoms --count 16 --seed 7 --size 448

writes `images/phantom_0001.png` (8 bit grey) and `masks/phantom_0001.png` (0 background, 1 left lung, 2 right
lung, the patient's). Film k depends on the seed and on k alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

if __package__:
    from .phantom import draw_phantom
else:
    from phantom import draw_phantom

__all__ = ["draw_phantom", "main"]


def main(argv: list[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description="Renders digital chest phantoms with exact lung masks.")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets images/ and masks/")
    parser.add_argument("--count", type=int, default=16, help="number of films")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=512, help="longer side of a film in pixels")
    args = parser.parse_args(argv)
    if args.count < 1 or args.size < 64 or args.seed < 0:
        print(
            "make_phantoms: --count must be at least 1, --size at least 64 and --seed not negative",
            file=sys.stderr,
        )
        return 2
    folders = args.out / "images", args.out / "masks"
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for k in tqdm(range(1, args.count + 1), desc="phantoms", unit="film", disable=None):
            rng = np.random.default_rng([args.seed, k])
            aspect = rng.uniform(0.84, 1.06)  # width to height
            size = int(round(args.size / max(1.0, aspect))), int(round(args.size * min(1.0, aspect)))
            for folder, image in zip(folders, draw_phantom(rng, size), strict=True):
                png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
                write_bytes(folder / f"phantom_{k:04d}.png", png)
    except OSError as error:
        print(
            f"make_phantoms: cannot write to {args.out}: {error.strerror}; choose another --out",
            file=sys.stderr,
        )
        return 1
    print(f"{args.count} films in {folders[0]}, their masks in {folders[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
