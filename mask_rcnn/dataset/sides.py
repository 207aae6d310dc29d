"""Whether the masks of a set are what they claim: a label for each lung, on its side, annotated on the film as it is shown.

One film is not enough: a lung may be missing, a film mirrored. All films of a source are.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id; of any scale
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.films.images import FilmError, open_image
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.mending import JPEG_START, PNG_SIGNATURE
from mask_rcnn.films.names import IMAGE_SUFFIXES
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG

MIN_APART = 0.2  # of the film's width: the two lungs' centres are further apart, those of a lung's parts are not
MAX_WIDTH = 0.6  # of the film's width: what is wider and of one label is both lungs, grown together
MIN_PART = 0.25  # of a label's area: the smaller lung
MAX_DOUBTFUL = 0.2  # of a source's films: more, and it is the source that is labelled so

_EXPECTED = (
    f"label the patient's left lung, on the right of a frontal film, {LEFT_LUNG} ({CATEGORIES[LEFT_LUNG]}) and the other "
    f"{RIGHT_LUNG} ({CATEGORIES[RIGHT_LUNG]})"
)
_ORIENTATION = 0x0112  # EXIF 2.3, table 4: 1 is upright
# In JPEG's APP1 (EXIF 2.3, 4.7.2), PNG's chunk, ImageMagick's text in a PNG, and XMP in a JPEG, which has a tag of its own.
_EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"Raw profile type exif", b"http://ns.adobe.com/xap")
_MARGIN = 0.05  # of the film's longer side: how far around a lung it is darker than what surrounds it


def on_both_sides(labels: np.ndarray) -> bool:
    """Whether one label alone is used, and marks both lungs."""
    used = np.flatnonzero(np.bincount(labels.ravel(), minlength=1)[1:])
    if len(used) != 1:
        return False
    width, area = labels.shape[1], np.count_nonzero(labels)
    _, _, stats, centres = cv2.connectedComponentsWithStats((labels > 0).astype(np.uint8))
    if stats[1:, cv2.CC_STAT_WIDTH].max() > MAX_WIDTH * width:
        return True
    parts = [k for k in range(1, len(stats)) if stats[k, cv2.CC_STAT_AREA] >= MIN_PART * area]
    return any(
        abs(centres[one][0] - centres[other][0]) > max(MIN_APART * width, abs(centres[one][1] - centres[other][1]))
        for one in parts for other in parts
    )  # fmt: skip


def are_exchanged(labels: np.ndarray) -> bool | None:
    """Whether the patient's lungs lie on each other's sides of a frontal film; None where it does not show both."""
    columns = {lung: np.flatnonzero((labels == lung).any(0)) for lung in CATEGORIES}
    if not all(len(own) for own in columns.values()):
        return None
    centre = {lung: float(np.nonzero(labels == lung)[1].mean()) for lung in CATEGORIES}
    return centre[LEFT_LUNG] < centre[RIGHT_LUNG]


def check_sides(records: Sequence[FilmRecord], labels: Sequence[np.ndarray]) -> list[FilmRecord]:
    """The films with one label for both lungs, where these are few in their source.

    Lungs named by image side are not checked for an exchange: this program alone writes such files, and marks them.

    Raises:
        DatasetError: a source has one label for both lungs, or its labels exchanged, on too many films for a slip.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for k, record in enumerate(records):
        if labels[k].any():
            by_source[record.source].append(k)
    doubtful = []
    for source, own in by_source.items():
        both = [k for k in own if on_both_sides(labels[k])]
        if len(both) > MAX_DOUBTFUL * len(own):
            raise DatasetError(
                f"{source}: one label for both lungs? {len(both)} of {len(own)} films have one on both sides of the chest, "
                f"{_first(records, both)}; {_EXPECTED}"
            )
        doubtful += [records[k] for k in both]
        verdicts = {k: are_exchanged(labels[k]) for k in own if records[k].laterality == "patient"}
        judged = [k for k, verdict in verdicts.items() if verdict is not None]
        wrong = [k for k in judged if verdicts[k]]
        if 2 * len(wrong) > len(judged):
            raise DatasetError(
                f"{source}: labels exchanged? {len(wrong)} of {len(judged)} films have the lungs on each other's sides, "
                f"{_first(records, wrong)}; {_EXPECTED}, or turn films round that are mirrored"
            )
    return doubtful


def _first(records: Sequence[FilmRecord], chosen: Sequence[int]) -> str:
    return "the first " + ", ".join(records[k].path.name for k in chosen[:3])


def check_turned(records: Sequence[FilmRecord]) -> None:
    """Checks the films that their EXIF tag turns: the masks must be annotated on the turned film.

    A mask of the film as it is stored has its sides exchanged or, where these are alike or the turn is by a half, lies
    where the film is not darker than around.

    Raises:
        DatasetError: of most of the films that are turned in a source, the mask fits the film as it is stored.
    """
    turned: dict[str, list[tuple[FilmRecord, bool]]] = defaultdict(list)
    for record in records:
        orientation = exif_orientation(record.path) if record.pixels is None else 1
        if orientation == 1:
            continue
        try:
            film, labels, _ = read_annotated(record)
        except (FilmError, DatasetError):  # loading it will report it
            continue
        if labels.any():
            stored = turn_back(film, orientation)
            turned[record.source].append((record, _fit(stored, labels) > _fit(film, labels)))
    for source, films in turned.items():
        wrong = [record for record, is_wrong in films if is_wrong]
        if 2 * len(wrong) > len(films):
            names = ", ".join(record.path.name for record in wrong[:3])
            raise DatasetError(
                f"{source}: EXIF turns {len(wrong)} films and not their masks, the first {names}; turn the masks likewise, "
                "or annotate the films as they are shown"
            )


def exif_orientation(path: Path) -> int:
    """The orientation that a JPEG, PNG or TIFF claims, 1 where it claims none.

    Opening a JPEG or PNG decodes it, which takes as long as reading the film: one that holds no EXIF is not opened.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return 1
    try:
        content = path.read_bytes()
        if content.startswith((JPEG_START, PNG_SIGNATURE)) and not any(mark in content for mark in _EXIF_MARKS):
            return 1
        with open_image(path) as image:
            if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
                return 1  # else Pillow decodes all of it in search of a tag
            orientation = image.getexif().get(_ORIENTATION, 1)
    except (FilmError, OSError):
        return 1
    return orientation if orientation in range(2, 9) else 1


def turn_back(film: np.ndarray, orientation: int) -> np.ndarray:
    """A film that was turned by its EXIF, as it is stored."""
    turned = {
        2: film[:, ::-1], 3: film[::-1, ::-1], 4: film[::-1], 5: film.T,
        6: np.rot90(film), 7: film[::-1, ::-1].T, 8: np.rot90(film, -1),
    }  # fmt: skip
    return np.ascontiguousarray(turned.get(orientation, film))


def _fit(film: np.ndarray, labels: np.ndarray) -> float:
    """How much darker a film is within its lungs than close around them, in levels of the equalised film."""
    if film.shape != labels.shape:
        return -np.inf
    lungs = (labels > 0).astype(np.uint8)
    reach = 2 * max(1, round(_MARGIN * max(film.shape))) + 1
    around = cv2.dilate(lungs, np.ones((reach, reach), np.uint8)) > lungs
    levels = equalise(film)
    return float(levels[around].mean() - levels[lungs > 0].mean()) if around.any() else 0.0
