"""Ill chests, made from films whose lungs are drawn in full: opaque lung, gas below a diaphragm, tubes.

A network that learns from healthy lungs takes the dark for the lung, and stops where an opacity begins. So a film whose
outline is known is given what hides a lung, and what only looks like one; the outline stays. The forms are those of
textbooks (Hansell et al., Fleischner Society: glossary of terms for thoracic imaging, Radiology 246, 2008): effusions that
rise to the side in a meniscus, consolidations of a lobe or in patches, ground glass, a white lung, a diaphragm that is
hidden or raised, gas in stomach or bowel, air beside the neck, tubes and lines where they are put.

Shapes
    film    uint8 [side, side], grey, equalised
    grey    float32 [side, side], 0 to 255
    labels  uint8 [side, side], 0 background, 1 left lung, 2 right lung
    lung    bool [side, side], one of them
    cover   float32 [side, side], 0 to 1: how far the lung is opaque
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import cv2
import numpy as np

from mask_rcnn.config import ILL_KINDS
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG

MIN_LUNG = 0.01  # of the film: a smaller one is left as it is

# How often each is there on a changed film; the opacities exclude each other on a lung.
RAISED, HIDDEN, GAS, NECK, TUBES, SECOND_LUNG = 0.15, 0.15, 0.35, 0.2, 0.3, 0.35


class Place(NamedTuple):
    """Where a lung lies."""

    lung: np.ndarray
    top: int
    bottom: int  # below the last row
    left: int
    right: int  # beside the last column
    to_side: np.ndarray  # float32 [side], 0 at the lung's medial edge and 1 at its lateral edge, by column


def make_ill(
    film: np.ndarray, labels: np.ndarray, rng: np.random.Generator, only: Collection[str] = ILL_KINDS
) -> tuple[np.ndarray, np.ndarray]:
    """A film and its labels with some of all that, at random; the film is not equalised again.

    ``only`` names the kinds that may be there; ``diaphragms`` are raised and hidden.

    A film whose labels hold anything but the two lungs comes back as it is: where a lung ends is not known there.
    """
    if labels.max(initial=0) > max(CATEGORIES):
        return film, labels
    raised = rng.random() < RAISED
    if raised and "diaphragms" in only:
        film, labels = raise_diaphragm(film, labels, rng)
    places = {category: place_of(labels == category, category) for category in CATEGORIES
              if (labels == category).mean() >= MIN_LUNG}
    if not places:
        return film, labels
    grey = film.astype(np.float32)
    tissue = grey[_between_lungs(labels)]
    order = rng.permutation(list(places))
    for number, category in enumerate(order):
        place = places[int(category)]
        if number == 0 or rng.random() < SECOND_LUNG:
            kinds: list[Callable[[Place, np.random.Generator], np.ndarray] | None] = [
                None, patches, lobe, effusion, white_lung, ground_glass]
            kind = kinds[int(rng.choice(len(kinds), p=(0.15, 0.27, 0.2, 0.2, 0.08, 0.1)))]
            if kind is not None and "opacities" in only:
                grey = veil(grey, kind(place, rng), level_of(tissue, rng), rng)
        if rng.random() < HIDDEN and "diaphragms" in only:
            grey = veil(grey, hidden_diaphragm(place, rng), level_of(tissue, rng), rng)
        if rng.random() < (GAS if category == LEFT_LUNG else GAS / 4) and "gas" in only:
            grey = add_gas(grey, place, labels, rng)
    if rng.random() < NECK and "neck" in only:
        grey = add_neck_air(grey, labels, rng)
    if rng.random() < TUBES and "tubes" in only:
        grey = add_tubes(grey, places, rng)
    return np.clip(np.round(grey), 0, 255).astype(np.uint8), labels


def place_of(lung: np.ndarray, category: int) -> Place:
    """Where a lung lies that is not empty."""
    rows, columns = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    across = np.clip((np.arange(lung.shape[1], dtype=np.float32) - left) / max(right - left - 1, 1), 0, 1)
    # The patient's left lung lies on the image's right, its lateral edge further right.
    return Place(lung, int(rows[0]), int(rows[-1]) + 1, left, right, across if category == LEFT_LUNG else 1 - across)


def _between_lungs(labels: np.ndarray) -> np.ndarray:
    """Soft tissue at the lungs' height: bool [side, side]."""
    rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
    inside = np.zeros(labels.shape, bool)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    inside &= labels == 0
    return inside if inside.any() else np.ones(labels.shape, bool)


