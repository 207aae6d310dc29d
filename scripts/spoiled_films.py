"""Spoils good chest films on purpose, each in one way, to see whether the quality checks notice.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, 1 the patient's left lung, 2 the right; they follow what moves the film
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

Pair = tuple[np.ndarray, np.ndarray]
Spoiler = Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair]


def blur(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Out of focus: a Gaussian of 1 to 5 % of the shorter side."""
    return cv2.GaussianBlur(film, (0, 0), float(rng.uniform(0.01, 0.05)) * min(film.shape)), labels


def noise(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Grain of 30 to 100 grey levels, as of a film taken with far too little dose."""
    grain = rng.normal(0, rng.uniform(30, 100), film.shape)
    return np.clip(film + grain, 0, 255).astype(np.uint8), labels


def low_contrast(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """All in 5 to 20 grey levels."""
    levels = rng.uniform(5, 20)
    return np.round(100 + film / 255.0 * levels).astype(np.uint8), labels


def overexpose(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """The darker half or so of the film burnt to one black: the lungs' edges towards the air are lost."""
    low = np.quantile(film, rng.uniform(0.35, 0.6))
    return np.clip((film - low) * (255 / max(1.0, 255 - low)), 0, 255).astype(np.uint8), labels


def invert(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Bones black, and nobody noticed."""
    return 255 - film, labels


def crop_side(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """The image's left or right half."""
    middle = film.shape[1] // 2
    half = np.s_[:, :middle] if rng.random() < 0.5 else np.s_[:, middle:]
    return film[half], labels[half]


def crop_height(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """The upper or the lower half."""
    middle = film.shape[0] // 2
    half = np.s_[:middle] if rng.random() < 0.5 else np.s_[middle:]
    return film[half], labels[half]


def crop_window(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """A window of half the height and half the width, anywhere."""
    (height, width), share = film.shape, 0.5
    top, left = (int(rng.uniform(0, 1 - share) * side) for side in (height, width))
    window = np.s_[top : top + int(share * height), left : left + int(share * width)]
    return film[window], labels[window]


def shrink(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Squeezed into 40 to 70 % of either side, independently, on a dark ground."""
    height, width = film.shape
    small = max(8, int(height * rng.uniform(0.4, 0.7))), max(8, int(width * rng.uniform(0.4, 0.7)))
    top, left = (int(rng.uniform(0, whole - part)) for whole, part in zip(film.shape, small, strict=True))
    grounds = np.zeros_like(film), np.zeros_like(labels)
    for ground, layer, way in zip(grounds, (film, labels), (cv2.INTER_AREA, cv2.INTER_NEAREST), strict=True):
        ground[top : top + small[0], left : left + small[1]] = cv2.resize(layer, small[::-1], interpolation=way)
    return grounds


def rotate_30(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """20 to 40 degrees to either side, the film's size kept, the corners black."""
    height, width = film.shape
    angle = float(rng.uniform(20, 40) * rng.choice([-1, 1]))
    return warp(film, labels, cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0))


def warp(film: np.ndarray, labels: np.ndarray, matrix: np.ndarray) -> Pair:
    """Film and labels moved by an affine matrix, float [2, 3]; their size is kept, what is uncovered is black."""
    size = film.shape[::-1]
    moved = cv2.warpAffine(film, matrix, size, flags=cv2.INTER_LINEAR)
    return moved, cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST)


def rotate_90(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """A quarter turn to either side."""
    turns = int(rng.choice([1, 3]))
    return np.rot90(film, turns).copy(), np.rot90(labels, turns).copy()


def rotate_180(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Upside down."""
    return film[::-1, ::-1].copy(), labels[::-1, ::-1].copy()


def mirror(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Scanned from the wrong side: the heart points to the image's left, where the patient's left lung now lies."""
    return film[:, ::-1].copy(), labels[:, ::-1].copy()


def white_out(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """One lung filled, as by an effusion, by 80 to 100 % of its height from below; what it hides is still lung."""
    lung = (labels == rng.choice([LEFT_LUNG, RIGHT_LUNG])).astype(np.uint8)
    rows = np.flatnonzero(lung.any(1))
    if not len(rows):
        return film, labels
    lung[: int(rows[-1] - rng.uniform(0.8, 1.0) * (rows[-1] - rows[0]))] = 0
    reach = max(3, int(0.04 * film.shape[1]))
    share = cv2.GaussianBlur(cv2.dilate(lung, np.ones((reach, reach))).astype(np.float32), (0, 0), reach / 2)
    white = np.quantile(film, 0.85) + cv2.GaussianBlur(rng.normal(0, 60, film.shape), (0, 0), 6)
    return np.clip(film * (1 - share) + white * share, 0, 255).astype(np.uint8), labels


def occlude(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """A black, grey or white box over a third to a half of either side, reaching into the lungs."""
    covered = film.copy()
    height, width = film.shape
    box = [int(rng.uniform(0.33, 0.5) * side) for side in (height, width)]
    top, left = (int(rng.uniform(0.1, 0.9 - part / side) * side) for part, side in zip(box, film.shape, strict=True))
    covered[top : top + box[0], left : left + box[1]] = rng.choice([0, 128, 255])
    return covered, labels


def collage(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """The film twice or four times on one sheet, as in a follow-up's print."""
    across = (1, 2) if rng.random() < 0.5 else (2, 2)
    return np.tile(film, across), np.tile(labels, across)


def lateral_like(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Both halves laid over each other, as the lungs of a film from the side; no lung can be annotated on it by name.

    It stands in for a lateral film, which cannot be made of a frontal one.
    """
    height, middle = film.shape[0], film.shape[1] // 2
    share = float(rng.uniform(0.4, 0.6))
    laid = cv2.addWeighted(film[:, :middle], share, film[:, -middle:], 1 - share, 0)
    laid = cv2.resize(laid, (middle * 3 // 2, height), interpolation=cv2.INTER_LINEAR)
    return laid, np.zeros_like(laid)


SPOILERS: dict[str, Spoiler] = {
    spoiler.__name__: spoiler
    for spoiler in (
        blur, noise, low_contrast, overexpose, invert, crop_side, crop_height, crop_window, shrink,
        rotate_30, rotate_90, rotate_180, mirror, white_out, occlude, collage,
        lateral_like,
    )
}  # fmt: skip
