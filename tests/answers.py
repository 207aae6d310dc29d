"""What the weights in a file answer under the backend that this is run with: ``python answers.py WEIGHTS INPUTS OUT``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from contract import under_jit

from mask_rcnn.model import MaskRCNN
from mask_rcnn.network.losses import LOSS_NAMES


def answer(weights: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By name, all that the network says of a batch: before boxes are thinned, the detections, and the five losses."""
    network = MaskRCNN.load(weights).network

    def ask(tensors: Mapping[str, Any]) -> dict[str, Any]:
        pyramid = network.pyramid(tensors["images"])
        logits, deltas = network.score_anchors(pyramid)
        rois = network.proposals(logits, deltas, network.settings.proposals.inference_count)
        class_logits, box_deltas = network.classify(rois, pyramid)
        answers = {f"P{level}": feature for level, feature in enumerate(pyramid, start=2)}
        answers |= {"anchor_logits": logits, "anchor_deltas": deltas, "rois": rois, "class_logits": class_logits}
        answers |= {"box_deltas": box_deltas, "mask_logits": network.segment(rois, pyramid)}
        answers |= network._detect(pyramid, logits, deltas, tensors["windows"])
        terms = network.loss_terms(tensors, network({name: tensors[name] for name in tensors if name != "windows"}))
        return answers | dict(zip(LOSS_NAMES, terms, strict=True))

    if keras.backend.backend() == "jax":  # which compiles every operation by itself otherwise, a minute of them
        ask = under_jit(ask)
    answers = ask({name: keras.ops.convert_to_tensor(values) for name, values in inputs.items()})
    return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in answers.items()}


if __name__ == "__main__":
    np.savez(sys.argv[3], **answer(Path(sys.argv[1]), dict(np.load(sys.argv[2]))))
