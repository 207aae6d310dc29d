"""``NAME.json`` beside a film: the spacing of films whose own files give none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mask_rcnn.films.images import FilmError
from mask_rcnn.films.names import film_stem
from mask_rcnn.films.spacing import IMAGER, PIXEL, Calibration, Spacing, calibrated_spacing, plausible_spacing

OWN_KEY = "spacing_mm"  # as in dataset.json: millimetres in the patient

_LARGEST = 1 << 20  # bytes; annotation tools write larger ones, which hold whole films


def read_sidecar(film: Path) -> tuple[Spacing | None, Calibration | None]:
    """The spacing that ``NAME.json`` beside a film gives, for the film as it is upright; None where it gives none.

    The file holds ``spacing_mm``, [between rows, between columns], or the DICOM attributes of ``calibrated_spacing`` by
    their keywords. Whatever else lies there, as annotation tools write it, is no concern of this program.

    Raises:
        FilmError: it names a spacing that is none.
    """
    path = film.with_name(f"{film_stem(film.name)}.json")
    try:
        if path.stat().st_size > _LARGEST:
            return None, None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None, None
    if not isinstance(content, Mapping):
        return None, None
    if own := plausible_spacing(content, OWN_KEY):
        return own, Calibration(OWN_KEY)
    found = calibrated_spacing(content) if OWN_KEY not in content else (None, None)
    if found[0] is None and (given := [key for key in (OWN_KEY, PIXEL, IMAGER) if key in content]):
        raise FilmError(path, f"its {given[0]} is no spacing",
                        "write [between rows, between columns] in millimetres, or remove it")
    return found
