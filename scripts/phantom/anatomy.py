"""One patient: build, outlines of the thoracic organs, the visible lung fields. Shapes as in canvas.py."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Layer, Points, curve


@dataclass(frozen=True)
class Patient:
    """What varies from one chest to the next; lengths in cm, factors relative to a mean adult."""

    width: float  # of the thoracic cage
    height: float  # of the lungs: build and depth of inspiration
    depth: float  # antero-posterior
    wall: float  # soft tissue between the ribs and the skin, cm
    heart: float  # size of the heart
    bone: float  # mineral
    turn: float  # shift of the front of the chest against its back, cm: rotation about the long axis
    arms: float  # 0 hanging, 1 abducted
    breast: float  # thickness, cm; 0 for none
    clavicle: float  # height of the clavicles against the apex, cm


def draw_patient(rng: np.random.Generator) -> Patient:
    kind = rng.choice(["average", "slim", "wide", "child"], p=[0.4, 0.22, 0.2, 0.18])
    width, height, depth, wall, heart = {
        "average": (1.0, 1.0, 1.0, 2.2, 1.0),
        "slim": (0.94, 1.1, 0.88, 1.4, 0.9),
        "wide": (1.08, 0.9, 1.2, 3.6, 1.12),
        "child": (0.98, 0.8, 0.8, 1.5, 1.1),
    }[str(kind)]
    return Patient(
        width=width * rng.uniform(0.94, 1.06),
        height=height * rng.uniform(0.86, 1.08),
        depth=depth * rng.uniform(0.92, 1.08),
        wall=wall * rng.uniform(0.85, 1.2),
        heart=heart * rng.uniform(0.86, 1.12),
        bone=(0.75 if kind == "child" else 1.0) * rng.uniform(0.75, 1.15),
        turn=rng.normal(0, 0.5),
        arms=rng.uniform(0.2, 1.0),
        breast=rng.uniform(1.5, 4.5) if kind != "child" and rng.random() < 0.4 else 0.0,
        clavicle=rng.normal(0, 0.7),
    )


@dataclass(frozen=True)
class Outline:
    """Edges of the thoracic organs as tables over the canvas; cm."""

    lateral: Layer  # [H, 1] half width of the thoracic cavity
    medial: Layer  # [H, 1] half width of what parts the apices
    cavity: Layer  # [H, 1] antero-posterior depth of the cavity
    heart_right: Layer  # [H, 1] x of the mediastinum's right edge (negative)
    heart_left: Layer  # [H, 1] x of its left edge
    dome: Layer  # [1, W] y of the diaphragm


def draw_outline(rng: np.random.Generator, p: Patient, canvas: Canvas) -> Outline:
    y, x = canvas.y / p.height, canvas.x / p.width
    bulge = rng.normal(0, 0.25, 6)
    lateral = curve(
        [
            (0, 5.0),
            (0.25, 6.2),
            (1, 7.4),
            (2, 8.3),
            (4, 9.6 + bulge[0]),
            (8, 11.3 + bulge[0]),
            (12, 12.3 + bulge[1]),
            (17, 12.9 + bulge[1]),
            (21, 13.1 + bulge[1]),
            (26, 12.9 + bulge[1]),
        ],
        y,
    )
    medial = curve([(0, 5.0), (0.25, 3.9), (1, 3.1), (2, 2.6), (4, 2.0), (6, 0.0)], y)
    cavity = curve([(-0.01, 0), (0.3, 2.5), (1, 5), (3, 9), (8, 14.5), (15, 17.5), (22, 18), (30, 18)], y)
    h = p.heart
    right = curve(
        [
            (-6, -2.6),
            (0, -2.2),
            (3, -2.2 + 0.5 * bulge[2]),
            (6, -2.7),
            (9, -2.8),
            (11, -3.0 * h),
            (13.5, -3.6 * h),
            (16, -4.0 * h + bulge[2]),
            (18.5, -3.9 * h),
            (21, -3.3),
            (23, -3.1),
        ],
        y,
    )
    knob = 3.4 + bulge[3]
    left = curve(
        [
            (-6, 2.6),
            (0, 2.2),
            (3.5, 2.2),
            (5.2, 2.7),
            (6.4, knob),
            (7.4, knob + 0.1),
            (8.8, 2.9 + bulge[4]),
            (10.3, 3.2 + bulge[4]),
            (12, 3.8 * h),
            (14.2, 5.3 * h),
            (16.5, 6.9 * h),
            (18.8, 7.9 * h),
            (20.8, 8.1 * h),
            (22.5, 7.6 * h),
            (24, 6.8 * h),
        ],
        y,
    )
    lift = rng.uniform(-0.6, 0.5)
    flat = rng.uniform(0.55, 1.1)
    base = 21.3
    right_dome = [
        (0.0, 0.1),
        (3, -0.2),
        (5, -1.0),
        (7, -1.3),
        (9, -0.8),
        (11, 0.9),
        (12.3, 2.7),
        (13.2, 4.3),
        (15, 6),
    ]
    left_dome = [
        (0.0, 0.3),
        (3, 0.4),
        (5, 0.2),
        (7, -0.1),
        (9, 0.1),
        (11, 1.3),
        (12.3, 3.0),
        (13.2, 4.4),
        (15, 6),
    ]
    bend = 0.35 * p.turn

    def dome(table: Points, at: Layer, shift: float) -> Layer:
        return (base + shift + curve([(u, v * (flat if v < 1 else 1.0)) for u, v in table], at)) * p.height

    dome_y = np.where(x < 0, dome(right_dome, np.abs(x), lift), dome(left_dome, np.abs(x), lift + 0.35))
    dome_y = canvas.blur(dome_y.astype(np.float32), 0.4)
    return Outline(
        lateral * p.width,
        medial * p.width,
        cavity * p.depth,
        right * p.width + bend,
        left * p.width + bend,
        dome_y,
    )


def lung_fields(o: Outline, canvas: Canvas) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The visible (left, right) lung, each [H, W]: no heart, no mediastinum, nothing below the dome."""
    above = (canvas.y < o.dome) & (canvas.y > 0)
    left = above & (canvas.x < o.lateral) & (canvas.x > np.maximum(o.heart_left, o.medial))
    right = above & (canvas.x > -o.lateral) & (canvas.x < np.minimum(o.heart_right, -o.medial))
    return left, right


