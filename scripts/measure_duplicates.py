"""Measures how well copies of a film are found, and different films kept apart, on copies made here.

    python scripts/measure_duplicates.py --src ../shared/data/kaggle ../shared/data/shenzhen
    python scripts/measure_duplicates.py --src ../shared/data/jsrt

Some films are copied in every way that CHANGES lists. A copy goes the whole way of ``create_dataset.py``: the U-Net
predicts its lungs again, a little elsewhere. The copies of one way are then put among all films of the folders.

- recall: of the copies, those in one group with their film
- wrong pairs: two films that are no copies of each other in one group, and precision, the share of pairs that are right
- pHash: the same for the common 64-bit DCT hash at its common threshold, 10 bits

Films that share a group before any copy is made count as one film; they are printed for review.

Shapes
    film   uint8 [height, width], grey, bones white
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy.fft import dctn
from tqdm import tqdm

from create_dataset.lungs import find_small_lungs
from create_dataset.sources import find_films
from create_dataset.unet import load_unet, prepare, probabilities
from mask_rcnn.films.duplicates import find_groups, fingerprint
from mask_rcnn.films.images import FilmError, to_8_bit
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.shipped import shipped_unet

Change = Callable[[np.ndarray], np.ndarray]

BATCH = 16
PHASH_BITS = 10


def recompress(quality: int) -> Change:
    def through_jpeg(film: np.ndarray) -> np.ndarray:
        coded = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))

    return through_jpeg


def resize(scale: float, stretch: float = 1.0) -> Change:
    """``stretch`` makes it wider than that."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return lambda film: cv2.resize(
        film, (round(film.shape[1] * scale * stretch), round(film.shape[0] * scale)), interpolation=how
    )


def crop(top: float = 0, left: float = 0, bottom: float = 0, right: float = 0) -> Change:
    """Shares of the film's height and width that are cut off."""

    def cut(film: np.ndarray) -> np.ndarray:
        height, width = film.shape
        rows = slice(round(top * height), height - round(bottom * height))
        return film[rows, round(left * width) : width - round(right * width)]

    return cut


def pad(film: np.ndarray) -> np.ndarray:
    """A square with black on both sides of the film, or above and below."""
    height, width = film.shape
    rows, columns = (max(film.shape) - height) // 2, (max(film.shape) - width) // 2
    return cv2.copyMakeBorder(film, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=0)


