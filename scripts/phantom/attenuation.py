"""Beer-Lambert: what each tissue takes out of the beam, summed along every ray. Shapes as in canvas.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .anatomy import Outline, Patient, body_thickness
from .bones import rib_layer, shoulder_layer, spine_layer
from .canvas import Canvas, Layer, cloud_noise, round_profile, smooth_noise, spline, unit_circle

# Linear attenuation at about 65 keV in 1/cm: NIST XCOM mass coefficients times density
# (soft tissue 1.05 g/cm3, inflated lung 0.26 g/cm3, rib and vertebra with their marrow 1.65 g/cm3).
MU_SOFT = 0.205
MU_LUNG = 0.052
MU_BONE = 0.47


def bump(canvas: Canvas, at: tuple[float, float], spread: tuple[float, float]) -> Layer:
    """A Gaussian of height 1 around `at`, [H, W]; an outer product, since exp over a whole canvas is slow."""
    row = np.exp(-(((canvas.x - at[0]) / spread[0]) ** 2))
    return row * np.exp(-(((canvas.y - at[1]) / spread[1]) ** 2))


def hilum_point(p: Patient, o: Outline, canvas: Canvas, side: int) -> tuple[float, float]:
    """(x, y) of the root of one lung, just outside the mediastinum; the left one sits higher."""
    y = (11.0 if side < 0 else 10.2) * p.height
    edge = o.heart_left if side > 0 else o.heart_right
    return float(np.interp(y, canvas.y[:, 0], edge[:, 0])) + side * 0.5, y


def vessel_layer(rng: np.random.Generator, p: Patient, o: Outline, canvas: Canvas) -> Layer:
    """Path through the pulmonary vessels, [H, W] cm: two trees a side, branching outwards from the hila."""
    total = np.zeros(canvas.shape, np.float32)
    for _ in range(2):
        image = canvas.blank()
        strokes: list[tuple[float, NDArray[np.float64]]] = []
        for side in (-1, 1):
            done = len(strokes)
            root = np.array(hilum_point(p, o, canvas, side))
            queue = [
                (
                    root + rng.normal(0, 1, 2) * (0.3, 0.9),
                    a + rng.normal(0, 0.12),
                    (0.6 + 0.12 * (a > 0.6)) * rng.uniform(0.7, 1.2),
                )
                for a in (-1.5, -1.1, -0.7, -0.3, 0.1, 0.45, 0.75, 1.0, 1.2, 1.35)
            ]
            while queue:
                at, heading, thick = queue.pop(0)
                if thick < 0.09 or len(strokes) - done > 330:
                    continue
                chance = rng.random(6)
                length = (1.0 + 2.2 * thick) * (0.6 + 0.7 * chance[0])
                turns = heading + np.cumsum(rng.normal(0, 0.11, 5))
                steps = np.stack([side * np.cos(turns), np.sin(turns)], 1) * length / 5
                line = np.concatenate([at[None], at + np.cumsum(steps, 0)])
                strokes.append((thick, line))
                spread = 0.25 + 0.45 * chance[1]
                for sign, at_branch, shrink in (
                    (-1, chance[2], 0.66 + 0.2 * chance[4]),
                    (1, chance[3], 0.6 + 0.22 * chance[5]),
                ):
                    fork = spread * (0.3 + 0.7 * at_branch)
                    queue.append((line[-1], turns[-1] + sign * fork, thick * shrink))
        for thick, line in sorted(strokes, key=lambda s: s[0]):
            canvas.stroke(image, line, thick * 0.62, int(min(255, 50 + 260 * thick)))
        total += canvas.blur(image, 0.05) * (1.0 / 255)
    return total


def opacities(rng: np.random.Generator, p: Patient, canvas: Canvas) -> Layer:
    """Share of the lung's air replaced by fluid or cells, [H, W] in 0..0.9."""
    share = np.zeros(canvas.shape, np.float32)
    if rng.random() < 0.35:
        cloud = np.clip(0.75 + 0.3 * cloud_noise(rng, canvas.shape, 18), 0, 1.3)
        for _ in range(rng.integers(1, 4)):
            cx = int(rng.choice([-1, 1])) * rng.uniform(5, 11) * p.width
            cy = rng.uniform(3, 20) * p.height
            spread = rng.uniform(1.2, 4), rng.uniform(1.2, 4.5)
            share += rng.uniform(0.15, 0.55) * bump(canvas, (cx, cy), spread) * cloud
    if rng.random() < 0.12:
        side = int(rng.choice([-1, 1]))
        level = (24.6 - rng.uniform(0.5, 3.0)) * p.height
        rise = 2.2 * np.exp(-np.abs(side * canvas.x - 13 * p.width) / 1.6)
        share += 0.3 * (1 + np.tanh((canvas.y - level + rise) / 0.7)) * (side * canvas.x > 0)
    return np.clip(share, 0, 0.9)


