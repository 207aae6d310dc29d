"""The left and the right lung on chest X-rays, found by Mask R-CNNs that vote.

``load_bag``, ``read_film``, ``evaluate`` and ``build_dataset`` are explained in ``mask_rcnn.api``; ``MaskRCNN(Config())`` is
one network, to train or to detect with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mask_rcnn.config import Config
from mask_rcnn.version import __version__

if TYPE_CHECKING:
    from mask_rcnn.api import Bag, Film, Result, build_dataset, evaluate, load_bag, read_film
    from mask_rcnn.model import MaskRCNN

__all__ = [
    "Bag", "Config", "Film", "MaskRCNN", "Result", "__version__", "build_dataset", "evaluate", "load_bag", "read_film",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # When it is asked for: OpenCV takes a moment to import, Keras seconds.
    if name == "MaskRCNN":
        from mask_rcnn.system.backend import import_keras

        import_keras()
        return import_module("mask_rcnn.model").MaskRCNN
    if name in __all__:
        return getattr(import_module("mask_rcnn.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
