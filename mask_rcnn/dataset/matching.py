"""What people and other programs know of films, matched with films: by image id, else by path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from mask_rcnn.dataset.errors import DatasetError


class OfAFilm(Protocol):
    """What belongs to one film."""

    @property
    def image_id(self) -> int | None:
        """As in all tables; None where it is not known."""

    @property
    def file(self) -> str:
        """Path below the source, with forward slashes."""

    @property
    def decided(self) -> str:
        """When, ISO 8601, or empty."""


Item = TypeVar("Item", bound=OfAFilm)


def match_films(items: Iterable[Item], films: Sequence[tuple[object, str]], where: str) -> dict[int, Item]:
    """What there is of each film, by the film's place; of several the one decided last.

    An item is of the film with its image id. One whose id no film has, as in a table that a spreadsheet saved or in a folder
    that another program numbered, is of the film with its path, or whose path ends with it.

    Args:
        items: of films that are there, or not.
        films: image id, or None, and path of each.
        where: the file that the items come from, for messages.

    Raises:
        DatasetError: an item without a known id fits several films.
    """
    items = list(items)
    by_id: dict[object, int] = {image_id: place for place, (image_id, _) in enumerate(films) if image_id is not None}
    by_name: dict[str, list[int]] = defaultdict(list)
    if any(item.image_id not in by_id for item in items):
        for place, (_, file) in enumerate(films):
            by_name[file.rpartition("/")[2]].append(place)
    matched: dict[int, Item] = {}
    for item in items:
        own = by_id.get(item.image_id)
        if own is None:
            own = _place_by_path(item.file, by_name[item.file.rpartition("/")[2]], films, where)
        if own is not None and (own not in matched or matched[own].decided <= item.decided):
            matched[own] = item
    return matched


def _place_by_path(file: str, places: Iterable[int], films: Sequence[tuple[object, str]], where: str) -> int | None:
    fitting = [place for place in places if _ends_with(films[place][1], file) or _ends_with(file, films[place][1])]
    exact = [place for place in fitting if films[place][1] == file]
    fitting = exact or fitting
    if len(fitting) > 1:
        names = " and ".join(films[place][1] for place in fitting[:2])
        raise DatasetError(f"{where}: {file} fits several films, {names}; write the whole path, or the image_id")
    return fitting[0] if fitting else None


def _ends_with(path: str, end: str) -> bool:
    return bool(end) and (path == end or path.endswith(f"/{end}"))
