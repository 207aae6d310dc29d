"""Writes the page: ``report.html``, and beside it ``report_files/``, from which a browser loads what it shows.

A browser opens the page from the disk, where a page may load scripts and pictures and nothing else: so data are scripts. Of
every film ``index.js`` has what the sheets, the filter and the search need, some 100 bytes. What is seen of an enlarged film
alone is in ``details/N.js``, ``CHUNK`` films each.

Shapes
    polygon  list of int, x, y, x, y, ... in pixels of the film
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mask_rcnn.checks.quality import ACCEPTED, REJECTED, REVIEW, STATUSES
from mask_rcnn.dataset.decisions import MARKS, Decision
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.lungs import CATEGORIES, SIDES
from mask_rcnn.results.drawing import LEGENDS, LUNG_COLOURS
from mask_rcnn.results.names import PAGE, PAGE_FILES
from mask_rcnn.results.page.charts import HEIGHT, STRIP_HEIGHT, WIDTH, histogram, strip, summary
from mask_rcnn.results.page.films import PageFilm, by_risk, kind_of_reason
from mask_rcnn.results.page.pictures import (
    FILMS,
    THUMBNAILS,
    Segmentations,
    add_missing_pictures,
    picture_name,
    remove_stale_pictures,
)
from mask_rcnn.results.page.tracing import trace
from mask_rcnn.system.files import write_bytes
from mask_rcnn.system.progress import progress

CHUNK = 100  # films of a file of details
ROWS = 40  # of a table by source and class
NAMES = 200  # skipped files that are named for each reason
BINS = 50

TITLES = {ACCEPTED: "Accepted", REVIEW: "For review", REJECTED: "Rejected"}
SCRIPTS = ("sheet.js", "decisions.js", "film.js", "start.js")


@dataclass(frozen=True)
class Details:
    """What the page shows of an enlarged film."""

    size: tuple[int, int]  # height, width
    lungs: Segmentations
    members: Sequence[Mapping[str, Any]] = ()  # polygons by category id, of each network of the bag
    facts: Sequence[tuple[str, object]] = ()  # name and value
    lung_facts: Mapping[str, Mapping[int, object]] = field(default_factory=dict)  # by name and category id


@dataclass(frozen=True)
class Measure:
    """A measure of all films, as the distributions show it."""

    title: str
    meaning: str
    of: Callable[[PageFilm], float | None]
    low: float
    high: float


RISK = Measure("Risk", "probability that the Dice of a lung is below 0.90", lambda film: film.risk, 0.0, 1.0)
MEASURES = (
    RISK,
    Measure("Agreement", "mean Dice between the predictions on a film", lambda film: film.agreement, 0.5, 1.0),
    Measure("Area", "both lungs, share of the film", lambda film: film.area, 0.0, 0.6),
    Measure("Left over right", "area of the left lung over that of the right", lambda film: film.ratio, 0.0, 2.0),
)


@dataclass(frozen=True)
class Page:
    """All that is on the page besides the films."""

    title: str
    date: str  # ISO 8601
    laterality: str
    films: Sequence[PageFilm]
    details_of: Callable[[PageFilm], Details]
    sentences: str
    skipped: Sequence[Mapping[str, str]]  # file and reason
    notes: Sequence[str]
    settings: Mapping[str, object]
    decisions: Mapping[int, Decision]  # by image id
    copies: Sequence[Sequence[PageFilm]] | None = None  # groups of films that are copies of one another
    copy_count: int = 0  # of all groups
    films_in_copies: int = 0


def write_page(out: Path, page: Page) -> None:
    """Writes the page and its files; pictures that are there already are kept.

    Raises:
        OSError: one cannot be written.
    """
    folder = out / PAGE_FILES
    films = by_risk(page.films)
    add_missing_pictures(out, films, lambda film: page.details_of(film).lungs)
    remove_stale_pictures(out, films)
    for number, start in enumerate(progress(range(0, len(films), CHUNK), name="page", unit="files")):
        details = [_details(out, film, page.details_of(film)) for film in films[start : start + CHUNK]]
        write_bytes(folder / "details" / f"{number}.js", _script(f"lungs.details({number}, ", details, ");"))
    _remove_beyond(folder / "details", -(-len(films) // CHUNK))
    write_bytes(folder / "index.js", _script("lungs.index(", _index(out, page, films), ");"))
    write_bytes(out / PAGE, _html(page, films).encode("utf-8"))


def _index(out: Path, page: Page, films: Sequence[PageFilm]) -> dict[str, Any]:
    """What the page has of every film, a list for each property, so that 100,000 films take some 10 MB."""
    kinds: dict[str, int] = {}
    for film in films:
        for reason in film.reasons:
            kinds.setdefault(kind_of_reason(reason), len(kinds))
    sources: dict[tuple[str, str], int] = {}
    thumbnails = out / PAGE_FILES / THUMBNAILS
    return {
        # Decisions that a browser keeps are those on these results, wherever they are copied to.
        "key": hashlib.blake2b(f"{page.title}{min((film.image_id for film in films), default=0)}".encode()).hexdigest()[:16],
        "chunk": CHUNK,
        "files": PAGE_FILES,
        "kinds": list(kinds),
        "marks": list(MARKS.items()),
        "titles": TITLES,
        "categories": {category: name.replace("_", " ") for category, name in CATEGORIES.items()},
        "colours": {category: "rgb({},{},{})".format(*colour) for category, colour in LUNG_COLOURS.items()},
        "id": [film.image_id for film in films],
        "file": [film.file for film in films],
        "status": [film.status for film in films],
        "reasons": [sorted({kinds[kind_of_reason(reason)] for reason in film.reasons}) for film in films],
        **{name: [None if (value := getattr(film, name)) is None else round(value, 3) for film in films]
           for name in ("agreement", "risk")},
        "source": [sources.setdefault((film.source, film.label), len(sources)) for film in films],
        "sources": [" ".join(filter(None, source)) for source in sources],
        "picture": [
            name if (thumbnails / (name := picture_name(film.image_id, film.digest))).is_file() else "" for film in films
        ],
        "decisions": [
            [image_id, item.decision, list(item.wrong), item.decided] for image_id, item in page.decisions.items()
        ],
    }


def _details(out: Path, film: PageFilm, details: Details) -> dict[str, Any]:
    own = f"{PAGE_FILES}/{FILMS}/{picture_name(film.image_id, film.digest)}"
    is_own = (out / own).is_file()
    return {
        "id": film.image_id,
        "film": own if is_own else _address(film.path, out),
        "invert": film.inverted and not is_own,
        "height": details.size[0],
        "width": details.size[1],
        "reasons": film.reasons,
        "lungs": {category: trace(decode_mask(dict(lung))) for category, lung in details.lungs.items()},
        "members": details.members,
        "facts": details.facts,
        "lungFacts": [
            [name, *(values.get(category, "") for category in CATEGORIES)] for name, values in details.lung_facts.items()
        ],
    }


def _address(path: Path, folder: Path) -> str:
    """Of a file as seen from a folder; Linux allows any bytes in a name, and so does an address."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(path, folder.resolve())).as_posix()))
    except ValueError:  # another drive
        return path.as_uri()


