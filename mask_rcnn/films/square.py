"""Fitting films and label masks to a square, and resizing them.

Shapes
    film    uint8 [height, width] or [height, width, channels]
    labels  uint8 [height, width], 0 background, else the category id
    square  uint8 [side, side] or [side, side, channels], the film scaled and centred, zeros around it
    window  (y1, x1, y2, x2) in pixels of the square: where the film lies in it
"""

from __future__ import annotations

import cv2
import numpy as np

STRETCHED = 256  # pixels a side of the square that whole films are judged by, and that the U-Nets see
STRIP_ROWS = 256  # of a film, whose integral is read at once


def stretch_to_square(film: np.ndarray) -> np.ndarray:
    """A film, uint8 [height, width], as a square of ``STRETCHED`` pixels a side, whatever its shape was."""
    return shrink(film, STRETCHED, STRETCHED)


def shrink(film: np.ndarray, height: int, width: int) -> np.ndarray:
    """A film, uint8 [h, w], at another size: the mean of what each new pixel covers, as OpenCV's ``INTER_AREA`` has it.

    A film that is four times as long and wide or more takes a quarter of OpenCV's time: the means are differences of the
    film's integral, read at the edges of the new pixels, between which it is linear.
    """
    high, wide = film.shape[:2]
    if film.ndim > 2 or high < 4 * height or wide < 4 * width or (high % height == 0 and wide % width == 0):
        return cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    down, across = (np.arange(new + 1) * (old / new) for old, new in ((high, height), (wide, width)))
    row, column = (np.minimum(edges.astype(np.intp), old - 1) for edges, old in ((down, high), (across, wide)))
    rest = across - column

    def along(sums: np.ndarray) -> np.ndarray:
        """Of integrals down to some edges, what lies within each new column."""
        left = sums[:, column]
        return np.diff(left + rest * (sums[:, column + 1] - left))

    # By strips, whose integrals fit in a processor's cache and in 32 bits.
    strip = max(1, min(STRIP_ROWS, (2**31 - 1) // (255 * wide)))
    sums, above = np.empty((height + 1, width)), np.zeros((1, width))
    for top in range(0, high, strip):
        integral: np.ndarray = cv2.integral(film[top : top + strip])
        first, last = np.searchsorted(row, (top, top + strip))
        near = row[first:last] - top
        part = integral[near] + (down - row)[first:last, None] * (integral[near + 1] - integral[near])
        sums[first:last] = above + along(part)
        above += along(integral[-1:])
    return np.rint(np.diff(sums, axis=0) * (height * width / film.size)).astype(np.uint8)


def fit_to_square(film: np.ndarray, side: int) -> tuple[np.ndarray, tuple[int, int, int, int], float]:
    """Scales a film so that its long side is ``side`` pixels and centres it on a square of zeros.

    Args:
        film: uint8 [height, width] or [height, width, channels].
        side: of the square, in pixels.

    Returns:
        The square, the window (y1, x1, y2, x2) that the film takes in it, and the scale, square over film.
    """
    square = np.zeros((side, side) + film.shape[2:], film.dtype)
    window = y1, x1, y2, x2 = _window_in_square(film.shape[:2], side)
    square[y1:y2, x1:x2] = _resize(film, y2 - y1, x2 - x1)
    return square, window, side / max(film.shape[:2])


def _window_in_square(shape: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    scale = side / max(shape)
    height, width = (max(1, round(length * scale)) for length in shape)
    top, left = (side - height) // 2, (side - width) // 2
    return top, left, top + height, left + width


def _resize(film: np.ndarray, height: int, width: int) -> np.ndarray:
    if (height, width) == film.shape[:2]:
        return film
    if film.shape[0] >= 2 * height:  # bilinear samples of a far larger film would alias its grain
        return shrink(film, height, width)
    resized = np.stack([stretch(channel, height, width) for channel in np.atleast_3d(film).transpose(2, 0, 1)], axis=-1)
    # Truncated, as the reference does; the small number outweighs the rounding of the interpolation.
    return (resized + 1e-4).astype(film.dtype).reshape(height, width, *film.shape[2:])


def stretch(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resizing of [h, w] to float32 [height, width].

    The values are cells, whose centres lie half a cell inside the edges; beyond the outermost centres they fall to zero.
    As two matrix products it is exact and, on large targets, faster than OpenCV's or SciPy's with that border.
    """
    down = _interpolation_matrix(values.shape[0], height)
    across = _interpolation_matrix(values.shape[1], width)
    return np.asarray(down @ values.astype(np.float32) @ across.T)


def _interpolation_matrix(count: int, target: int) -> np.ndarray:
    """float32 [target, count]: how much of each source sample goes into each target pixel."""
    position = (np.arange(target) + 0.5) / target * count - 0.5
    distance = np.abs(position[:, None] - np.arange(count))
    return np.asarray(np.maximum(1 - distance, 0).astype(np.float32))


def fit_labels_to_square(labels: np.ndarray, side: int) -> np.ndarray:
    """Fits a label mask, uint8 [height, width], to the square as ``fit_to_square`` fits its film."""
    square = np.zeros((side, side), labels.dtype)
    y1, x1, y2, x2 = _window_in_square(labels.shape, side)
    square[y1:y2, x1:x2] = resize_labels(labels, y2 - y1, x2 - x1)
    return square


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A label mask, uint8 [h, w], at another size: a pixel gets the label that covers most of it.

    Halves are common where a mask shrinks to a half or a quarter; they go to the background on every other pixel, so that
    no outline moves. Nearest neighbours would move them all to one side.
    """
    if (height, width) == labels.shape:
        return labels
    shares = {
        label: mask_shares(labels == label, height, width)
        for label in np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256])[1:]) + 1
    }
    resized = np.zeros((height, width), labels.dtype)
    rows, columns = np.ogrid[:height, :width]
    most = 1 + np.float32(1e-4) * ((rows + columns) % 2 * 2 - 1)  # of the background, less what the others cover
    for share in shares.values():
        most -= share
    for label, share in shares.items():
        resized[share > most] = label
        most = np.maximum(most, share)
    return resized


def mask_shares(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """How much of each pixel a mask, bool [h, w], covers at another size: float32 [height, width] in [0, 1].

    Enlarged, it is interpolated.
    """
    if height > mask.shape[0] or width > mask.shape[1]:
        way = cv2.INTER_AREA if width < mask.shape[1] else cv2.INTER_LINEAR
        return cv2.resize(mask.astype(np.float32), (width, height), interpolation=way)
    # OpenCV's INTER_AREA takes ten times as long: it sums all pixels. Here the integral of the mask is read at the edges of
    # the new pixels, between which it is linear.
    shares = np.zeros((height, width), np.float32)
    x, y, across, down = cv2.boundingRect(mask.view(np.uint8))
    if not down:
        return shares
    sums: np.ndarray = cv2.integral(mask[y : y + down, x : x + across].view(np.uint8))
    inside = []
    for old, new, start, length in ((mask.shape[0], height, y, down), (mask.shape[1], width, x, across)):
        inside.append(slice(start * new // old, -((start + length) * new // -old)))
        edges = np.clip(np.arange(inside[-1].start, inside[-1].stop + 1) * (old / new) - start, 0, length)
        low = np.minimum(edges.astype(np.intp), length - 1)
        sums = np.diff(sums[low] + (edges - low)[:, None] * (sums[low + 1] - sums[low]), axis=0).T
    shares[inside[0], inside[1]] = sums * (height * width / mask.size)
    return shares