def lung_air(rng: np.random.Generator, p: Patient, o: Outline, body: Layer, canvas: Canvas) -> Layer:
    """Path through aerated lung, [H, W] cm: what heart, diaphragm, vessels and disease leave of the cavity.

    Some lung lies behind the heart and behind the dome, as in the patient, though neither is lung field.
    """
    x, y = canvas.x, canvas.y
    across = np.clip(1 - np.abs(x / np.maximum(o.lateral, 1e-3)) ** 2.4, 0, 1)
    cage = np.minimum(o.cavity * np.sqrt(across) * (y > 0), 0.86 * body)
    edge = np.maximum(np.minimum(o.heart_left - x, x - o.heart_right), o.medial - np.abs(x))
    middle = np.where(edge > 0, 0.3 + 0.62 * round_profile(edge, 3.0), 0.0)
    below = y - o.dome
    floor = np.where(below > 0, 0.45 + 0.55 * (1 - np.exp(-np.maximum(below, 0) / 2.2)), 0.0)
    air = cage * (1 - canvas.blur(np.maximum(middle, floor), 0.1))

    marks = smooth_noise(rng, canvas.shape, 90) * 0.015 + smooth_noise(rng, canvas.shape, 14) * 0.03
    air = air * (1 - np.clip(marks + opacities(rng, p, canvas), 0, 0.93))
    solid = vessel_layer(rng, p, o, canvas) * np.clip(air / 6, 0, 1) * 1.25
    for side in (-1, 1):
        solid += 2.4 * bump(canvas, hilum_point(p, o, canvas, side), (1.6, 2.6))
    return np.maximum(air - solid, 0)


def other_gas(rng: np.random.Generator, p: Patient, o: Outline, canvas: Canvas) -> Layer:
    """Path through the air of windpipe, main bronchi and, in most patients, stomach, [H, W] cm."""
    windpipe = canvas.blank()
    fork = 8.6 * p.height
    canvas.stroke(windpipe, spline([(0.2, -9), (0.3, 2), (0.35 + 0.4 * p.turn, fork)]), 1.75, 200)
    for side in (-1, 1):
        bronchus = spline([(0.35, fork - 0.3), (side * 2.2, fork + 1.8), (side * 3.6, fork + 3.1)])
        canvas.stroke(windpipe, bronchus, 1.1, 120)
    gas = canvas.blur(windpipe, 0.12) * (1.6 / 200)
    if rng.random() < 0.7:
        at = rng.uniform(5, 9) * p.width, (24 + rng.uniform(-0.3, 1.5)) * p.height
        wide, tall = rng.uniform(1.8, 3.4), rng.uniform(1.0, 1.9)
        r = ((canvas.x - at[0]) / wide) ** 2 + ((canvas.y - at[1]) / tall) ** 2
        bubble = rng.uniform(2, 6) * np.sqrt(np.clip(1 - r, 0, 1)) * (canvas.y > o.dome + 0.4)
        if rng.random() < 0.5:
            # Upright, the stomach's fluid ends the bubble in a level.
            bubble = bubble * (canvas.y < at[1] + 0.3 * tall)
        gas = gas + canvas.blur(bubble, 0.06)
    return gas


def thorax_optical_depth(rng: np.random.Generator, p: Patient, o: Outline, canvas: Canvas) -> Layer:
    """Minus log of the primary transmission through the whole patient, [H, W]."""
    body = body_thickness(rng, p, canvas)
    lung = lung_air(rng, p, o, body, canvas)
    gas = other_gas(rng, p, o, canvas)
    bones = rib_layer(rng, p, o, canvas) + spine_layer(rng, p, canvas) + shoulder_layer(rng, p, canvas)
    flesh = np.maximum(body - lung - gas - bones, 0)
    return optical_depth(flesh, lung, bones) + devices(rng, p, canvas)


def optical_depth(flesh: Layer, lung: Layer, bone: Layer) -> Layer:
    """Beer-Lambert: path lengths in cm to minus the log of the transmission, [H, W], dimensionless."""
    return MU_SOFT * flesh + MU_LUNG * lung + MU_BONE * bone


def devices(rng: np.random.Generator, p: Patient, canvas: Canvas) -> Layer:
    """Optical depth of what some patients wear: electrodes with wires, a tracheal tube, a central line."""
    kind = rng.choice(["none", "wires", "tube", "line"], p=[0.74, 0.12, 0.08, 0.06])
    if kind == "none":
        return np.zeros(canvas.shape, np.float32)
    image = canvas.blank()
    if kind == "wires":
        for side in (-1, 1, 1):
            spot = (side * rng.uniform(5, 12) * p.width, rng.uniform(2, 19) * p.height)
            middle = (spot[0] * rng.uniform(0.2, 1.2), rng.uniform(10, 24) * p.height)
            end = (rng.uniform(-8, 12), 36.0)
            canvas.stroke(image, spline([spot, middle, end], 60), 0.16, 150)
            canvas.fill(image, spot + 0.75 * unit_circle(), 110)
            canvas.fill(image, spot + 0.4 * unit_circle(), 230)
    else:
        tip = 6.0 * p.height if kind == "tube" else 9.5 * p.height
        start = (0.5, -9.0) if kind == "tube" else (-4.5, -9.0)
        mid = (0.3, -1.0) if kind == "tube" else (-2.6, 0.5)
        path = spline([start, mid, (0.4 if kind == "tube" else -2.2, tip)], 40)
        wide = 0.95 if kind == "tube" else 0.3
        canvas.stroke(image, path, wide, 110)
        canvas.stroke(image, path, 0.6 * wide, 45)
        canvas.stroke(image, path + (0.25 * wide, 0), 0.12, 200)
    return canvas.blur(image, 0.04) * (0.7 / 255)