def expose(curve: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A curve from grey levels to grey levels, 0 to 1; what leaves that range is clipped."""
    table = np.clip(np.rint(255 * curve(np.arange(256) / 255)), 0, 255).astype(np.uint8)
    return lambda film: table[film]


def burn_in(film: np.ndarray) -> np.ndarray:
    """White letters in the upper corner."""
    size = max(film.shape) / 640
    place = round(0.04 * film.shape[1]), round(0.1 * film.shape[0])
    width = max(1, round(3 * size))
    return cv2.putText(film.copy(), "PORTABLE", place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, width, cv2.LINE_AA)


def through_12_bits(film: np.ndarray) -> np.ndarray:
    return to_8_bit(film.astype(np.uint16) * 13 + 300)


def several(*changes: Change) -> Change:
    def apply(film: np.ndarray) -> np.ndarray:
        for change in changes:
            film = change(film)
        return film

    return apply


FIVE_PERCENT = {side: 0.05 for side in ("top", "left", "bottom", "right")}

CHANGES: dict[str, Change] = {
    "JPEG of quality 95": recompress(95),
    "JPEG of quality 75": recompress(75),
    "JPEG of quality 50": recompress(50),
    "resized x 0.4": resize(0.4),
    "resized x 0.7": resize(0.7),
    "resized x 2": resize(2),
    "stretched by a fifth": resize(1, 1.2),
    "padded to a square": pad,
    "cropped by 5 %, every side": crop(**FIVE_PERCENT),
    **{f"cropped by 5 %, {side}": crop(**{side: share}) for side, share in FIVE_PERCENT.items()},
    "brightened by 40 levels": expose(lambda grey: grey + 40 / 255),
    "darkened by 30 levels": expose(lambda grey: grey - 30 / 255),
    "gamma 0.6": expose(lambda grey: grey**0.6),
    "gamma 1.6": expose(lambda grey: grey**1.6),
    "contrast x 0.6": expose(lambda grey: 0.5 + 0.6 * (grey - 0.5)),
    "contrast x 1.5": expose(lambda grey: 0.5 + 1.5 * (grey - 0.5)),
    "equalised": cv2.equalizeHist,
    "letters burnt in": burn_in,
    "from 12 bits to 8": through_12_bits,
    "cropped, resized, gamma, JPEG": several(
        crop(top=0.05, bottom=0.03, right=0.05), resize(0.5), expose(lambda grey: grey**0.75), recompress(70)
    ),
}


def phash(film: np.ndarray) -> np.ndarray:
    """bool [64], as Zauner (Perceptual Image Hash Functions, 2010) and most libraries have it."""
    low = dctn(cv2.resize(film, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64))[:8, :8].ravel()
    return low > np.median(low)


class Fingerprinter:
    """Fingerprints of films as ``create_dataset.py`` makes them."""

    def __init__(self, unet: Path) -> None:
        self.members = [load_unet(unet)]

    def __call__(self, paths: Sequence[Path], change: Change | None, name: str) -> tuple[list[str], np.ndarray]:
        """Fingerprints and pHashes [films, 64] of the films, changed."""
        prints, hashes = [], []
        for k in tqdm(range(0, len(paths), BATCH), desc=name, unit="batch", disable=None, leave=False):
            films = [read_film(path) for path in paths[k : k + BATCH]]
            films = [np.ascontiguousarray(change(film)) for film in films] if change else films
            votes = probabilities(self.members, np.stack([prepare(film) for film in films]))
            for index, film in enumerate(films):
                lungs = list(find_small_lungs(votes[:, index]).values())
                prints.append(fingerprint(film, np.logical_or.reduce(lungs) if lungs else None))
                hashes.append(phash(film))
        return prints, np.array(hashes)


def count_pairs(together: np.ndarray, films: np.ndarray) -> tuple[int, int]:
    """Pairs that were put together, bool [items, items]: those that show one film, and those that show two."""
    later = np.triu(together, 1)
    same = films[:, None] == films
    return int((later & same).sum()), int((later & ~same).sum())


def measure(originals: tuple[list[str], np.ndarray], copies: tuple[list[str], np.ndarray], chosen: np.ndarray,
            films: np.ndarray) -> list[float]:
    """Of one way to copy: recall, wrong pairs and precision, for our groups and for pHash.

    Args:
        originals, copies: fingerprints and pHashes.
        chosen: the originals that were copied.
        films: which film each original shows.
    """
    count = len(originals[0])
    shown = np.concatenate([films, films[chosen]])
    groups = np.array(find_groups(originals[0] + copies[0]))
    hashes = np.concatenate([originals[1], copies[1]])
    row = []
    for together in (groups[:, None] == groups, (hashes[:, None] != hashes).sum(2) <= PHASH_BITS):
        right, wrong = count_pairs(together, shown)
        recall = together[chosen, count + np.arange(len(chosen))].mean()
        row += [recall, wrong, right / max(right + wrong, 1)]
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, in Markdown; returns 0, or 1 where there are no films."""
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--src", nargs="+", type=Path, required=True, metavar="DIR", help="folders of films")
    parser.add_argument("--films", type=int, default=100, help="so many are copied (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of films (default: %(default)s)")
    parser.add_argument("--unet", type=Path, default=shipped_unet(), help="default: the one in models/unet")
    arguments = parser.parse_args(argv)
    paths = []
    for source in [source for folder in arguments.src for source in find_films(folder)]:
        try:
            read_film(source.path)
            paths.append(source.path)
        except FilmError as error:
            print(f"left out {error}", file=sys.stderr)
    if not paths:
        print("no film to copy; give folders of films with --src", file=sys.stderr)
        return 1
    take = Fingerprinter(arguments.unet)
    originals = take(paths, None, "originals")
    films = np.array(find_groups(originals[0]))
    for index in np.flatnonzero(films != np.arange(len(films))):
        print(f"one film: {paths[films[index]]} and {paths[index]}")
    chosen = np.random.default_rng(arguments.seed).choice(len(paths), min(arguments.films, len(paths)), replace=False)
    print(f"\n{len(set(films))} films, {len(chosen)} of them copied in {len(CHANGES)} ways\n")
    print("| copy | recall | wrong pairs | precision | pHash: recall | wrong pairs | precision |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, change in CHANGES.items():
        rows.append(measure(originals, take([paths[index] for index in chosen], change, name), chosen, films))
        print_row(name, rows[-1])
    mean = np.mean(rows, axis=0)
    print_row("all", [*mean[:1], sum(row[1] for row in rows), *mean[2:4], sum(row[4] for row in rows), *mean[5:]])
    return 0


def print_row(name: str, row: Sequence[float]) -> None:
    recall, wrong, precision, hash_recall, hash_wrong, hash_precision = row
    print(f"| {name} | {recall:.3f} | {wrong:.0f} | {precision:.3f} "
          f"| {hash_recall:.3f} | {hash_wrong:.0f} | {hash_precision:.3f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
