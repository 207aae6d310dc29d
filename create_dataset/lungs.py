"""From the ensemble's votes to the left and the right lung: majority, clean-up, the split into sides.

Shapes
    votes   float [members, height, width] in [0, 1], each member's probability that a pixel is lung
    mask    bool [height, width], both lungs or one; in the pipeline the U-Net's 256 x 256
    lungs   {category id: mask}, at most one of each category; masks of two lungs share no pixel

Masks connect through pixel edges, not corners: lungs that meet at a corner are still two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import cv2
import numpy as np

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import centroid

# Of the image. The smallest lung annotated in the Shenzhen set (565 films) takes 1.8 % of its film, the smallest of JSRT
# (247 films) 6.9 %: what is far smaller is gas, a letter or noise.
MIN_LUNG_SHARE = 0.005

# The smaller of two parts over the larger. In 99 of 100 Shenzhen films the smaller lung has 0.46 of the larger or more.
MIN_PAIR_RATIO = 0.25

# Of the image's width, between the centroids of the two lungs; in both sets it is at least 0.2.
MIN_SPACING = 0.15

# Of the image's width, from its middle column: in both sets every lung's centroid is at least this far out.
MIDDLE = 0.1

# The same, the other way: no lung's centroid is further out than 0.31 in either set; air beside an arm is.
MAX_OFFSET = 0.375

# A piece of a lung: its least share of the rest of that lung, and of the image's width how far it may lie from it.
MIN_PIECE_RATIO, MAX_GAP = 0.1, 0.05


def majority(votes: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The pixels that more than half of the members call lung, each with a probability above the threshold."""
    return np.asarray(2 * (votes > threshold).sum(0) > len(votes))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Adds to the mask whatever it encloses: vessels, ribs or opacities that the members left out."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 0, flags=4)
    return np.asarray(mask | outside[1:-1, 1:-1].astype(bool))


def two_largest(mask: np.ndarray) -> np.ndarray:
    """Keeps the two largest connected parts of a mask, or fewer where there are fewer."""
    return np.asarray(np.logical_or.reduce([np.zeros(mask.shape, bool), *islice(parts_of(mask), 2)]))


def split_left_right(mask: np.ndarray, laterality: str = "patient") -> dict[int, np.ndarray]:
    """Names the lungs of a cleaned mask.

    Two parts are two lungs, the one further to the image's left being the patient's right lung. One part that narrows
    to a bridge is two lungs that touch, and is cut at the bridge; any other is one lung, on the side that
    ``is_image_left`` decides. Two parts one above the other on the same side are one lung in two pieces. Parts below half
    a percent of the image are no lungs.

    Args:
        mask: bool [height, width], as ``two_largest`` gives it.
        laterality: "patient", or "image" to name the lungs by image side instead.

    Returns:
        {category id: bool [height, width]}, of no, one or two lungs.
    """
    parts = [part for part in islice(parts_of(mask), 2) if part.sum() >= MIN_LUNG_SHARE * mask.size]
    if parts and (len(parts) == 1 or parts[1].sum() < MIN_PAIR_RATIO * parts[0].sum()):
        parts = cut_bridge(parts[0]) or parts
    if len(parts) == 2 and _is_one_lung(*parts):
        small = parts[1].sum() < MIN_PAIR_RATIO * parts[0].sum()  # gas below the diaphragm rather than a piece of lung
        parts = parts[:1] if small else [parts[0] | parts[1]]
    return _name(parts, laterality)


