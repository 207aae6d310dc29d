"""From the ensemble's votes to the left and the right lung: majority, clean-up, the split into sides.

Shapes
    votes   float [members, height, width] in [0, 1], each member's probability that a pixel is lung
    mask    bool [height, width], both lungs or one; in the pipeline the U-Net's 256 x 256
    lungs   {category id: mask}, at most one of each category; masks of two lungs share no pixel

Masks connect through pixel edges, not corners: lungs that meet at a corner are still two.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from mask_rcnn.coco import LEFT_LUNG, RIGHT_LUNG

# Of the image. The smallest lung drawn in the Shenzhen set (565 films) takes 1.8 % of its film, the smallest of JSRT
# (247 films) 6.9 %: what is far smaller is gas, a letter or noise.
MIN_LUNG_SHARE = 0.005

# The smaller of two parts over the larger. In 99 of 100 Shenzhen films the smaller lung has 0.46 of the larger or more.
MIN_PAIR_RATIO = 0.25

# Of the image's width, between the centroids of the two lungs; in both sets it is at least 0.2.
MIN_SPACING = 0.15

# Of the image's width, from its middle column: in both sets every lung's centroid is at least this far out.
MIDDLE = 0.1


def majority(votes: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The pixels that more than half of the members call lung, each with a probability above the threshold."""
    return 2 * (votes > threshold).sum(0) > len(votes)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Adds to the mask whatever it encloses: vessels, ribs or opacities that the members left out."""
    return ndimage.binary_fill_holes(mask)


def two_largest(mask: np.ndarray) -> np.ndarray:
    """Keeps the two largest connected parts of a mask, or fewer where there are fewer."""
    return np.logical_or.reduce([np.zeros(mask.shape, bool), *_parts(mask)[:2]])


def split_left_right(mask: np.ndarray, laterality: str = "patient") -> dict[int, np.ndarray]:
    """Names the lungs of a cleaned mask.

    Two parts are two lungs, the one further to the image's left being the patient's right lung. One part that narrows
    to a bridge is two lungs that touch, and is cut at the bridge; any other is one lung, whose side ``is_image_left``
    tells. Two parts one above the other on the same side are one lung in two pieces. Parts below half a percent of the
    image are no lungs.

    Args:
        mask: bool [height, width], as ``two_largest`` gives it.
        laterality: "patient", or "image" to name the lungs by image side instead.

    Returns:
        {category id: bool [height, width]}, of no, one or two lungs.
    """
    parts = [part for part in _parts(mask) if part.sum() >= MIN_LUNG_SHARE * mask.size][:2]
    if parts and (len(parts) == 1 or parts[1].sum() < MIN_PAIR_RATIO * parts[0].sum()):
        parts = cut_bridge(parts[0]) or parts
    if len(parts) == 2 and _is_one_lung(*parts):
        small = parts[1].sum() < MIN_PAIR_RATIO * parts[0].sum()  # gas below the diaphragm rather than a piece of lung
        parts = parts[:1] if small else [parts[0] | parts[1]]
    parts.sort(key=_middle_column)
    on_left, on_right = (RIGHT_LUNG, LEFT_LUNG) if laterality == "patient" else (LEFT_LUNG, RIGHT_LUNG)
    if len(parts) == 1:
        return {on_left if is_image_left(parts[0]) else on_right: parts[0]}
    return dict(zip((on_left, on_right), parts, strict=False))


def is_image_left(lung: np.ndarray) -> bool:
    """Whether a lung that was found alone is the one on the image's left.

    Its side of the film tells. Where it lies in the middle, as on a film of half a chest, its shape does: the apex is
    medial, the base spreads laterally, so the image's left lung leans to the left from top to bottom. The lean is right
    for 1622 of the 1624 lungs of the Shenzhen and JSRT sets.
    """
    offset = _middle_column(lung) - (lung.shape[1] - 1) / 2
    if abs(offset) >= MIDDLE * lung.shape[1]:
        return offset < 0
    rows, columns = np.nonzero(lung)
    lean = np.mean((rows - rows.mean()) * (columns - columns.mean()))
    return bool(lean < 0) if lean else offset < 0


def cut_bridge(part: np.ndarray) -> list[np.ndarray]:
    """Cuts a connected mask of two touching lungs where they touch.

    The mask is eroded, pixel by pixel, until it falls into two large parts side by side; every pixel then belongs to
    the part that is nearer to it, so that the cut runs through the narrowest place.

    Returns:
        The two lungs, the larger first, or an empty list where no erosion gives two.
    """
    depth = ndimage.distance_transform_edt(part)
    for radius in range(1, int(depth.max()) + 1):
        cores = _parts(depth > radius)[:2]
        if len(cores) < 2:
            continue
        to_first, to_second = (ndimage.distance_transform_edt(~core) for core in cores)
        first = part & (to_first <= to_second)
        # A half keeps its largest piece: beyond the other lung's edge there may be pixels nearer to this one.
        lungs = sorted((_parts(half)[0] for half in (first, part & ~first)), key=np.sum, reverse=True)
        (y1, x1), (y2, x2) = (ndimage.center_of_mass(lung) for lung in lungs)
        beside = abs(x1 - x2) >= max(abs(y1 - y2), MIN_SPACING * part.shape[1])
        if beside and lungs[1].sum() >= MIN_PAIR_RATIO * lungs[0].sum():
            return lungs
    return []


def enlarge(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretches a mask to a film's size, its outline smooth: bool [height, width].

    The film was stretched to the U-Net's square, so this undoes it. Masks that share no pixel share none afterwards.
    """
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def find_lungs(votes: np.ndarray, height: int, width: int, laterality: str = "patient") -> dict[int, np.ndarray]:
    """The whole way from the votes on one film to its lungs: {category id: bool [height, width]}."""
    lungs = split_left_right(two_largest(fill_holes(majority(votes))), laterality)
    enlarged = {category: enlarge(lung, height, width) for category, lung in lungs.items()}
    return {category: lung for category, lung in enlarged.items() if lung.any()}


def _parts(mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a mask, the largest first."""
    labels, count = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == k + 1 for k in np.argsort(-areas, kind="stable")]


def _middle_column(mask: np.ndarray) -> float:
    return float(ndimage.center_of_mass(mask)[1])


def _is_one_lung(larger: np.ndarray, smaller: np.ndarray) -> bool:
    """Whether two parts lie one above the other, on the same side of the film's middle."""
    width = larger.shape[1]
    offsets = [_middle_column(part) - (width - 1) / 2 for part in (larger, smaller)]
    same_side = offsets[0] * offsets[1] > 0 and min(map(abs, offsets)) > 0.05 * width
    columns = [part.any(0) for part in (larger, smaller)]
    shared = (columns[0] & columns[1]).sum() / min(column.sum() for column in columns)
    return bool(same_side and shared > 0.5)
