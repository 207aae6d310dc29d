"""Mask R-CNN for the left and the right lung: ``from mask_rcnn import Config, MaskRCNN``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mask_rcnn.config import Config
from mask_rcnn.version import __version__

if TYPE_CHECKING:
    from mask_rcnn.model import MaskRCNN

__all__ = ["Config", "MaskRCNN", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "MaskRCNN":  # when it is asked for: Keras takes seconds to import, and floor 0 does without
        from mask_rcnn.system.backend import import_keras

        import_keras()
        from mask_rcnn.model import MaskRCNN

        return MaskRCNN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