def is_image_left(lung: np.ndarray) -> bool:
    """Whether a lung that was found alone is the one on the image's left.

    Its side of the film decides. Where it lies in the middle, as on a film of half a chest, its shape does: the apex is
    medial, the base spreads laterally, so the image's left lung leans to the left from top to bottom. The lean is right
    for 1622 of the 1624 lungs of the Shenzhen and JSRT sets.
    """
    offset = _middle_column(lung) - (lung.shape[1] - 1) / 2
    if abs(offset) >= MIDDLE * lung.shape[1]:
        return bool(offset < 0)
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
    if part.all():
        return []
    depth = _distance_to(~part)
    for radius in range(1, int(depth.max()) + 1):
        cores = list(islice(parts_of(depth > radius), 2))
        if len(cores) < 2:
            continue
        to_first, to_second = map(_distance_to, cores)
        first = part & (to_first <= to_second)
        # A half keeps its largest piece: beyond the other lung's edge there may be pixels nearer to this one.
        lungs = sorted((next(parts_of(half)) for half in (first, part & ~first)), key=np.sum, reverse=True)
        (y1, x1), (y2, x2) = map(centroid, lungs)
        beside = abs(x1 - x2) >= max(abs(y1 - y2), MIN_SPACING * part.shape[1])
        if beside and lungs[1].sum() >= MIN_PAIR_RATIO * lungs[0].sum():
            return lungs
    return []


def find_small_lungs(votes: np.ndarray, laterality: str = "patient") -> dict[int, np.ndarray]:
    """The lungs of one film at the U-Net's size: {category id: bool [height, width]} of no, one or two lungs."""
    mask = drop_side_air(fill_holes(majority(votes)))
    largest = two_largest(mask)
    return join_pieces(split_left_right(largest, laterality), mask & ~largest, laterality)


def drop_side_air(mask: np.ndarray) -> np.ndarray:
    """Removes the parts that lie too far to the side for a lung, as air beside an arm does.

    Only where a part further in could be the lung of that side: on a film of half a chest, one lies at the edge.
    """
    _, labels, statistics, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas, offsets = statistics[:, cv2.CC_STAT_AREA], centroids[:, 0] / (mask.shape[1] - 1) - 0.5
    is_air = np.zeros(len(areas), bool)
    for k in range(1, len(areas)):
        within = (np.abs(offsets) <= MAX_OFFSET) & (offsets * offsets[k] > 0) & (areas >= MIN_PAIR_RATIO * areas[k])
        is_air[k] = abs(offsets[k]) > MAX_OFFSET and within[1:].any()
    return np.asarray(mask & ~is_air[labels])


def join_pieces(lungs: dict[int, np.ndarray], rest: np.ndarray, laterality: str = "patient") -> dict[int, np.ndarray]:
    """Gives each lung the further pieces that a rib, a device or an opacity has cut off it.

    A piece belongs to the lung that it lies close above or below, at the height of the lungs: air beside an arm or the
    neck does not, nor gas under the diaphragm. Where a single lung was found, a part on the other side is the second.

    Args:
        lungs: bool [height, width], as ``split_left_right`` gives them.
        rest: bool [height, width], the parts that are in no lung.
    """
    lungs = dict(lungs)
    for piece in parts_of(rest):
        gaps = {category: float(_distance_to(lung)[piece].min()) for category, lung in lungs.items()}
        category = min(gaps, key=gaps.__getitem__, default=0)
        if not category or piece.sum() < MIN_PIECE_RATIO * lungs[category].sum():
            break
        if gaps[category] <= MAX_GAP * rest.shape[1] and _lies_above_or_below(piece, lungs[category], lungs.values()):
            lungs[category] = lungs[category] | piece
        elif len(lungs) == 1 and piece.sum() >= MIN_LUNG_SHARE * piece.size:
            if abs(_middle_column(lungs[category]) - _middle_column(piece)) >= MIN_SPACING * piece.shape[1]:
                lungs = _name([lungs[category], piece], laterality)
    return lungs


def consensus(votes: np.ndarray) -> np.ndarray:
    """The probability that exceeds a threshold where more than half of the members do: float [height, width].

    It is the members' median, of an even number the lower of the middle two; so ``consensus(votes) > 0.5`` is
    ``majority(votes)``, and between two pixels it can be interpolated.
    """
    middle = (len(votes) - 1) // 2
    return np.asarray(np.partition(votes, middle, axis=0)[middle])


