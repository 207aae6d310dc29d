"""Path lengths through the skeleton of the chest. Shapes as in canvas.py."""

from __future__ import annotations

import numpy as np

from .anatomy import Outline, Patient
from .canvas import Canvas, Layer, curve, mirrored, ribbon, spline, unit_circle


def rib_layer(rng: np.random.Generator, p: Patient, o: Outline, canvas: Canvas) -> Layer:
    """Path through the ribs, [H, W] cm: tubes with a dense cortex, the front arcs over the back ones."""
    back, front = canvas.blank(), canvas.blank()
    pitch = 2.35 * p.height * rng.uniform(0.95, 1.05)
    drop = rng.uniform(0.85, 1.15)
    angle = np.linspace(0.0, 1.0, 40)
    reach = o.lateral[:, 0]
    rows = canvas.y[:, 0]
    bands = []
    for side in (-1, 1):
        for k in range(10):
            start = -1.1 + pitch * k + (0.5 if k == 0 else 0.0) + rng.normal(0, 0.06)
            fall = (3.6 + 7.4 * min(k, 6) / 6) * drop * p.height
            theta = angle * np.pi * (0.80 if k < 8 else 0.66)
            y = start + fall * (1 - np.cos(theta)) / 2 - (0.3 + 0.1 * k) * np.sin(theta) ** 2 * np.cos(theta)
            edge = float(np.interp(start + 0.5 * fall, rows, reach)) + 0.25
            edge = 5.7 * p.width if k == 0 else max(edge, 6.6 * p.width)
            x = 1.6 + (edge - 1.6) * np.sin(theta)
            x = x * (1 - 0.10 * angle**2) + side * p.turn * (1 - np.cos(theta)) / 2
            line = np.stack([side * x, y], 1)
            width = (0.42 + 0.012 * k + 0.16 * angle) * (0.9 + 0.1 * p.width)
            if k > 7:
                width = width * np.sqrt(np.clip((1.0 - angle) / 0.3, 0, 1))
            split = int(np.searchsorted(theta, 0.5 * np.pi)) + 1
            bands.append((back, line[:split], width[:split], side))
            bands.append((front, line[split - 1 :], width[split - 1 :], side))
    # From the rind inwards: every later level overwrites the marrow of the earlier one.
    for share, value in ((1.0, 90), (0.86, 150), (0.66, 110), (0.45, 92)):
        for image, line, width, side in bands:
            outer, inner = (width * share, width * (share * 0.96))
            canvas.fill(image, ribbon(line, *((outer, inner) if side > 0 else (inner, outer))), value)
    # The front arcs turn to cartilage, further out the lower they lie.
    margin = 3.6 + 0.5 * np.clip(canvas.y / p.height - 14, 0, None)
    fade = np.clip((np.abs(canvas.x - p.turn) - margin) / 3.5, 0, 1)
    near = canvas.blur(back, 0.045) * 0.0070
    far = canvas.blur(front, 0.06) * 0.0052 * fade
    # A rib seen along its run, at the side of the chest, is longer to cross.
    along = 1 + 0.7 / (1 + 0.5 * (np.abs(canvas.x) - o.lateral) ** 2) ** 2
    # The floating end of the cage is thin and lies in the thick of the abdomen.
    faint = 1 - 0.5 * np.clip(canvas.y / p.height - 20, 0, 3) / 3
    return ((near + far) * along * faint * p.bone).astype(np.float32)


