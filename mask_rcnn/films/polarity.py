"""Films with black bones: recognised by the grey levels of the chest's parts, which lie alike on all frontal films.

Shapes
    film    uint8 [height, width], grey
    coarse  float32 [16, 16], the equalised film, 0 its darkest part to 1 its brightest
"""

from __future__ import annotations

import cv2
import numpy as np

from mask_rcnn.films.levels import check_levels, equalise
from mask_rcnn.films.square import stretch_to_square

# Rows and columns of the coarse film.
_SPINE = np.s_[2:14, 7:9]
_BELLY = np.s_[13:16, 4:12]
_LUNGS = np.s_[4:10, [3, 4, 5, 10, 11, 12]]
_AIR = np.s_[0:3, [0, 1, 2, 13, 14, 15]]  # above the shoulders

# The least contrast of 1,047 films of the Shenzhen and Kaggle collections is 0.48, and theirs inverted -0.48 at most;
# scripts/measure_polarity.py counts how many are recognised, also cropped, tilted and framed.
_LEAST_CONTRAST = 0.3
_FRAME_RANGE = 24  # grey levels within a line of pixels that shows nothing


def is_inverted(film: np.ndarray) -> bool:
    """Whether bones are black on a film; False where that is not clear, as on noise, or on a part of a chest.

    A film that lies on its side shows little contrast as it lies, and far more when it is turned: it is not judged.

    Raises:
        TypeError: it is not uint8.
    """
    check_levels(film)
    return _is_inverted(stretch_to_square(film))


def with_white_bones(film: np.ndarray) -> tuple[np.ndarray, bool, np.ndarray]:
    """The film, inverted where ``is_inverted`` holds, whether it was, and the film as ``stretch_to_square`` gives it."""
    check_levels(film)
    square = stretch_to_square(film)
    if not _is_inverted(square):
        return film, False, square
    return 255 - film, True, stretch_to_square(255 - film)


def _is_inverted(square: np.ndarray) -> bool:
    coarse = _coarsen(square)
    contrasts = [_contrast(np.rot90(coarse, turns)) for turns in range(4)]
    return contrasts[0] < -max(_LEAST_CONTRAST, *contrasts)


def _contrast(coarse: np.ndarray) -> float:
    """How much brighter bone and soft parts are than air, -2 to 2."""
    spine, belly, lungs, air = (float(coarse[part].mean()) for part in (_SPINE, _BELLY, _LUNGS, _AIR))
    return spine + belly - lungs - air


def _coarsen(small: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(np.ptp(small, axis=axis) > _FRAME_RANGE) for axis in (1, 0))
    if min(len(rows), len(columns)) > 80:  # a frame around the film, black or white, would pass for air or bone
        small = small[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    equalised = equalise(np.ascontiguousarray(small)).astype(np.float32) / 255
    return cv2.resize(equalised, (16, 16), interpolation=cv2.INTER_AREA)
