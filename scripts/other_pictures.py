"""Renders pictures that are no frontal chest films: laterals, hands, abdomens, skulls, text pages, patterns, noise.

They are rough: enough bone, air and soft tissue in the right places for a U-Net to find "lungs" in.

Shapes
    depth    float32 [height, width], minus log of the transmission, 0 for air
    picture  uint8 [height, width], grey, bones white
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Draw = Callable[[np.random.Generator], np.ndarray]
SIZE = 384  # of the longer side, pixels
WORDS = "patient name film chest exposure date left right upper lower no finding report of the and with 12 45 kV mAs".split()


def _grid(rng: np.random.Generator, aspect: tuple[float, float] = (0.8, 1.1)) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels: y from -1 to 1 downwards, x in the same unit."""
    width = int(SIZE * rng.uniform(*aspect))
    y, x = np.mgrid[0:SIZE, 0:width].astype(np.float32)
    return (y - SIZE / 2) / (SIZE / 2), (x - width / 2) / (SIZE / 2)


def _ellipsoid(y: np.ndarray, x: np.ndarray, cy: float, cx: float, ry: float, rx: float, turn: float = 0.0) -> np.ndarray:
    """How thick an ellipsoid of unit depth is at each pixel; ``turn`` in degrees."""
    s, c = np.sin(np.radians(turn)), np.cos(np.radians(turn))
    u, v = (c * (x - cx) + s * (y - cy)) / rx, (-s * (x - cx) + c * (y - cy)) / ry
    return np.sqrt(np.clip(1 - u**2 - v**2, 0, None)).astype(np.float32)


def _bone(depth: np.ndarray, points: list[tuple[float, float]], thickness: float, weight: float) -> None:
    """Adds a shaft along points (y, x): denser at its rims, as tubes are."""
    width = depth.shape[1]
    pixels = np.array([[(px * SIZE + width) / 2, (py * SIZE + SIZE) / 2] for py, px in points]).round().astype(np.int32)
    for share, density in ((1.0, 1.0), (0.55, -0.35)):
        layer = np.zeros_like(depth)
        cv2.polylines(layer, [pixels], False, weight * density, max(1, int(thickness * share * SIZE / 2)), cv2.LINE_AA)
        depth += layer


