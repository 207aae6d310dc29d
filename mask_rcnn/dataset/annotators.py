"""Films and their lungs for annotation tools: one folder, in the formats of several.

It holds ``images/ID.png``, films upright with white bones; their lungs as polygons in ``coco.json`` (CVAT, FiftyOne) and
``label_studio.json``, and as label masks ``masks/ID.png`` with a palette, for paint programs. A film is known again by the
image id in its file's name.

Shapes
    film     uint8 [height, width], grey, bones white
    labels   uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mask_rcnn.dataset import label_studio
from mask_rcnn.dataset.coco import annotation, new_dataset
from mask_rcnn.dataset.corrections import decode_lungs
from mask_rcnn.dataset.run_lengths import encode_polygons
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import replacing, write_bytes, write_json
from mask_rcnn.system.progress import progress, warn

COCO_FILE, TASKS, TASK_CONFIG, IMAGES, MASKS = "coco.json", "label_studio.json", "label_studio.xml", "images", "masks"
COLOURS = {0: (0, 0, 0), LEFT_LUNG: (0xE6, 0x9F, 0x00), RIGHT_LUNG: (0x00, 0x72, 0xB2)}  # of label masks


@dataclass(frozen=True)
class FoundFilm:
    """A film and the lungs that it has so far."""

    image_id: int
    file: str  # as in the tables
    path: Path
    size: tuple[int, int]  # height, width
    inverted: bool  # whether the file shows bones black
    lungs: Mapping[int, dict[str, Any]]  # run lengths by category id


def write_pack(out: Path, films: Sequence[FoundFilm], laterality: str) -> int:
    """Writes the folder for annotators; a film that cannot be read any more is named on standard error and left out.

    Args:
        out: the folder.
        films: to be corrected.
        laterality: by which their lungs are named.

    Returns:
        The number of films in it.

    Raises:
        OSError: it cannot be written.
    """
    coco, tasks = new_dataset(laterality, {}), []
    for film in progress(films, name="films", total=len(films)):
        name = f"{film.image_id}.png"
        try:
            pixels = read_film(film.path)
            if pixels.shape != film.size:
                raise FilmError(film.path, "has another size than when its lungs were found", "make the dataset again")
        except FilmError as error:
            warn(f"left out {error}")
            continue
        labels = decode_lungs(film.lungs, film.size)
        _write_png(out / IMAGES / name, Image.fromarray(255 - pixels if film.inverted else pixels))
        _write_png(out / MASKS / name, with_palette(labels))
        polygons = {category: encode_polygons(labels == category) for category in film.lungs}
        coco["images"].append({"id": film.image_id, "file_name": name, "height": film.size[0], "width": film.size[1]})
        coco["annotations"] += [
            {**annotation(2 * film.image_id + category, film.image_id, category, labels == category), "segmentation": parts}
            for category, parts in sorted(polygons.items()) if parts
        ]  # fmt: skip
        # As Label Studio's local files have it; the folder is LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
        tasks.append(label_studio.task(film.image_id, f"/data/local-files/?d={IMAGES}/{name}", film.size, polygons))
    write_json(out / COCO_FILE, coco)
    write_json(out / TASKS, tasks)
    write_bytes(out / TASK_CONFIG, label_studio.CONFIG.encode("ascii"))
    return len(tasks)


def with_palette(labels: np.ndarray) -> Image.Image:
    """A label mask as a picture in colours, whose values are the labels."""
    image = Image.fromarray(labels)
    image.putpalette([value for colour in COLOURS.values() for value in colour])
    return image


def _write_png(path: Path, image: Image.Image) -> None:
    with replacing(path) as file:
        image.save(file, "PNG")
