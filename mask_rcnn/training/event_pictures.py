"""Pictures for TensorBoard, written by its own package: no backend of the network is needed.

TensorBoard reads the files of a folder one behind the other, so pictures have a folder of their own beside the scalars.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from mask_rcnn.results.pictures import picture_png


class EventPictures:
    """An event file of pictures, which is begun with the first one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def add(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Adds uint8 [height, width, 3], RGB."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self.folder))
        height, width = picture.shape[:2]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture_png(picture))
        self._writer.add_event(Event(
            wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])
        ))
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
