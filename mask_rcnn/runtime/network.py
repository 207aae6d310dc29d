"""A Mask R-CNN in ONNX Runtime or OpenVINO, from its weights file, without Keras.

It detects what the Keras network detects, and computes masks for detections alone, not for the empty places behind them.

Shapes
    as in ``runtime/parts.py``; found, the detections of a film
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from mask_rcnn.config import Config, predicting_part
from mask_rcnn.prediction import DETECTION_BATCH, Prediction, batches_of, unmold
from mask_rcnn.runtime.choice import OPENVINO, Runtime
from mask_rcnn.runtime.parts import Layers, Weighted, Weightless, build_weighted, build_weightless, ranked_count
from mask_rcnn.runtime.sessions import Session, Tensor, as_array, open_session
from mask_rcnn.utils import MoldedFilm


class ExportedNetwork:
    """A network as ``prediction.Detector`` describes it; not for several threads at once, nor two that share parts.

    Args:
        layers: its weights, as ``checkpoint.read_weights`` reads them.
        config: of the network, as ``checkpoint.read_config`` reads it, with other settings perhaps.
        runtime: what runs it; not Keras.
    """

    def __init__(self, layers: Layers, config: Config, runtime: Runtime) -> None:
        self.config = config
        graphs = build_weighted(layers, config)
        self._weighted = Weighted(*(open_session(graph.SerializeToString(), runtime) for graph in graphs))
        self._weightless = _open_weightless(predicting_part(config), runtime)
        self._pads = runtime.name == OPENVINO  # which compiles for every number of RoIs anew

    def predict(self, films: Sequence[MoldedFilm], batch: int | None = None) -> list[Prediction]:
        """The network's predictions, as ``MaskRCNN.predict`` gives them."""
        batch = batch or (1 if len(films) == 1 else DETECTION_BATCH)
        predictions = []
        for some, inputs in batches_of(films, batch, self.config.network.image_size):
            detections, mask_boxes, masks = self._run(inputs["images"], inputs["windows"])
            for one, boxes, of_film, film in zip(detections, mask_boxes, masks, some, strict=False):
                predictions.append(Prediction(one, boxes, of_film, film.window))
        return predictions

    def unmold(self, prediction: Prediction, shape: tuple[int, int], soft: bool = False) -> dict[str, np.ndarray]:
        """A prediction as ``MaskRCNN.detect`` gives it, in the pixels of a film of ``shape`` (height, width)."""
        return unmold(*prediction, self.config.network.image_size, shape, self.config.detection, soft)

    def _run(self, images: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Detections [b, k, 6], mask boxes [b, k, 4], and the masks [found, m, m, c] of each film."""
        weighted, weightless, settings = self._weighted, self._weightless, self.config.detection
        scored = weighted.trunk({"images": images})
        order = best_anchors(as_array(scored["logits"]), ranked_count(self.config))
        proposed = weightless.proposals({"order": order, "deltas": scored["deltas"], "features": scored["features"]})
        classified = weighted.boxes({"pooled": proposed["pooled"]})
        found = weightless.detections({"proposals": proposed["proposals"], "windows": windows, **classified})
        detections = best_detections(as_array(found["candidates"]), as_array(found["kept"]), settings.max_instances)
        mask_boxes = widened(detections[:, :, :4], settings.mask_margin)
        there = detections[:, :, 4] > 0
        masks = self._masks(scored["features"], mask_boxes[there], there.nonzero()[0], there.shape)
        return detections, mask_boxes, np.split(masks, np.cumsum(there.sum(axis=1))[:-1])

    def _masks(self, features: Tensor, boxes: np.ndarray, films: np.ndarray, places: tuple[int, ...]) -> np.ndarray:
        """Of boxes [r, 4] of films [r] the masks [r, m, m, c]; ``places`` [b, k] is how many there could be."""
        count, network = len(boxes), self.config.network
        if not count:
            return np.zeros((0, network.mask_size, network.mask_size, network.class_count), np.float32)
        if self._pads:  # to one of few numbers, the usual one two lungs a film
            usual, most = min(2, places[1]) * places[0], places[0] * places[1]
            missing = (usual if count <= usual else most) - count
            boxes, films = np.pad(boxes, ((0, missing), (0, 0))), np.pad(films, (0, missing))
        pooled = self._weightless.pooling({"features": features, "boxes": boxes, "films": films.astype(np.int64)})
        return as_array(self._weighted.masks({"pooled": pooled["pooled"]})["masks"])[:count]


def best_anchors(logits: np.ndarray, count: int) -> np.ndarray:
    """The anchors of the highest foreground scores, int64 [b, count], the best first, of equal ones the first first.

    Scores are compared, not logits: many are exactly 1, and Keras takes these in the order of the anchors.

    Args:
        logits: [b, a, 2], background first.
    """
    shifted = np.exp(logits - logits.max(axis=2, keepdims=True))
    scores = shifted[:, :, 1] / (shifted[:, :, 0] + shifted[:, :, 1])
    order = np.empty((len(scores), count), np.int64)
    for place, of_film in zip(order, -scores, strict=True):
        limit = np.partition(of_film, count - 1)[count - 1]  # sorting all takes five times as long
        candidates = np.flatnonzero(of_film <= limit)
        place[:] = candidates[np.argsort(of_film[candidates], kind="stable")[:count]]
    return order


def best_detections(candidates: np.ndarray, kept: np.ndarray, count: int) -> np.ndarray:
    """Of candidates [b, n, 6] those that suppression leaves, [b, count, 6], by falling score; zeros behind the last.

    Args:
        kept: [b, n], scores; -1 of candidates that it does not leave.
    """
    order = np.argsort(-kept, axis=1, kind="stable")[:, :count]
    there = np.take_along_axis(kept, order, axis=1) > 0
    best = np.where(there[:, :, None], np.take_along_axis(candidates, order[:, :, None], axis=1), 0)
    missing = count - best.shape[1]
    return np.pad(best, ((0, 0), (0, missing), (0, 0))) if missing else best


def widened(boxes: np.ndarray, margin: float) -> np.ndarray:
    """Boxes [..., 4], each widened by ``margin`` of its size on every side, but not beyond the square."""
    size = boxes[..., 2:] - boxes[..., :2]
    wide = np.concatenate([boxes[..., :2] - margin * size, boxes[..., 2:] + margin * size], axis=-1)
    result: np.ndarray = np.clip(wide, 0, 1)
    return result


@cache
def _open_weightless(config: Config, runtime: Runtime) -> Weightless[Session]:
    """Opened once for all networks of a configuration; they run one after the other."""
    return Weightless(*(open_session(graph.SerializeToString(), runtime.in_full()) for graph in build_weightless(config)))
