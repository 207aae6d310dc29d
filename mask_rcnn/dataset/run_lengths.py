"""Masks as COCO stores them: run lengths and polygons.

Shapes
    mask    bool [height, width], one instance
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mask_rcnn.dataset.outlines import check_inside, check_runs, check_size, polygons_of


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask: ``{"size": [height, width], "counts": str}``."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def compress(segmentation: Any, size: Any) -> dict[str, Any]:
    """Any segmentation of COCO's (polygons, run lengths) in compressed run lengths, as ``encode_mask`` gives them.

    What lies a little outside the film does not count.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, whose union counts, or either run-length encoding.
        size: (height, width) of the film by its record; polygons have none.

    Raises:
        ValueError: it is none of them; the message says why.
    """
    if isinstance(segmentation, dict):
        size = check_size(segmentation.get("size"))
        runs = check_runs(segmentation.get("counts"), size)
        rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    else:
        polygons = polygons_of(segmentation)
        size = check_size(size)
        check_inside(polygons, size)
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
        if not coco_mask.area(rle):
            raise ValueError("its polygons cover no pixel")
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(segmentation: dict[str, Any]) -> np.ndarray:
    """The mask, bool [height, width], of a compressed or uncompressed run-length encoding."""
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return np.asarray(coco_mask.decode(segmentation).astype(bool))
