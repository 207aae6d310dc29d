"""From a chest to a film: pose, scatter, quantum noise, detector blur, log response, tone, collimation.

Shapes
    film    [h, w] uint8    the radiograph, bone bright and air dark
    labels  [h, w] uint8    0 background, 1 left lung, 2 right lung
    depth   [h, w] float32  minus log of the transmission
    layer   [H, W] float32  on the canvas, SUPERSAMPLE times finer than the film and a little larger
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from .anatomy import draw_outline, draw_patient, lung_fields
from .attenuation import thorax_optical_depth
from .canvas import Canvas, Layer, smooth_noise

SUPERSAMPLE = 2


def draw_phantom(
    rng: np.random.Generator, size: tuple[int, int] = (512, 440)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one frontal chest film and its exact labels.

    rng: everything that varies is drawn from it, so equal generators give equal films.
    size: (height, width) of the film in pixels.
    Returns film [h, w] uint8 and labels [h, w] uint8 (0 background, 1 left lung, 2 right lung; the patient's,
    so the left lung lies on the image's right). The lungs are the visible fields, as in the Shenzhen and JSRT
    masks: neither behind the heart nor below the diaphragm; an opacity within a field stays lung.
    """
    h, w = size
    patient = draw_patient(rng)
    view_h = max(24.8 * patient.height / rng.uniform(0.6, 0.76), 30.0 * patient.width * h / w)
    view_w = view_h * w / h
    centre = rng.normal(0, 0.5), 13.4 * patient.height + rng.normal(0, 0.7)
    scale = SUPERSAMPLE * h / view_h
    reach_x, reach_y = 0.53 * view_w + 0.5, 0.53 * view_h + 0.5

    def axis(start: float, length: float) -> Layer:
        return (start + np.arange(int(length * scale)) / scale).astype(np.float32)

    canvas = Canvas(
        scale,
        axis(centre[0] - reach_x, 2 * reach_x)[None],
        axis(centre[1] - reach_y, 2 * reach_y)[:, None],
    )
    outline = draw_outline(rng, patient, canvas)
    depth = thorax_optical_depth(rng, patient, outline, canvas)
    fields = lung_fields(outline, canvas)

    map_x, map_y = pose(rng, canvas, (h, w))

    def to_film(layer: NDArray) -> Layer:
        fine = cv2.remap(
            layer.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA), np.float32)

    labels = np.zeros((h, w), np.uint8)
    for value, field in enumerate(fields, start=1):
        labels[largest_piece(to_film(field) >= 0.5)] = value
    shutter = collimator(rng, (h, w))
    film = develop(rng, expose(rng, to_film(depth)), labels)
    film = (mark(rng, film) * shutter).astype(np.uint8)
    for value in (1, 2):
        # A lung cut by the collimator is not seen there, so it is not labelled there either.
        labels[(labels == value) & ~largest_piece((labels == value) & (shutter > 0.5))] = 0
    return film, labels


def pose(rng: np.random.Generator, canvas: Canvas, size: tuple[int, int]) -> tuple[Layer, Layer]:
    """Where each fine film pixel looks on the canvas: tilt and a slow warp, since no chest is symmetric."""
    h, w = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
    tilt = float(np.deg2rad(np.clip(rng.normal(0, 1.8), -5, 5)))
    cos, sin = math.cos(tilt), math.sin(tilt)
    u = np.arange(w, dtype=np.float32)[None] - w / 2
    v = np.arange(h, dtype=np.float32)[:, None] - h / 2
    middle = (canvas.shape[1] - 1) / 2, (canvas.shape[0] - 1) / 2
    slow = [smooth_noise(rng, (h, w), 3) * 0.18 * canvas.scale for _ in range(2)]
    map_x = middle[0] + cos * u - sin * v + slow[0]
    map_y = middle[1] + sin * u + cos * v + slow[1]
    return map_x.astype(np.float32), map_y.astype(np.float32)


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if len(stats) < 2:
        return mask
    return pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def expose(rng: np.random.Generator, depth: Layer) -> Layer:
    """Optical depth to what the detector reports as such: scatter, blur, quantum noise, then the log."""
    h = depth.shape[0]
    primary = np.exp(-depth)
    small = cv2.resize(primary, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    # Scatter spreads over several centimetres; most of it is stopped by the grid.
    haze = cv2.GaussianBlur(np.minimum(small, 0.25), (0, 0), h / 8 / 14)
    haze = cv2.resize(haze, depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    signal = primary + rng.uniform(0.1, 0.35) * haze
    signal = cv2.GaussianBlur(signal, (0, 0), rng.uniform(0.35, 0.7) * h / 512)
    quanta = rng.uniform(1.5e4, 8e4)
    # At these counts Poisson's law is Gaussian with the same variance, and much faster to draw.
    noise = rng.standard_normal(depth.shape, dtype=np.float32)
    noise = 0.6 * noise + 0.7 * cv2.GaussianBlur(noise, (0, 0), 0.7)
    signal = signal + noise * np.sqrt(signal / quanta)
    return -np.log(np.maximum(signal, 1e-4))


def develop(rng: np.random.Generator, depth: Layer, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Window, edge enhancement and tone curve of a digital system, to 8 bits."""
    h = depth.shape[0]
    lung, rest = depth[labels > 0], depth[(labels == 0) & (depth > 1.0)]
    low = float(np.percentile(lung, 2)) - rng.uniform(0.15, 0.9)
    high = float(np.percentile(rest, 99)) + rng.uniform(-0.1, 0.4)
    tone = np.clip((depth - low) / (high - low), 0, 1.1)
    # The shoulder of the curve keeps contrast for the lungs and spends little on spine and liver.
    bend = rng.uniform(0.6, 2.8)
    tone = (1 - np.exp(-bend * tone)) / (1 - math.exp(-bend))
    small = cv2.resize(tone, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    local = cv2.resize(
        cv2.GaussianBlur(small, (0, 0), h / 4 / 22), tone.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    tone = np.clip(tone + rng.uniform(0.1, 0.7) * (tone - local), 0, 1)
    tone = tone ** rng.uniform(0.8, 1.2)
    tone = tone + rng.uniform(-0.05, 0.2) * tone * (1 - tone) * (2 * tone - 1)
    bright = rng.uniform(225, 252)
    return np.clip(rng.uniform(2, 18) + bright * tone, 0, 255).astype(np.uint8)


def mark(rng: np.random.Generator, film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Burn in the side marker, on most films."""
    h, w = film.shape
    film = film.copy()
    if rng.random() < 0.7:
        side = int(rng.choice([-1, 1]))
        at = (int(w * (0.5 + side * rng.uniform(0.3, 0.4))), int(h * rng.uniform(0.06, 0.14)))
        size = h / 900 * rng.uniform(0.8, 1.6)
        grey = int(rng.integers(190, 256))
        cv2.putText(
            film,
            "L" if side > 0 else "R",
            at,
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            grey,
            max(1, h // 300),
            cv2.LINE_AA,
        )
    return film


def collimator(rng: np.random.Generator, size: tuple[int, int]) -> Layer:
    """What the shutter lets through, [h, w] in 0..1."""
    h, w = size
    if rng.random() > 0.45:
        return np.ones(size, np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) + rng.uniform(0, 0.03, (4, 2)) * (w, h) * inwards
    field = np.zeros(size, np.uint8)
    cv2.fillPoly(field, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return field.astype(np.float32) / np.float32(255)