def enlarge_lungs(
    small: dict[int, np.ndarray], votes: np.ndarray, height: int, width: int
) -> dict[int, np.ndarray]:
    """Stretches the lungs to a film's size: {category id: bool [height, width]}, a lung that vanishes left out.

    The film was stretched to the U-Net's square, so this undoes it. The outline is where the interpolated probability
    crosses one half, and lies between the pixels of the square. What the small masks left out stays out, what they filled
    stays filled, and each pixel belongs to the lung that it is nearer to.

    Args:
        small: bool [h, w], as ``find_small_lungs`` gives them.
        votes: float [members, h, w], of which they were made.
        height, width: of the film, in pixels.
    """
    if not small:
        return {}
    kept = np.logical_or.reduce(list(small.values()))
    probability = consensus(votes).astype(np.float32)
    voted = probability > 0.5
    probability[kept & ~voted] = 1
    probability[voted & ~kept] = 0
    size = (width, height)
    inside = cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR) > 0.5
    if len(small) == 1:
        enlarged = {category: inside for category in small}
    else:
        (first, one), (second, other) = small.items()
        nearer = cv2.resize(one.astype(np.float32) - other, size, interpolation=cv2.INTER_LINEAR)
        enlarged = {first: inside & (nearer > 0), second: inside & (nearer <= 0)}
    return {category: lung for category, lung in enlarged.items() if lung.any()}


def find_lungs(votes: np.ndarray, height: int, width: int, laterality: str = "patient") -> dict[int, np.ndarray]:
    """The whole way from the votes on one film to its lungs: {category id: bool [height, width]}."""
    return enlarge_lungs(find_small_lungs(votes, laterality), votes, height, width)


def parts_of(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The connected parts of a mask, the largest first."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)  # with statistics it takes twice as long
    areas = np.bincount(labels.ravel())[1:]
    return (labels == k + 1 for k in np.argsort(-areas, kind="stable"))


def _name(parts: list[np.ndarray], laterality: str) -> dict[int, np.ndarray]:
    """Gives no, one or two lungs their categories, from the image's left to its right."""
    sides = (RIGHT_LUNG, LEFT_LUNG) if laterality == "patient" else (LEFT_LUNG, RIGHT_LUNG)
    if len(parts) == 1:
        return {sides[0] if is_image_left(parts[0]) else sides[1]: parts[0]}
    return dict(zip(sides, sorted(parts, key=_middle_column), strict=False))


def _middle_column(mask: np.ndarray) -> float:
    return centroid(mask)[1]


def _distance_to(mask: np.ndarray) -> np.ndarray:
    """How far each pixel is from the nearest one of a mask that is not empty, in pixels: float32 [height, width]."""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _lies_above_or_below(piece: np.ndarray, lung: np.ndarray, lungs: Iterable[np.ndarray]) -> bool:
    """Whether a piece shares few rows with its lung, and its centroid is at the height of all lungs together."""
    rows = piece.any(1)
    height = np.flatnonzero(np.logical_or.reduce([other.any(1) for other in lungs]))
    return bool(height[0] <= centroid(piece)[0] <= height[-1] and 2 * (rows & lung.any(1)).sum() <= rows.sum())


def _is_one_lung(larger: np.ndarray, smaller: np.ndarray) -> bool:
    """Whether two parts lie one above the other, on the same side of the film's middle."""
    width = larger.shape[1]
    offsets = [_middle_column(part) - (width - 1) / 2 for part in (larger, smaller)]
    same_side = offsets[0] * offsets[1] > 0 and min(map(abs, offsets)) > 0.05 * width
    columns = [part.any(0) for part in (larger, smaller)]
    shared = (columns[0] & columns[1]).sum() / min(column.sum() for column in columns)
    return bool(same_side and shared > 0.5)
