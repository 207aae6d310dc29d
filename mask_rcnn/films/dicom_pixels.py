"""The stored levels of a DICOM film: decompressed, and freed of what lies beside them in the cells.

Shapes
    stored  [height, width] or, in colour, [height, width, 3], levels as they are in the file
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mask_rcnn.films.dicom_file import codestream_of, first_frame, open_dataset
from mask_rcnn.films.mending import JPEG_START, has_all_pixels, mend
from mask_rcnn.system.silence import silence_descriptor

if TYPE_CHECKING:
    from pydicom import FileDataset


def decode(dataset: FileDataset) -> np.ndarray:
    """The stored levels; YBR becomes RGB on the way. Raises nearly every built-in exception on torn films."""
    return _without_unused_bits(_decoded(dataset), dataset)


def _without_unused_bits(stored: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Cells that hold ``BitsStored`` bits below and with ``HighBit`` (PS3.5, section 8.1.1), as levels.

    The other bits are overlays (PS3.5, section 8.1.2) or anything. pydicom masks them in uncompressed films alone, and only
    above the levels: not where JPEG 2000 or JPEG-LS compressed whole cells, nor where the levels lie at the upper end.
    """
    if stored.dtype.kind not in "iu":
        return stored
    cell, bits = 8 * stored.dtype.itemsize, int(dataset.BitsStored)
    below = _bits_below(stored, dataset, bits)
    bottom, top = (-(1 << bits - 1), (1 << bits - 1) - 1) if stored.dtype.kind == "i" else (0, (1 << bits) - 1)
    if not 0 < bits < cell or (below == 0 and bottom <= stored.min() and stored.max() <= top):
        return stored
    overshoot = (1 << bits) // 8
    if below == 0 and _is_lossy(dataset) and bottom - overshoot <= stored.min() and stored.max() <= top + overshoot:
        return np.asarray(np.clip(stored, bottom, top))  # masked, the whitest would become black
    return stored << (cell - bits - below) >> (cell - bits)


def _bits_below(stored: np.ndarray, dataset: FileDataset, bits: int) -> int:
    """How many bits of a cell lie below the levels."""
    high = dataset.get("HighBit")
    if not isinstance(high, int) or not bits <= high < 8 * stored.dtype.itemsize:
        return 0
    used = high + 1
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:  # most encoders are given the levels alone
        used = min(used, codestream_of(first_frame(dataset))[1] or used)
    # Where no level reaches that high, the header is wrong.
    reached = int(stored.view(stored.dtype.str.replace("i", "u")).max()).bit_length()
    return max(0, used - bits) if reached > bits else 0


def _is_lossy(dataset: FileDataset) -> bool:
    from pydicom import uid

    lossless = {uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless}
    syntax = dataset.file_meta.TransferSyntaxUID
    return syntax.is_encapsulated and syntax not in lossless


def _mend(dataset: FileDataset) -> None:
    """Mends a compressed frame as a JPEG file would be; raises a ValueError where a part of its pixels is missing."""
    from pydicom.encaps import encapsulate

    frame = first_frame(dataset)
    if not frame.startswith(JPEG_START) or has_all_pixels(frame):
        return
    try:
        mended = mend(frame, lambda content: Image.open(io.BytesIO(content), formats=("JPEG",)).tobytes())
    except Exception as error:  # also of lossless JPEG, which Pillow does not decode: its own decoder takes zeros for levels
        if frame.endswith(bytes(4)):
            raise ValueError("a part of its pixels is missing") from error
    else:
        dataset.PixelData = encapsulate([mended])


def _decoded(dataset: FileDataset) -> np.ndarray:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _mend(dataset)
    plugins = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ()
    for plugin in sorted(set(plugins) - {"gdcm"}):
        dataset.pixel_array_options(decoding_plugin=plugin, correct_unused_bits=False)
        with suppress(Exception):
            return dataset.pixel_array
    if "gdcm" in plugins:
        return _decode_apart(str(dataset.filename))
    dataset.pixel_array_options(correct_unused_bits=False)
    return dataset.pixel_array


_apart: ProcessPoolExecutor | None = None
_one_at_a_time = threading.Lock()


def _decode_apart(path: str) -> np.ndarray:
    """The stored levels as GDCM decodes them, in a process of its own, which some torn films end by an abort or worse."""
    global _apart
    with _one_at_a_time:  # so that no other film shares the fate of a torn one
        if _apart is None:
            context = multiprocessing.get_context("spawn")  # a fork of a process that runs TensorFlow may hang
            _apart = ProcessPoolExecutor(1, context, initializer=_settle)
        try:
            return _apart.submit(_decode_with_gdcm, path).result()
        except BrokenProcessPool:
            _apart = None
            raise ValueError("its decoder broke down on it") from None


def _settle() -> None:
    """Begins a process that decodes: it is silent, and ends when its parent ends, in whatever way."""
    silence_descriptor()

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _decode_with_gdcm(path: str) -> np.ndarray:
    dataset = open_dataset(Path(path))
    # With fewer bits than were compressed, GDCM masks the upper ones, which may be the levels.
    bits = max(int(dataset.BitsStored), codestream_of(first_frame(dataset))[1])
    dataset.pixel_array_options(decoding_plugin="gdcm", correct_unused_bits=False, bits_stored=bits)
    return dataset.pixel_array
