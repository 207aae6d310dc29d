"""Small pictures of films with their lungs outlined, for the report.

Shapes
    film     uint8 [height, width], grey, bones white
    picture  uint8 [height, width, 3], RGB, the long side ``SIDE`` at most
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from create_dataset.assemble import JudgedFilm
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.results.drawing import outline_lung
from mask_rcnn.run.journal import Entry, Journal
from mask_rcnn.system.progress import progress

SIDE, JPEG_QUALITY = 240, 75  # pixels; about 8 KB a film


def render_thumbnails(films: Iterable[JudgedFilm], journal: Journal) -> dict[int, str]:
    """The pictures of films, as ``data:`` addresses, by image id; none of a film that cannot be read any more."""
    chosen = {film.image_id: film for film in films}
    tasks = [(film, journal.read(film.source)) for film in chosen.values()]

    def render(task: tuple[JudgedFilm, Entry]) -> str | None:
        film, entry = task
        try:
            return _address(render_thumbnail(film.source.path, entry))
        except (FilmError, OSError):
            return None

    with ThreadPool(os.cpu_count()) as pool:
        addresses = list(progress(pool.imap(render, tasks), name="pictures", total=len(tasks)))
    return {image_id: address for image_id, address in zip(chosen, addresses, strict=True) if address}


def render_thumbnail(path: Path, entry: Entry) -> np.ndarray:
    """The picture of a film.

    Raises:
        FilmError: it cannot be read.
    """
    film = read_film(path)
    height, width = film.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(film, size, interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(255 - small if entry["inverted"] else small, cv2.COLOR_GRAY2RGB)
    for record in entry["lungs"]:
        lung = decode_mask(record["segmentation"]).astype(np.uint8) * 255
        outline_lung(picture, cv2.resize(lung, size, interpolation=cv2.INTER_AREA) >= 128, record["category_id"])
    return picture


def _address(picture: np.ndarray) -> str:
    jpeg = io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # halved colours blur thin outlines
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode("ascii")
