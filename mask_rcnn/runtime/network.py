"""A Mask R-CNN in ONNX Runtime or OpenVINO, from its weights file, without Keras.

It detects what the Keras network detects, and computes masks for detections alone, not for the empty places behind them.

Shapes
    as in ``runtime/parts.py``
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from mask_rcnn.config import Config
from mask_rcnn.prediction import DETECTION_BATCH, Prediction, batches_of, unmold
from mask_rcnn.runtime.choice import OPENVINO, Runtime
from mask_rcnn.runtime.parts import Weighted, Weightless, build_weighted, build_weightless
from mask_rcnn.runtime.sessions import Tensor, as_array, open_session
from mask_rcnn.utils import MoldedFilm
from mask_rcnn.weights import checkpoint


class ExportedNetwork:
    """A network as ``prediction.Detector`` describes it; not for several threads at once, nor two that share parts.

    Args:
        path: a weights file of this program or of the reference implementation.
        config: of the network, as ``checkpoint.read_config`` reads it, with other settings perhaps.
        runtime: what runs it; not Keras.

    Raises:
        checkpoint.CheckpointError: the file is absent, torn or damaged, or does not fit its configuration.
    """

    def __init__(self, path: str | Path, config: Config, runtime: Runtime) -> None:
        self.config = config
        graphs = build_weighted(checkpoint.read_weights(path, config.network), config)
        # Their weights are in the runtime when the next ones are read.
        self._weighted = Weighted(*(open_session(graph.SerializeToString(), runtime) for graph in graphs))
        self._weightless = _open_weightless(config, runtime)
        self._pads = runtime.name == OPENVINO  # which compiles for every number of RoIs anew

    def predict(self, films: Sequence[MoldedFilm], batch: int | None = None) -> list[Prediction]:
        """The network's predictions, as ``MaskRCNN.predict`` gives them."""
        batch = batch or (1 if len(films) == 1 else DETECTION_BATCH)
        predictions = []
        for some, inputs in batches_of(films, batch, self.config.network.image_size):
            detections, mask_boxes, masks = self._run(inputs["images"], inputs["windows"])
            for index, film in enumerate(some):
                of_film = masks[detections[:, :, 4].nonzero()[0] == index]
                predictions.append(Prediction(detections[index], mask_boxes[index], of_film, film.window))
        return predictions

    def unmold(self, prediction: Prediction, shape: tuple[int, int], soft: bool = False) -> dict[str, np.ndarray]:
        """A prediction as ``MaskRCNN.detect`` gives it, in the pixels of a film of ``shape`` (height, width)."""
        return unmold(*prediction, self.config.network.image_size, shape, self.config.detection, soft)

    def _run(self, images: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections [b, k, 6], mask boxes [b, k, 4], and masks [r, m, m, c] of the detections of all films."""
        weighted, weightless = self._weighted, self._weightless
        scored = weighted.trunk({"images": images})
        proposed = weightless.proposals(scored)
        classified = weighted.boxes({"pooled": proposed["pooled"]})
        found = weightless.detections({"proposals": proposed["proposals"], "windows": windows, **classified})
        detections, mask_boxes = as_array(found["detections"]), as_array(found["mask_boxes"])
        return detections, mask_boxes, self._masks(scored["features"], detections, mask_boxes)

    def _masks(self, features: Tensor, detections: np.ndarray, mask_boxes: np.ndarray) -> np.ndarray:
        films, places = detections[:, :, 4].nonzero()
        count, network = len(films), self.config.network
        if not count:
            return np.zeros((0, network.mask_size, network.mask_size, network.class_count), np.float32)
        boxes = mask_boxes[films, places]
        if self._pads:  # to one of few numbers, the usual one two lungs a film
            usual, most = 2 * len(detections), detections.shape[0] * detections.shape[1]
            missing = (min(usual, most) if count <= usual else most) - count
            boxes, films = np.pad(boxes, ((0, missing), (0, 0))), np.pad(films, (0, missing))
        pooled = self._weightless.pooling({"features": features, "boxes": boxes, "films": films.astype(np.int64)})
        return as_array(self._weighted.masks({"pooled": pooled["pooled"]})["masks"])[:count]


@cache
def _open_weightless(config: Config, runtime: Runtime) -> Weightless:
    """Opened once for all networks of a configuration; they run one after the other."""
    return Weightless(*(open_session(graph.SerializeToString(), runtime.in_full()) for graph in build_weightless(config)))
