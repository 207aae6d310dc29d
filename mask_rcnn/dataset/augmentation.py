"""Random changes to a training film: another pose, build, crop, exposure, illness, apparatus or what lies beside the chest.

Shapes
    film    uint8 [side, side], grey, equalised and fitted to the square, zeros outside its window
    labels  uint8 [side, side], 0 background, 1 left lung, 2 right lung
    window  (y1, x1, y2, x2) in pixels of the square: where the film lies in it
    valid   bool [side, side], where the square shows film and neither padding nor collimator

The network sees films as inference gives them: equalised within the film's area, zeros around it. A changed
film is therefore equalised again, over what is still film.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from mask_rcnn.config import AugmentationConfig
from mask_rcnn.dataset.illness import make_ill
from mask_rcnn.films.levels import equalise
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

Window = tuple[int, int, int, int]

# Level v of a mirrored film's labels: its patient's left lung lies where the right one lay.
MIRRORED_LABELS = np.arange(256, dtype=np.uint8)
MIRRORED_LABELS[[LEFT_LUNG, RIGHT_LUNG]] = RIGHT_LUNG, LEFT_LUNG

CROP_PROBABILITY = 0.5
COLLIMATOR_PROBABILITY = 0.15
SMEAR_PROBABILITY = 0.2  # what a turned film uncovers: its edge smeared outwards, else black


def augment(
    film: np.ndarray,
    labels: np.ndarray,
    window: Window,
    strengths: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One film and its labels, changed at random; the same arrays come back where every strength is zero.

    Args:
        film: uint8 [side, side], equalised.
        labels: uint8 [side, side].
        window: where the film lies in the square.
        strengths: of the changes; see ``AugmentationConfig``.
        rng: source of all that varies.

    Returns:
        New film and labels, uint8 [side, side], the film equalised anew within its area and zero outside it.
    """
    moves = strengths.rotation > 0 or strengths.scale > 0 or strengths.shift > 0
    shades = strengths.shading > 0 or strengths.noise > 0
    equips = rng.random() < strengths.apparatus
    # No draw where it is off, so that configs older than it still give the films they gave.
    surrounds = strengths.beside > 0 and rng.random() < strengths.beside
    is_ill = strengths.ill > 0 and rng.random() < strengths.ill
    changes = moves or shades or equips or surrounds or is_ill
    if is_ill:
        film, labels = make_ill(film, labels, rng, strengths.ill_kinds)
    if moves:
        film, labels, valid = move(film, labels, window, strengths, rng)
    elif changes:
        valid = np.zeros(film.shape, bool)
        valid[window[0] : window[2], window[1] : window[3]] = True
    if surrounds:
        film = surround(film, labels, rng)
    if equips:
        film = equip(film, rng)
    if shades:
        film = shade(film, strengths.shading, strengths.noise, rng)
    if changes:
        changed = np.zeros_like(film)
        if valid.any():
            changed[valid] = equalise(film[valid])
        film = changed
    if rng.random() < strengths.flip:
        film, labels = film[:, ::-1], MIRRORED_LABELS[labels[:, ::-1]]
    return np.ascontiguousarray(film), np.ascontiguousarray(labels)


def move(
    film: np.ndarray,
    labels: np.ndarray,
    window: Window,
    strengths: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops, collimates, turns, stretches and shifts a film; returns film, labels and valid.

    The crop is fitted to the square again, as a film that its hospital had cropped so would have been.
    """
    side = film.shape[0]
    y1, x1, y2, x2 = window
    height, width = y2 - y1, x2 - x1
    lost = np.zeros(4)
    if rng.random() < CROP_PROBABILITY:  # hospitals crop films differently
        lost = np.minimum(np.abs(rng.normal(0, strengths.shift, 4)), 0.2)
    top, left = lost[0] * height, lost[1] * width
    kept_height, kept_width = (1 - lost[0] - lost[2]) * height, (1 - lost[1] - lost[3]) * width

    fit = side / max(kept_height, kept_width)
    scale = fit * np.exp(rng.normal(0, strengths.scale))
    stretch = np.exp(rng.normal(0, strengths.scale / 2))
    angle = np.deg2rad(rng.normal(0, strengths.rotation))
    shift = rng.normal(0, strengths.shift, 2) * side
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = scale * np.array([[cosine * stretch, sine * stretch], [-sine, cosine]])
    centre = np.array([left + kept_width / 2 - 0.5, top + kept_height / 2 - 0.5])
    matrix = np.column_stack([turn, (side - 1) / 2 + shift - turn @ centre])

    new_height, new_width = (max(1, round(min(kept * fit, side))) for kept in (kept_height, kept_width))
    new_top, new_left = (side - new_height) // 2, (side - new_width) // 2
    edges = np.array([new_top, new_left, new_top + new_height, new_left + new_width])
    if rng.random() < COLLIMATOR_PROBABILITY:
        blades = np.abs(rng.normal(0, strengths.shift, 4)) * side
        edges += np.round(np.minimum(blades, side / 5) * (1, 1, -1, -1)).astype(edges.dtype)

    source = film[y1:y2, x1:x2]
    smear = rng.random() < SMEAR_PROBABILITY
    border = cv2.BORDER_REPLICATE if smear else cv2.BORDER_CONSTANT
    film = cv2.warpAffine(source, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    labels = cv2.warpAffine(labels[y1:y2, x1:x2], matrix, (side, side), flags=cv2.INTER_NEAREST)
    covered = np.ones_like(source)
    covered = cv2.warpAffine(covered, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=border)
    valid = np.zeros(film.shape, bool)
    inside = np.s_[edges[0] : edges[2], edges[1] : edges[3]]
    valid[inside] = covered[inside] > 0
    return film * valid, labels * valid, valid


def shade(film: np.ndarray, shading: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A film as another exposure, a sicker chest or another console might have given it.

    Args:
        film: uint8 [side, side].
        shading: of tilted exposure and soft opacities, share of the grey range; 0 is none.
        noise: largest standard deviation of the grain, share of the grey range; 0 is neither grain nor blur.
        rng: source of all that varies.

    Returns:
        uint8 [side, side], not equalised.
    """
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    if shading > 0:  # equalising alone undoes a tone curve, but not once something has been added to it
        levels = levels ** np.float32(np.exp(rng.normal(0, 3 * shading)))
    grey = levels[film]
    if shading > 0:
        x, y = _axes(film.shape[0])
        grey += np.float32(rng.normal(0, shading)) * x + np.float32(rng.normal(0, shading)) * y
        for _ in range(rng.integers(0, 3)):  # an opacity, dense or faint, anywhere
            (centre_x, centre_y), (width, height) = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.08, 0.4, 2)
            # A Gaussian blob is the product of its profiles, so two short vectors of exponentials do.
            profile_x = np.exp(-(((x - centre_x) / width) ** 2))
            profile_y = np.exp(-(((y - centre_y) / height) ** 2))
            grey += (rng.uniform(-1.2, 5) * shading * profile_y * profile_x).astype(np.float32)
    if shading > 0 and rng.random() < 0.2:  # local contrast enhancement, as some consoles apply before export
        clahe = cv2.createCLAHE(clipLimit=rng.uniform(1.5, 4), tileGridSize=(8, 8))
        grey = clahe.apply(_stretch(grey)) / np.float32(255)
    if noise > 0 and rng.random() < 0.3:
        grey = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.5, 1.5))
    if noise > 0 and rng.random() < 0.4:
        grey += rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(rng.uniform(0.2, 1) * noise)
    return _stretch(grey)