def _script(before: str, content: object, after: str) -> bytes:
    """Data as a script; ASCII, so that no name can end it."""
    return (before + json.dumps(content, separators=(",", ":")).replace("<", "\\u003c") + after + "\n").encode("ascii")


def _remove_beyond(folder: Path, count: int) -> None:
    for path in folder.glob("*.js"):
        if path.stem.isdecimal() and int(path.stem) >= count:
            with suppress(OSError):
                path.unlink()


def _html(page: Page, films: Sequence[PageFilm]) -> str:
    environment = Environment(
        loader=PackageLoader("mask_rcnn.results.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"count": lambda number: f"{number:,}", "many": many}
    here = Path(__file__).parent
    script = "\n".join((here / "scripts" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        page=page,
        date=page.date.replace("T", " ").replace("+00:00", " UTC"),
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        files=PAGE_FILES,
        marks=len(MARKS),
        statuses=STATUSES,
        titles=TITLES,
        counts=Counter(film.status for film in films),
        legend=LEGENDS[page.laterality],
        colours=[(CATEGORIES[category].replace("_", " "), LUNG_COLOURS[category]) for category in SIDES],
        classes=_counts_by_class(films),
        distributions=[_distribution(measure, films) for measure in MEASURES
                       if measure is not RISK or any(film.risk is not None for film in films)],
        reasons=Counter(kind for film in films for kind in {kind_of_reason(reason) for reason in film.reasons}).most_common(),
        skipped=_skipped(page.skipped),
        pictures={
            film.image_id: f"{PAGE_FILES}/{THUMBNAILS}/{picture_name(film.image_id, film.digest)}"
            for group in page.copies or () for film in group
        },
        names=NAMES, width=WIDTH, height=HEIGHT, strip_height=STRIP_HEIGHT, rows=ROWS,
    )  # fmt: skip


def many(count: int, noun: str) -> str:
    """A count and its noun, in the plural but for 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _counts_by_class(films: Iterable[PageFilm]) -> dict[str, Any]:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for film in films:
        counts[film.source, film.label][film.status] += 1
    largest = _most(counts, lambda of_class: of_class.total())
    return {"count": len(counts), "rows": [(name, [of_class[status] for status in STATUSES]) for name, of_class in largest]}


def _distribution(measure: Measure, films: Iterable[PageFilm]) -> dict[str, Any]:
    values: dict[str, list[float]] = {status: [] for status in STATUSES}
    by_class: dict[tuple[str, str], list[float]] = defaultdict(list)
    for film in films:
        if (value := measure.of(film)) is not None:
            values[film.status].append(value)
            by_class[film.source, film.label].append(value)
    everything = [value for of_status in values.values() for value in of_status]
    result: dict[str, Any] = {"measure": measure, "count": len(everything)}
    if everything:
        result |= {
            "chart": histogram(values, measure.low, measure.high, BINS),
            "summary": summary(everything),
            "rows": [
                (name, len(of_class), summary(of_class), strip(of_class, measure.low, measure.high))
                for name, of_class in _most(by_class, len)
            ],
        }
    return result


def _most(by_class: Mapping[tuple[str, str], Any], size: Callable[[Any], int]) -> list[tuple[tuple[str, str], Any]]:
    """The largest classes, by name."""
    return sorted(sorted(by_class.items(), key=lambda item: (-size(item[1]), item[0]))[:ROWS], key=lambda item: item[0])


def _skipped(skipped: Iterable[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Skipped files by the kind of their reason, the most frequent first."""
    files: dict[str, list[str]] = defaultdict(list)
    for record in skipped:
        files[kind_of_reason(record["reason"].split("; ")[0])].append(f"{record['file']}: {record['reason']}")
    return sorted(files.items(), key=lambda item: (-len(item[1]), item[0]))