def _expose(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The film of a depth: pose, scatter, grain and a tone curve."""
    height, width = depth.shape
    pose = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal(0, 6)), float(rng.uniform(0.9, 1.4)))
    shift = np.pad(rng.normal(0, 0.05 * SIZE, (2, 1)), ((0, 0), (2, 0)))
    depth = cv2.warpAffine(depth, pose + shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
    blurred = cv2.GaussianBlur(depth, (0, 0), 1.0) + 0.15 * cv2.GaussianBlur(depth, (0, 0), 25.0)
    grain = cv2.GaussianBlur(rng.normal(0, 1, depth.shape).astype(np.float32), (0, 0), 0.7)
    film = blurred / np.quantile(blurred, 0.98) + 0.03 * grain
    return (np.clip(film, 0, 1) ** rng.uniform(0.7, 1.4) * 255).astype(np.uint8)


def lateral_chest(rng: np.random.Generator) -> np.ndarray:
    """A chest from the side: one dark field between breastbone and spine, the heart before it, both domes."""
    y, x = _grid(rng, (0.75, 0.95))
    facing, wide = rng.choice([-1, 1]), rng.uniform(0.55, 0.75)
    x = x * facing
    depth = 2.2 * _ellipsoid(y, x, 0.1, 0, 1.35, wide)
    depth += 0.6 * _ellipsoid(y, x, -1.0, 0, 0.5, wide * 0.9)  # shoulders and raised arms
    domes = rng.uniform(0.35, 0.6)
    field = (_ellipsoid(y, x, -0.05, 0.02, 0.85, wide * 0.82) > 0) & (y < domes + 0.25 * np.abs(x + 0.2))
    depth -= 1.3 * cv2.GaussianBlur(field.astype(np.float32), (0, 0), 3) * _ellipsoid(y, x, -0.05, 0.02, 1.0, wide)
    depth += 0.7 * _ellipsoid(y, x, 0.2, 0.22 * wide, 0.33, 0.5 * wide, 20)  # the heart
    for k in range(16):  # vertebrae
        top = -0.95 + 0.12 * k
        bend = -0.66 * wide + 0.12 * wide * np.cos(top * 2)
        depth += 0.55 * _ellipsoid(y, x, top, bend, 0.05, 0.1 * wide + 0.03)
    for k in range(9):  # ribs of both sides, seen along
        start = -0.7 + 0.14 * k
        ends = [(start - 0.1, -0.7 * wide * facing), (start + 0.05, 0.0), (start + 0.25, 0.6 * wide * facing)]
        _bone(depth, ends, 0.02, 0.15)
    return _expose(np.clip(depth, 0, None), rng)


def hand(rng: np.random.Generator) -> np.ndarray:
    """A hand on a black ground: five fingers of three bones, the palm, the wrist."""
    y, x = _grid(rng)
    depth = 0.8 * _ellipsoid(y, x, 0.3, 0, 0.42, 0.33) + 0.8 * _ellipsoid(y, x, 0.9, 0, 0.5, 0.2)
    for k, angle in enumerate(np.radians(rng.uniform(9, 13) * (np.arange(5) - 2)) + np.radians(rng.normal(0, 5))):
        length = (0.75, 0.95, 1.0, 0.95, 0.7)[k]
        along = [(0.45 - t * length * np.cos(angle), 1.3 * t * length * np.sin(angle)) for t in np.linspace(0, 1.15, 6)]
        _bone(depth, along, 0.16, 0.35)  # flesh
        for low, high in ((0, 1), (2, 3), (3, 4), (4, 5)):
            gap = 0.12
            (y1, x1), (y2, x2) = along[low], along[high]
            ends = [(y1 + gap * (y2 - y1), x1 + gap * (x2 - x1)), (y2 - gap * (y2 - y1), x2 - gap * (x2 - x1))]
            _bone(depth, ends, 0.07, 0.7)
    _bone(depth, [(0.62, -0.08), (1.0, -0.1)], 0.11, 0.7)
    _bone(depth, [(0.62, 0.1), (1.0, 0.1)], 0.1, 0.7)
    return _expose(np.clip(depth, 0, None), rng)


def abdomen(rng: np.random.Generator) -> np.ndarray:
    """An abdomen: spine, pelvis, gas in loops of bowel, perhaps the bases of the lungs at the top."""
    y, x = _grid(rng)
    wide = rng.uniform(0.7, 0.95)
    depth = 2.2 * _ellipsoid(y, x, 0, 0, 1.6, wide)
    for k in range(12):
        depth += 0.6 * _ellipsoid(y, x, -1 + 0.16 * k, 0, 0.075, 0.11)
    for side in (-1, 1):
        depth += 0.7 * _ellipsoid(y, x, 0.75, 0.45 * side, 0.35, 0.25, 30 * side)  # iliac wing
        depth += 0.4 * _ellipsoid(y, x, -0.35, 0.4 * side, 0.3, 0.22)  # liver, spleen
        for k in range(3):
            _bone(depth, [(-0.95 + 0.2 * k, 0.1 * side), (-0.8 + 0.2 * k, 0.6 * side * wide)], 0.04, 0.2)
    for _ in range(rng.integers(4, 14)):
        cy, cx, ry, rx = rng.uniform(-0.4, 0.8), rng.uniform(-0.6, 0.6), rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.2)
        depth -= 0.7 * _ellipsoid(y, x, cy, cx, ry, rx, rng.uniform(0, 180))
    if rng.random() < 0.5:
        for side in (-1, 1):
            depth -= 0.9 * _ellipsoid(y, x, -1.1, 0.4 * side, 0.4, 0.25)
    return _expose(np.clip(depth, 0, None), rng)


def skull(rng: np.random.Generator) -> np.ndarray:
    """A head from the front: vault, orbits, nose, sinuses, jaw."""
    y, x = _grid(rng)
    depth = 1.2 * _ellipsoid(y, x, -0.1, 0, 0.85, 0.62)
    depth += 0.9 * (_ellipsoid(y, x, -0.2, 0, 0.75, 0.58) > 0) - 0.9 * (_ellipsoid(y, x, -0.2, 0, 0.69, 0.53) > 0)
    for side in (-1, 1):
        depth -= 0.5 * _ellipsoid(y, x, -0.02, 0.24 * side, rng.uniform(0.12, 0.2), 0.17)
        depth -= 0.4 * _ellipsoid(y, x, 0.28, 0.2 * side, 0.13, 0.1)
        _bone(depth, [(0.2, 0.5 * side), (0.6, 0.42 * side), (0.78, 0.0)], 0.12, 0.5)
    depth -= 0.5 * _ellipsoid(y, x, 0.2, 0, 0.25, 0.07)
    depth += 0.5 * _ellipsoid(y, x, 0.95, 0, 0.35, 0.3)
    return _expose(np.clip(depth, 0, None), rng)


def limb(rng: np.random.Generator) -> np.ndarray:
    """Two long bones in soft tissue, as of a forearm or a lower leg, at any angle."""
    y, x = _grid(rng)
    depth = 0.9 * _ellipsoid(y, x, 0, 0, 3.0, rng.uniform(0.3, 0.6))
    gap = rng.uniform(0.1, 0.2)
    _bone(depth, [(-1.2, -gap), (1.2, -gap * 1.2)], rng.uniform(0.12, 0.2), 0.8)
    _bone(depth, [(-1.2, gap), (1.2, gap * 1.3)], rng.uniform(0.08, 0.16), 0.8)
    turn = cv2.getRotationMatrix2D((depth.shape[1] / 2, SIZE / 2), float(rng.uniform(0, 180)), 1.0)
    return _expose(cv2.warpAffine(np.clip(depth, 0, None), turn, depth.shape[::-1]), rng)


def text_page(rng: np.random.Generator) -> np.ndarray:
    """Lines of words, dark on white or the other way round, perhaps in two columns."""
    page = np.full((SIZE, int(SIZE * rng.uniform(0.7, 1.0))), 245, np.uint8)
    scale, columns = rng.uniform(0.3, 0.6), int(rng.integers(1, 3))
    across = page.shape[1] // columns
    for column in range(columns):
        for line in range(20, SIZE - 10, int(40 * scale)):
            text = " ".join(rng.choice(WORDS, int(across / (55 * scale) * rng.uniform(0.5, 1))))
            cv2.putText(page, text, (column * across + 10, line), cv2.FONT_HERSHEY_SIMPLEX, scale, 20, 1, cv2.LINE_AA)
    return page if rng.random() < 0.7 else 255 - page


def pattern(rng: np.random.Generator) -> np.ndarray:
    """A test picture: bars, a gradient, rings or a chequer."""
    y, x = _grid(rng)
    bars = np.sin(rng.uniform(4, 25) * (x * np.cos(t := rng.uniform(0, 3.2)) + y * np.sin(t)))
    rings = np.cos(rng.uniform(5, 20) * np.hypot(y, x))
    chequer = np.sign(np.sin(9 * x) * np.sin(9 * y))
    picture = (bars, rings, chequer, np.tanh(3 * (x + y)))[rng.integers(4)]
    return ((picture + 1) * 127).astype(np.uint8)


def noise_cloud(rng: np.random.Generator) -> np.ndarray:
    """Noise of one grain, from pixels to clouds half the picture wide."""
    y, _ = _grid(rng)
    grain = cv2.GaussianBlur(rng.normal(0, 1, y.shape).astype(np.float32), (0, 0), float(np.exp(rng.uniform(-1.5, 4.5))))
    return ((grain - grain.min()) / (grain.max() - grain.min()) * 255).astype(np.uint8)


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Two dark ovals on a lighter ground, without any anatomy about them."""
    y, x = _grid(rng)
    picture = np.full(y.shape, rng.uniform(100, 220), np.float32)
    for side in (-1, 1):
        oval = _ellipsoid(y, x, rng.normal(0, 0.15), side * rng.uniform(0.25, 0.5), *rng.uniform(0.2, 0.7, 2)) > 0
        picture[oval] -= rng.uniform(40, 100)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 2) + rng.normal(0, 5, y.shape), 0, 255).astype(np.uint8)


PICTURES: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (lateral_chest, hand, abdomen, skull, limb, text_page, pattern, noise_cloud, blobs)
}
