"""Measures how often a film with white bones is taken for an inverted one, and how often an inverted one is noticed.

    python scripts/measure_polarity.py ../shared/data/shenzhen/images ../shared/data/kaggle ../shared/data/jsrt/images

Every film of the folders is taken to have white bones; it is tried as it is and spoilt, and each of these inverted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.polarity import is_inverted
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.system.console import forgiving_streams

Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def framed(level: int) -> Spoil:
    """Puts a frame of one level around a film, 15 % of each side wide."""

    def spoil(film: np.ndarray, _: np.random.Generator) -> np.ndarray:
        height, width = (round(0.15 * side) for side in film.shape)
        return np.pad(film, ((height, height), (width, width)), constant_values=level)

    return spoil


def tilted(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by up to 12 degrees, black where nothing was."""
    height, width = film.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), 1)
    return cv2.warpAffine(film, turn, (width, height))


def cropped(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 15 % cut off each edge."""
    top, bottom, left, right = (rng.uniform(0, 0.15, 4) * np.repeat(film.shape, 2)).astype(int)
    return film[top : film.shape[0] - bottom, left : film.shape[1] - right]


SPOILT: dict[str, Spoil] = {
    "as it is": lambda film, _: film,
    "black frame": framed(0),
    "white frame": framed(255),
    "cropped": cropped,
    "tilted": tilted,
    "on its side": lambda film, rng: np.rot90(film, rng.choice([1, 3])),
    "left half": lambda film, _: film[:, : film.shape[1] // 2],
    "right half": lambda film, _: film[:, film.shape[1] // 2 :],
}


def measure(films: Sequence[np.ndarray], seed: int) -> dict[str, tuple[int, int]]:
    """For each way of spoiling: how many films were taken for inverted as they are, and inverted."""
    counts = {}
    for name, spoil in SPOILT.items():
        rng = np.random.default_rng(seed)
        taken = [[is_inverted(spoil(pixels, rng)) for pixels in (film, 255 - film)] for film in films]
        counts[name] = sum(upright for upright, _ in taken), sum(inverted for _, inverted in taken)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description="Measure how well inverted films are noticed.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="films with white bones")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    for folder in arguments.folders:
        films = []
        for path in tqdm(find_film_paths(folder), desc=str(folder), unit="film", disable=None):
            try:
                film = read_film(path)
            except FilmError as error:
                tqdm.write(f"skipped {error}", file=sys.stderr)
                continue
            scale = min(1.0, 512 / max(film.shape))  # for memory and speed: the measure itself takes 256 pixels
            films.append(cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        if not films:
            print(f"{folder}: holds no film that can be read", file=sys.stderr)
            return 1
        print(f"{folder}: {len(films)} films")
        for name, (upright, inverted) in measure(films, arguments.seed).items():
            share = 100 * inverted / len(films)
            print(f"  {name:12} {upright:4} taken for inverted, {inverted:4} of the inverted noticed ({share:.1f} %)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
