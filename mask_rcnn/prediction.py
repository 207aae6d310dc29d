"""What a network predicts on films, whichever library runs it, and how that lies over a film.

Shapes (b films, s the side of the square, k detections, m cells of a mask a side, c classes)
    images   float32 [b, s, s, 3], equalised, mean subtracted
    windows  float32 [b, 4], where each film lies in its square, normalised
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mask_rcnn.config import Config, DetectionConfig
from mask_rcnn.utils import MoldedFilm, norm_boxes, paste_mask, place_mask, window_to_film

# Films in a batch: on two cores each takes half the time that it takes alone.
DETECTION_BATCH = 8


class Prediction(NamedTuple):
    """The network's output for one film, in its own squares and cells."""

    detections: np.ndarray  # float32 [k, 6], normalised boxes, class id and score; zeros behind the last
    mask_boxes: np.ndarray  # float32 [k, 4], normalised: where the masks lie
    masks: np.ndarray  # float32 [k, m, m, c], probabilities; those behind the last detection may be left out
    window: tuple[int, int, int, int]  # pixels of the square: where the film lies


class Detector(Protocol):
    """A network that predicts: ``model.MaskRCNN``, or one that another runtime runs."""

    config: Config

    def predict(self, films: Sequence[MoldedFilm], batch: int | None = None) -> list[Prediction]:
        """As ``MaskRCNN.predict``."""

    def unmold(self, prediction: Prediction, shape: tuple[int, int], soft: bool = False) -> dict[str, np.ndarray]:
        """As ``MaskRCNN.unmold``."""


def batches_of(
    films: Sequence[MoldedFilm], batch: int, side: int
) -> Iterator[tuple[Sequence[MoldedFilm], dict[str, np.ndarray]]]:
    """``batch`` films at a time with the network's inputs, ``images`` and ``windows``, zeros behind the last film."""
    for start in range(0, len(films), batch):
        some = films[start : start + batch]
        images = np.zeros((batch, side, side, 3), np.float32)
        windows = np.zeros((batch, 4), np.float32)
        for index, film in enumerate(some):
            images[index] = film.image
            windows[index] = norm_boxes(np.asarray(film.window, np.float32)[None], (side, side))[0]
        yield some, {"images": images, "windows": windows}


def unmold(
    detections: np.ndarray,
    mask_boxes: np.ndarray,
    masks: np.ndarray,
    window: Sequence[int],
    side: int,
    shape: tuple[int, int],
    settings: DetectionConfig,
    soft: bool = False,
) -> dict[str, np.ndarray]:
    """The network's prediction for one film, in the film's own pixels.

    Args:
        detections: [k, 6], normalised boxes, class id and score; zeros behind the last.
        mask_boxes: [k, 4], normalised: where the masks lie.
        masks: [k, m, m, c], probabilities.
        window: (y1, x1, y2, x2), where the film lies in the square, in its pixels.
        side: of the square.
        shape: (height, width) of the film.
        settings: how the masks lie over the film.
        soft: as in ``MaskRCNN.detect``, whose docstring describes the result.
    """
    detections = detections[detections[:, 4] > 0]
    class_ids = detections[:, 4].astype(np.int32)
    rois = window_to_film(detections[:, :4], window, side, shape)
    whole = ((rois[:, 2] > rois[:, 0]) & (rois[:, 3] > rois[:, 1])).nonzero()[0]
    # Each mask lies in one piece of memory, and films are large: what no mask covers is never written.
    full = np.zeros((len(whole), *shape), np.float32 if soft else bool)
    windows = np.tile(np.array([0, 0, *shape], np.int32), (len(whole), 1))
    for target, covered, index in zip(full, windows, whole, strict=True):
        mask = masks[index, :, :, class_ids[index]]
        if settings.exact_masks:
            rows, columns = place_mask(mask, mask_boxes[index], window, side, target)
            covered[:] = rows.start, columns.start, rows.stop, columns.stop
        else:
            box = window_to_film(mask_boxes[index : index + 1], window, side, shape)[0]
            pasted = paste_mask(mask, box, shape)
            target[:] = pasted if soft else pasted >= 0.5
    return {
        "rois": rois[whole],
        "class_ids": class_ids[whole],
        "scores": detections[whole, 5].astype(np.float32),
        "masks": np.moveaxis(full, 0, -1),
        "windows": windows,
    }