def body_thickness(rng: np.random.Generator, p: Patient, canvas: Canvas) -> Layer:
    """Path through the whole trunk, neck and arms, [H, W] cm. Smooth, so drawn at half the grid."""
    x, y = canvas.x[:, ::2], canvas.y[::2]
    wide = 13.1 * p.width + p.wall
    flank = rng.uniform(-0.04, 0.05)
    half = curve(
        [
            (-9, 5.4),
            (-5, 5.8),
            (-3, 6.8),
            (-1.2, 9.5),
            (0.5, 0.86 * wide),
            (3, 0.96 * wide),
            (8, 1.05 * wide),
            (13, 1.03 * wide),
            (20, wide),
            (27, (0.98 + flank) * wide),
            (36, (1 + 1.5 * flank) * wide),
        ],
        y,
    )
    deep = curve([(-9, 11), (-3, 11.5), (0, 13), (4, 17.5), (10, 20.5), (18, 21.5), (26, 21), (36, 21.5)], y)
    deep = deep * p.depth + 0.9 * (p.wall - 2.2)
    trunk = deep * np.sqrt(np.clip(1 - np.abs(x / half) ** 2.6, 0, 1))
    total = trunk
    elbow = 18 + 10 * p.arms
    for side in (-1, 1):
        for (ax, ay), (bx, by), radius in (
            ((7.5, -0.2), (wide + 1.5, 3.6), 3.4 + 0.3 * p.wall),
            ((wide + 1.2, 4.2), (elbow, 24.0 - 9 * p.arms), 4.0 + 0.4 * p.wall),
        ):
            px, py, dx, dy = side * x - ax, y - ay, bx - ax, by - ay
            t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
            away = (px - t * dx) ** 2 + (py - t * dy) ** 2
            limb = 1.9 * np.sqrt(np.clip(radius**2 - away, 0, None))
            # A soft maximum: overlapping flesh merges, it does not add up.
            total = np.sqrt(total**2 + limb**2 - 0.75 * np.minimum(total, limb) ** 2)
        if p.breast:
            low = 18.5 * p.height + 0.12 * p.breast
            r = ((side * x - 0.5 * wide) / 5.9) ** 2 + ((y - low) / np.where(y < low, 9.5, 3.6)) ** 2
            # Standing, the breast thins out upwards and ends in a fold below.
            total = total + p.breast * np.clip(1 - r, 0, 1) ** np.clip(1.3 + 0.2 * (low - 4 - y), 0.5, 1.3)
    return cv2.resize(total.astype(np.float32), canvas.shape[::-1], interpolation=cv2.INTER_LINEAR)