def level_of(tissue: np.ndarray, rng: np.random.Generator) -> float:
    """How white fluid or consolidated lung is: as soft tissue and heart are, some more, some less."""
    return float(np.quantile(tissue, rng.uniform(0.45, 0.97)))


def veil(grey: np.ndarray, cover: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Grey towards a level where it is covered; of ribs and vessels behind it a part stays."""
    side = grey.shape[0]
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.03 * side)
    slope = rng.normal(0, 12) * np.linspace(-1, 1, side, dtype=np.float32)
    target = level + slope[:, None] + 10 * cloud(side, side / 8, rng) + rng.uniform(0.25, 0.8) * (grey - smooth)
    # Lung that is opaque already, or bone, does not get darker by what lies over it.
    result: np.ndarray = grey + cover * np.maximum(target - grey, -25)
    return result


def cloud(side: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field, float32 [side, side] of mean 0 and deviation 1, whose structures are of that size in pixels."""
    cells = max(3, round(2 * side / size))
    field = cv2.resize(rng.standard_normal((cells, cells), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    result: np.ndarray = (field - field.mean()) / max(float(field.std()), 1e-6)
    return result


def softened(mask: np.ndarray, deviation: float) -> np.ndarray:
    """A mask with soft edges, float32 [side, side]."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), deviation)


def around(place: Place, below: float) -> np.ndarray:
    """A lung and what lies close below it, up to a share of the side: bool [side, side].

    Whatever hides a diaphragm hides it from both sides.
    """
    side = place.lung.shape[0]
    down = max(1, round(below * side))
    kernel = np.zeros((2 * down + 1, 1), np.uint8)
    kernel[: down + 1] = 1  # OpenCV's dilation takes the maximum over rows above: the mask moves downwards
    return cv2.dilate(place.lung.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def effusion(place: Place, rng: np.random.Generator) -> np.ndarray:
    """Fluid that fills the lung from below and rises to its sides, more so to the lateral one."""
    side = place.lung.shape[0]
    height = place.bottom - place.top
    depth = rng.choice((rng.uniform(0.08, 0.3), rng.uniform(0.3, 0.8)), p=(0.65, 0.35)) * height
    u = place.to_side
    rise = rng.uniform(0.05, 0.3) * height * u ** rng.uniform(2, 5) + rng.uniform(0, 0.1) * height * (1 - u) ** 4
    surface = place.bottom - depth - rise
    softness = rng.uniform(0.008, 0.03) * side
    wet = 1 / (1 + np.exp(-np.clip((np.arange(side, dtype=np.float32)[:, None] - surface) / softness, -30, 30)))
    cover = wet * softened(around(place, 0.06), 0.008 * side)
    result: np.ndarray = (rng.uniform(0.85, 1) * cover).astype(np.float32)
    return result


def lobe(place: Place, rng: np.random.Generator) -> np.ndarray:
    """A consolidated lobe or segment: between two slanted lines, one of them at times as sharp as a fissure is."""
    side = place.lung.shape[0]
    height = place.bottom - place.top
    begin = rng.uniform(-0.1, 0.75)
    first, last = place.top + begin * height, place.top + (begin + rng.uniform(0.25, 0.6)) * height
    rows, tilt = np.arange(side, dtype=np.float32)[:, None], (place.to_side - 0.5)[None]
    edges = rng.choice((0.004, 0.03, 0.05), 2) * side
    above = (rows - first - rng.normal(0, 0.12) * height * tilt + 0.04 * side * cloud(side, side / 5, rng)) / edges[0]
    below = (last - rows + rng.normal(0, 0.12) * height * tilt + 0.04 * side * cloud(side, side / 5, rng)) / edges[1]
    within = 1 / (1 + np.exp(-np.clip(above, -30, 30))) / (1 + np.exp(-np.clip(below, -30, 30)))
    if rng.random() < 0.3:  # of a segment: the lateral or the medial part alone
        limit = (place.to_side - rng.uniform(0.3, 0.6)) * (1 if rng.random() < 0.5 else -1)
        within = within / (1 + np.exp(-np.clip(limit / 0.06, -30, 30)))
    hides = rng.random() < 0.5  # the diaphragm and the heart's border, where it reaches them
    cover = within * softened(around(place, 0.05) if hides else place.lung, 0.006 * side)
    density, uneven = rng.uniform(0.5, 1), 1 - 0.15 * np.clip(cloud(side, side / 12, rng), 0, 2)
    result: np.ndarray = (density * uneven * cover).astype(np.float32)
    return result


def patches(place: Place, rng: np.random.Generator) -> np.ndarray:
    """Patchy consolidation: soft clouds, at times most at the base or along the side."""
    side = place.lung.shape[0]
    field = cloud(side, rng.uniform(0.06, 0.25) * side, rng) + 0.4 * cloud(side, side / 20, rng)
    down = np.clip((np.arange(side, dtype=np.float32) - place.top) / max(place.bottom - place.top, 1), 0, 1)
    field = field + rng.uniform(0, 1.5) * (down - 0.5)[:, None] + rng.uniform(-0.3, 1) * (place.to_side - 0.5)[None]
    cover = 1 / (1 + np.exp(-np.clip((field - rng.uniform(-0.6, 1)) / rng.uniform(0.15, 0.5), -30, 30)))
    result: np.ndarray = (rng.uniform(0.4, 1) * cover * softened(around(place, 0.03), 0.01 * side)).astype(np.float32)
    return result


def ground_glass(place: Place, rng: np.random.Generator) -> np.ndarray:
    """A haze over the whole lung, with a fine net in it."""
    side = place.lung.shape[0]
    net = rng.uniform(0, 0.06) * cloud(side, side / 40, rng) + 0.12 * cloud(side, side / 6, rng)
    haze = np.clip(rng.uniform(0.25, 0.75) + net, 0, 1) * softened(place.lung, 0.015 * side)
    result: np.ndarray = haze.astype(np.float32)
    return result


def white_lung(place: Place, rng: np.random.Generator) -> np.ndarray:
    """A lung that is opaque from apex to base, or nearly so."""
    side = place.lung.shape[0]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, side // 40) + 1,) * 2)
    near = cv2.dilate(around(place, 0.06).astype(np.uint8), kernel)
    left_over = np.clip(cloud(side, side / 3, rng) - rng.uniform(0.8, 2.5), 0, 1)  # some air in it
    result: np.ndarray = ((rng.uniform(0.85, 1) - 0.5 * left_over) * softened(near, 0.012 * side)).astype(np.float32)
    return result


def hidden_diaphragm(place: Place, rng: np.random.Generator) -> np.ndarray:
    """A haze over a lung's base and what lies below it, which takes the diaphragm's edge away."""
    side = place.lung.shape[0]
    base = np.zeros(place.lung.shape, bool)
    columns = np.flatnonzero(place.lung.any(axis=0))
    lowest = side - place.lung[::-1].argmax(axis=0)
    up, down = rng.uniform(0.02, 0.12, 2) * side
    rows = np.arange(side)[:, None]
    base[:, columns] = (rows > lowest[columns] - up) & (rows < lowest[columns] + down)
    return (rng.uniform(0.6, 1) * softened(base, rng.uniform(0.015, 0.03) * side)).astype(np.float32)


def add_gas(grey: np.ndarray, place: Place, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stomach or bowel gas below the diaphragm: as dark as lung, its upper edge along the dome, loops or a fluid level."""
    side = grey.shape[0]
    room = side - place.bottom
    if room < 0.05 * side:
        return grey
    dark = float(np.quantile(grey[place.lung], rng.uniform(0.05, 0.6)))
    gap = rng.uniform(0.012, 0.04) * side  # the diaphragm and the wall of the stomach
    has_lung = place.lung.any(axis=0)
    lowest = np.where(has_lung, side - place.lung[::-1].argmax(axis=0), place.bottom).astype(np.float32)
    # Beside the heart a lung ends above the diaphragm, which goes on there as high as it is under the lung.
    lowest = np.maximum(lowest, np.quantile(lowest[has_lung & (place.to_side >= 0.45)], 0.1))
    lowest = cv2.GaussianBlur(lowest[None], (0, 0), 0.01 * side)[0]
    rows, columns = np.ogrid[:side, :side]
    shape = np.full(grey.shape, -1.0, np.float32)
    loops = 1 if rng.random() < 0.5 else int(rng.integers(2, 7))
    for _ in range(loops):
        width = rng.uniform(0.07, 0.16) * side if loops == 1 else rng.uniform(0.03, 0.08) * side
        tall = width * rng.uniform(0.5, 1.2)
        x = place.left + rng.uniform(0.1, 0.9) * (place.right - place.left)
        dome = lowest[min(max(int(x), 0), side - 1)]
        y = dome + gap + tall * rng.uniform(0.3, 1) + (0 if loops == 1 else rng.uniform(0, 0.6) * room)
        shape = np.maximum(shape, 1 - np.hypot((columns - x) / width, (rows - y) / tall).astype(np.float32))
        if loops == 1 and rng.random() < 0.35:  # standing: gas over fluid
            shape = np.where(rows > y + tall * rng.uniform(-0.2, 0.6), -1, shape)
    shape = np.where(shape > -0.5, shape + 0.12 * cloud(side, side / 12, rng), shape)
    inside = softened((shape > 0) & (rows > lowest[None] + gap) & (labels == 0), rng.uniform(0.003, 0.01) * side)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 0.03 * side)
    gas = dark + rng.uniform(0.3, 1) * detail + 8 * cloud(side, side / 10, rng)
    result: np.ndarray = grey + rng.uniform(0.7, 1) * inside * np.minimum(gas - grey, 0)
    return result


def add_neck_air(grey: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark air above the shoulders, on both sides of the neck."""
    side = grey.shape[0]
    rows, columns = np.ogrid[:side, :side]
    lungs = np.argwhere(labels > 0)
    top, middle = lungs[:, 0].min(), lungs[:, 1].mean()
    neck = rng.uniform(0.08, 0.16) * side
    shoulder = max(top - rng.uniform(0.02, 0.1) * side, 0.02 * side)
    out = (np.abs(columns - middle) - neck) / side
    # Shoulders fall off to the sides; the neck's edge is steep.
    skin = shoulder * np.clip(out / 0.05, 0, 1) * (0.4 + rng.uniform(0.5, 1.6) * np.clip(out, 0, 1))
    air = np.clip((skin - rows) / (0.01 * side), 0, 1) * (out > 0)
    near = softened(cv2.dilate((labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0, 1)
    result: np.ndarray = grey + air * (1 - near) * (rng.uniform(0, 60) - grey)
    return result


def raise_diaphragm(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One half of the diaphragm higher, or lower, than it was; what lies above and below moves with it, and the labels."""
    category = int(rng.choice(list(CATEGORIES)))
    lung = labels == category
    if lung.mean() < MIN_LUNG:
        return film, labels
    side = film.shape[0]
    place = place_of(lung, category)
    height = place.bottom - place.top
    rise = min(rng.uniform(-0.08, 0.3) * height, side - place.bottom)  # not more than the film shows below
    if rise == 0:
        return film, labels
    rows, columns = np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32)
    above = np.clip((rows - place.top) / height, 0, 1)
    below = np.clip(1 - (rows - place.bottom) / (1.6 * abs(rise) + 0.3 * side), 0, 1)
    by_row = np.where(rows < place.bottom, above**2 * (3 - 2 * above), below**2 * (3 - 2 * below))
    middle, half = (place.left + place.right) / 2, 0.75 * (place.right - place.left)
    by_column = np.cos(np.clip((columns - middle) / half, -1, 1) * np.pi / 2) ** 2
    moved = rows[:, None] + rise * by_row[:, None] * by_column[None]
    across = np.repeat(columns[None], side, axis=0)
    film = cv2.remap(film, across, moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return film, cv2.remap(labels, across, moved, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


def add_tubes(grey: np.ndarray, places: dict[int, Place], rng: np.random.Generator) -> np.ndarray:
    """Tubes and lines where they are put: trachea, stomach, a great vein, the pleura; and leads over the chest."""
    side = grey.shape[0]
    top, bottom = min(place.top for place in places.values()), max(place.bottom for place in places.values())
    middle = float(np.mean([(place.left + place.right) / 2 for place in places.values()])) if len(places) > 1 else side / 2
    chosen = list(places.values())[int(rng.integers(len(places)))]
    across = rng.normal(0, 0.02 * side, 4)

    def at(row: float, column: float) -> tuple[float, float]:
        return column, row

    carina = top + rng.uniform(0.2, 0.4) * (bottom - top)
    lateral = chosen.right if chosen.to_side[chosen.right - 1] > 0.5 else chosen.left
    ways = {
        "trachea": [at(0, middle + across[0]), at(carina / 2, middle + across[1]), at(carina, middle + across[0])],
        "stomach": [at(0, middle + across[0]), at((top + bottom) / 2, middle + across[1]), at(bottom, middle + across[2]),
                    at(min(bottom + 0.15 * side, side), middle + rng.uniform(0.05, 0.2) * side)],
        "vein": [at(max(top - 0.05 * side, 0), middle + rng.choice((-1, 1)) * rng.uniform(0.08, 0.3) * side),
                 at(top + 0.05 * side, middle - 0.06 * side), at((top + bottom) / 2, middle - 0.06 * side + across[0])],
        "pleura": [at(rng.uniform(top, bottom), lateral), at(rng.uniform(top, bottom), (chosen.left + chosen.right) / 2),
                   at(rng.uniform(top, bottom), middle + 0.3 * (lateral - middle))],
        "lead": [(float(x), float(y)) for x, y in rng.uniform(0, side, (4, 2))],
    }
    for name in rng.choice(list(ways), int(rng.integers(1, 5))):
        points = np.array(ways[str(name)])
        t = np.linspace(0, 1, 60)
        # Interpolated once more between its corners: a curve without kinks.
        curve = np.stack([np.interp(t, np.linspace(0, 1, len(points)), points[:, k]) for k in (0, 1)], axis=1)
        curve = _smoothed(curve)
        layer = np.zeros(grey.shape, np.uint8)
        thick = 2 if name in ("trachea", "pleura") and rng.random() < 0.6 else 1
        cv2.polylines(layer, [np.round(curve * 8).astype(np.int32)], False, 255, thick, cv2.LINE_AA, shift=3)
        grey = grey + layer.astype(np.float32) / 255 * rng.uniform(0.3, 0.9) * (rng.uniform(200, 255) - grey)
        if name == "lead":  # the electrode at its end
            x, y = (int(v) for v in points[-1])
            cv2.circle(layer, (x, y), max(2, side // 60), 255, -1, cv2.LINE_AA)
            grey = grey + layer.astype(np.float32) / 255 * 0.5 * (230 - grey)
    return grey


def _smoothed(curve: np.ndarray) -> np.ndarray:
    """A curve [n, 2] without kinks; its ends stay."""
    weights = np.hanning(17)[1:-1]
    padded = np.pad(curve, ((7, 7), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(padded[:, k], weights / weights.sum(), "valid") for k in (0, 1)], axis=1)