def spine_layer(rng: np.random.Generator, p: Patient, canvas: Canvas) -> Layer:
    """Path through the vertebrae and the sternum, [H, W] cm."""
    image = canvas.blank()
    # The arches and joints behind the discs never let the column fall apart into blocks.
    canvas.fill(image, np.array([(-1.25, -9.0), (1.25, -9.0), (2.1, 36.0), (-2.1, 36.0)]), 95)
    y = -9.0
    lean = rng.normal(0, 0.25)
    waist = spline([(-1, 0), (-0.86, 0.5), (-1, 1)], 9)
    process = spline([(-1, 0.35), (0, 0.5), (1, 0.35)], 12)
    while y < 36:
        tall = 1.35 + 0.045 * max(y + 4, 0) ** 0.9
        half = 1.25 + 0.028 * (y + 9)
        cx = lean * np.sin((y + 5) / 12)
        body = (cx, y) + waist * (half, tall)
        outline = np.concatenate([body, (2 * cx, 0) + body[::-1] * (-1, 1)])
        mid = np.array([cx, y + tall / 2])
        canvas.stroke(image, (cx, y) + process * (half + 1.2, tall), 0.75, 70)
        canvas.fill(image, outline, 190)
        canvas.fill(image, mid + (outline - mid) * (0.9, 0.84), 158)
        for side in (-1, 1):
            ring = unit_circle() * (0.32, 0.48)
            canvas.fill(image, ring + (cx + side * half * 0.62, y + 0.45 * tall), 188)
            canvas.fill(image, ring * 0.6 + (cx + side * half * 0.62, y + 0.45 * tall), 160)
        spike = [(cx, y + 0.55 * tall), (cx + 0.05, y + 1.15 * tall)]
        canvas.stroke(image, np.array(spike), 0.42, 185)
        y += tall + 0.28 + 0.012 * max(y, 0)
    sternum = canvas.blank()
    t = p.turn
    plate = [(2.6, 3.0), (1.7, 7.0), (1.9, 16.0)]
    canvas.fill(sternum, np.array(plate + mirrored(plate, -1)[::-1]) + (t, 0), 60)
    path = canvas.blur(image, 0.08) * 0.0074 + canvas.blur(sternum, 0.15) * 0.005
    return (path * p.bone).astype(np.float32)


def shoulder_layer(rng: np.random.Generator, p: Patient, canvas: Canvas) -> Layer:
    """Path through clavicles, scapulae and humeri, [H, W] cm."""
    clavicles, blades, arms = canvas.blank(), canvas.blank(), canvas.blank()
    wide = 13.1 * p.width + p.wall
    for side in (-1, 1):
        c = p.clavicle + rng.normal(0, 0.25)
        shift = p.turn * 0.9
        tip = (wide - 0.3, 0.2 + 0.7 * c)
        line = spline(
            [
                (side * 1.8 + shift, 3.9 + c),
                (side * 4.5 + shift, 2.9 + c),
                (side * 8.0 + 0.5 * shift, 1.9 + c),
                (side * 11.5, 0.9 + c),
                (side * tip[0], tip[1]),
            ]
        )
        thick = curve(
            [(0, 0.85), (0.12, 0.62), (0.5, 0.5), (0.88, 0.5), (1, 0.3)], np.linspace(0, 1, len(line))
        )
        for share, value in ((1.0, 110), (0.84, 165), (0.62, 118), (0.4, 100)):
            canvas.fill(clavicles, ribbon(line, thick * share, thick * share), value)
        joint = wide - 0.6
        inner = joint - 6.2 + 1.2 * p.arms
        blade = spline(
            mirrored(
                [
                    (inner, 2.6),
                    (joint - 3.4, 1.7),
                    (joint - 0.6, 3.4),
                    (joint - 0.2, 5.4),
                    (joint - 1.6, 7.0),
                    (joint - 2.6, 10.0),
                    (joint - 3.6, 14.2),
                    (joint - 4.6, 14.0),
                    (inner - 0.1, 9.0),
                    (inner - 0.3, 5.0),
                    (inner, 2.6),
                ],
                side,
            ),
            90,
        )
        canvas.fill(blades, blade, 45)
        edge = spline(
            mirrored([(joint - 0.3, 5.2), (joint - 1.6, 7.0), (joint - 2.6, 10.0), (joint - 3.8, 14.0)], side)
        )
        canvas.stroke(blades, edge, 0.7, 105)
        ridge = spline(
            mirrored([(inner + 0.2, 4.6), (joint - 3.5, 2.6), (joint - 0.5, 1.0), (joint + 1.2, 1.2)], side)
        )
        canvas.fill(
            blades, ribbon(ridge, np.linspace(0.2, 0.8, len(ridge)), np.linspace(0.2, 0.6, len(ridge))), 95
        )
        canvas.fill(blades, unit_circle() * (0.9, 1.9) + (side * (joint - 0.2), 4.4), 80)
        head = (joint + 2.0, 4.4)
        far = (head[0] + 4.5 + 6 * p.arms, head[1] + 15.0 - 6 * p.arms)
        shaft = np.array(mirrored([head, far], side))
        for width, radius, value in ((2.3, 2.35, 110), (1.9, 2.15, 150), (1.1, 1.8, 125)):
            canvas.stroke(arms, shaft, width, value)
            canvas.fill(arms, unit_circle() * radius + (side * head[0], head[1]), value)
    return (
        canvas.blur(clavicles, 0.06) * 0.0068
        + canvas.blur(blades, 0.1) * 0.0100
        + canvas.blur(arms, 0.12) * 0.009
    ) * p.bone