def equip(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A film with what hospitals leave on it: tubes and leads, letters, electrodes, a device; uint8 [side, side]."""
    side = film.shape[0]
    layer = film.copy()
    for _ in range(rng.integers(0, 4)):  # a tube or a lead: a smooth curve through a few points
        corners = rng.uniform(0, side, (4, 2))
        t = np.linspace(0, 1, 40)[:, None]
        bernstein = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
        curve = bernstein @ corners
        points = [np.round(curve * 8).astype(np.int32)]
        cv2.polylines(layer, points, False, int(rng.integers(150, 256)), int(rng.integers(1, 4)), cv2.LINE_AA, shift=3)
    for _ in range(rng.integers(0, 4)):  # an electrode or a button
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        cv2.circle(layer, centre, int(rng.integers(1, max(2, side // 50))), int(rng.integers(180, 256)), -1, cv2.LINE_AA)
    if rng.random() < 0.2:  # a pacemaker's can
        centre, axes = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(0.04, 0.08, 2) * side
        box = (tuple(map(float, centre)), tuple(map(float, 2 * axes)), float(rng.uniform(0, 180)))
        cv2.ellipse(layer, box, int(rng.integers(200, 256)), -1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 3)):
        text = "".join(rng.choice(list("LRAPSUPINE0123456789 :"), rng.integers(1, 9)))
        place = tuple(int(v) for v in rng.integers(0, side, 2))
        scale = float(rng.uniform(0.2, 0.8)) * side / 256
        cv2.putText(layer, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, int(rng.choice([0, 255])), 1, cv2.LINE_AA)
    # Metal hides the chest, plastic does not.
    return cv2.addWeighted(layer, opacity := float(rng.uniform(0.4, 1)), film, 1 - opacity, 0)


def surround(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A film with dark air beside the chest wall, at times an arm in it or an unexposed edge; uint8 [side, side].

    Air is as dark and as tall as a lung, and the gap between an arm and the chest has a lung's shape.
    """
    lungs = labels > 0
    columns = np.flatnonzero(lungs.any(axis=0))
    if not len(columns):
        return film
    side = film.shape[0]
    grey = film.astype(np.float32)
    down, across = np.ogrid[:side, :side]
    for from_edge, room in ((across, columns[0]), (side - 1 - across, side - 1 - columns[-1])):
        if rng.random() < 0.3:
            continue
        # The chest keeps a wall around the lung; below its top the air may reach further inwards, never to the lung.
        wall, hollow, top = rng.uniform((0.02, 0, -0.2), (0.08, 0.1, 0.8)) * side
        skin = room - wall - hollow * np.clip(1 - (down - top) / side, 0, 1)
        air = np.clip(skin - from_edge, 0, 1) * np.clip((down - top) / (0.05 * side), 0, 1)
        grey += air * (rng.uniform(0, 70) - grey)
        if rng.random() < 0.4:  # an arm, denser in its middle
            middle, width, lean = rng.uniform(0, 0.6) * room, rng.uniform(0.03, 0.1) * side, rng.uniform(-0.3, 0.3)
            arm = np.clip(1.5 - 1.5 * np.abs(from_edge - middle - lean * (down - side / 2)) / width, 0, 1)
            grey += arm * air * (rng.uniform(90, 200) - grey)
        if rng.random() < 0.3:
            unexposed = from_edge < rng.uniform(0.1, 0.5) * min(room, skin.min())
            grey = np.where(unexposed, 255, grey)
    soft = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.5, 2))
    near = cv2.dilate(lungs.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.where((grey != film) & ~near, np.clip(soft, 0, 255), film).astype(np.uint8)


def _stretch(grey: np.ndarray) -> np.ndarray:
    # Consoles stretch an exposure to the grey range, they do not cut it off at the ends.
    low, high = grey.min(), grey.max()
    return np.asarray(np.round((grey - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))


@cache
def _axes(side: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return axis[None, :], axis[:, None]
