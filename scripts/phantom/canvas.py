"""The grid on which a chest is drawn, and the smooth shapes drawn on it.

Shapes
    layer   [H, W] float32  path length in cm through one tissue, on a canvas larger and finer than the film
    table   [H, 1] or [1, W] float32  one value a row or a column of the canvas

Lengths are centimetres of the anatomical frame: x runs to the patient's left (the image's right) from the
midline, y runs down from the apex of the lungs. The canvas is upright; the pose is applied once, when it is
resampled to the film.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Layer = NDArray[np.float32]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Canvas:
    """An upright grid in the anatomical frame."""

    scale: float  # pixels per cm
    x: Layer  # [1, W] cm
    y: Layer  # [H, 1] cm

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def blank(self) -> NDArray[np.uint8]:
        return np.zeros(self.shape, np.uint8)

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """cm [n, 2] to cv2's fixed point pixels [n, 1, 2] with 4 fractional bits."""
        origin = np.array([self.x[0, 0], self.y[0, 0]])
        return np.round((points - origin) * self.scale * 16).astype(np.int32)[:, None]

    def fill(self, image: NDArray[np.uint8], points: NDArray[np.float64], value: int) -> None:
        cv2.fillPoly(image, [self.pixels(points)], value, cv2.LINE_8, 4)

    def stroke(self, image: NDArray[np.uint8], points: NDArray[np.float64], width: float, value: int) -> None:
        thick = max(1, int(round(width * self.scale)))
        cv2.polylines(image, [self.pixels(points)], False, value, thick, cv2.LINE_8, 4)

    def blur(self, layer: NDArray, sigma: float) -> Layer:
        """Gaussian blur, sigma in cm; a drawing of 8 bits is blurred as such, which is much faster."""
        return np.asarray(cv2.GaussianBlur(layer, (0, 0), max(sigma * self.scale, 0.3)), np.float32)


def curve(points: Points, at: NDArray) -> Layer:
    """A monotone spline through (position, value), clamped beyond its ends."""
    position, value = np.array(points, np.float64).T
    return PchipInterpolator(position, value)(np.clip(at, position[0], position[-1])).astype(np.float32)


def spline(points: Points, count: int = 48) -> NDArray[np.float64]:
    """A smooth open curve [count, 2] through the points."""
    knots = np.array(points, np.float64)
    step = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
    return PchipInterpolator(step, knots)(np.linspace(0, step[-1], count))


def ribbon(line: NDArray[np.float64], above: NDArray, below: NDArray) -> NDArray[np.float64]:
    """The outline of a band around a curve, reaching `above` and `below` (cm, per point) to its two sides."""
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    return np.concatenate([line + normal * above[:, None], (line - normal * below[:, None])[::-1]])


def unit_circle() -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 40)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def mirrored(points: Points, side: int) -> Points:
    return [(side * x, y) for x, y in points]


def round_profile(inward: Layer, radius: float) -> Layer:
    """Path through a rounded body, 0 at its edge to 1 from `radius` inwards (same unit as `inward`)."""
    t = np.clip(inward / radius, 0, 1)
    return np.sqrt(t * (2 - t))


def cloud_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Layer:
    """Three octaves of `smooth_noise`, from `cells` grains upwards."""
    return sum((smooth_noise(rng, shape, cells << k) * 0.6**k for k in range(3)), np.zeros(shape, np.float32))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Layer:
    """Smooth random field of about unit variance with `cells` grains along the longer side."""
    longest = max(shape)
    grid = (max(3, cells * shape[0] // longest + 2), max(3, cells * shape[1] // longest + 2))
    noise = rng.standard_normal(grid).astype(np.float32)
    return np.asarray(cv2.resize(noise, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)
