"""The page for review: report.html, self-contained, without a script or a network; light or dark as the reader's screen is.

Films are shown by samples, so that the page of 100,000 films is no larger than that of a thousand. Image ids are hashes, so
the smallest of them are sampled at random, the same on every run.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from create_dataset.assemble import JudgedFilm
from create_dataset.charts import histogram, strip, summary
from create_dataset.thumbnails import render_thumbnails
from mask_rcnn.checks.quality import ACCEPTED, REJECTED, REVIEW, STATUSES
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.drawing import LEGENDS, LUNG_COLOURS
from mask_rcnn.run.journal import Journal
from mask_rcnn.system.files import write_bytes

REPORT = "report.html"
SHEET = 60  # films of each status that are shown
LEAST_CERTAIN = 12  # of the accepted ones on their sheet
GROUPS, COPIES = 24, 6  # groups of copies that are shown, and films of each
ROWS = 40  # of a table by collection and class
NAMES = 200  # skipped files that are named for each reason

TITLES = {ACCEPTED: "Accepted", REVIEW: "For review", REJECTED: "Rejected"}

T = TypeVar("T")
Groups = list[list[JudgedFilm]]


def write_report(path: Path, info: Mapping[str, Any], films: Sequence[JudgedFilm], journal: Journal) -> None:
    """Writes the page on all films.

    Args:
        path: of the page.
        info: of the dataset, with its counts and what was skipped.
        films: all of them.
        journal: holds them.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    sheets = {status: choose(films, status) for status in STATUSES}
    copies = groups_of_copies(films)
    shown = [film for group in copies[:GROUPS] for film in group[:COPIES]]
    pictures = render_thumbnails([film for sheet in sheets.values() for film in sheet] + shown, journal)
    sections = {
        **{status: _sheet(status, sheets[status], films, pictures, info["laterality"]) for status in STATUSES},
        "distributions": _distributions(films),
        "copies": _copies(copies, pictures),
        "skipped": _skipped(info["skipped"], info["notes"]),
        "settings": _settings(info),
    }
    titles = TITLES | {
        "distributions": "Distributions", "copies": "Copies of films", "skipped": "Skipped files",
        "settings": "Settings and versions",
    }  # fmt: skip
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title in titles.items())
    body = "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{titles[key]}</h2>\n{section}</section>'
        for key, section in sections.items()
    )
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Lungs found on {info['counts']['films']:,} chest films</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>Lungs found on {info['counts']['films']:,} chest films</h1>
<p class="soft">{_text(info['date_created'].replace("T", " ").replace("+00:00", " UTC"))}</p>
{_tiles(info['counts'])}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""
    write_bytes(path, page.encode("utf-8"))


def choose(films: Iterable[JudgedFilm], status: str, count: int = SHEET) -> list[JudgedFilm]:
    """The films of a status that are shown: of the accepted ones the least certain come first, of the others each kind of
    reason has its turn."""
    ordered = sorted((film for film in films if film.status == status), key=lambda film: film.image_id)
    if status == ACCEPTED:
        least = {film.image_id: film for film in sorted(ordered, key=lambda film: film.agreement)[:LEAST_CERTAIN]}
        return [*least.values(), *(film for film in ordered if film.image_id not in least)][:count]
    by_reason: dict[str, list[JudgedFilm]] = defaultdict(list)
    for film in ordered:
        by_reason[kind_of_reason(film.reasons)].append(film)
    turns = zip_longest(*(by_reason[kind] for kind in sorted(by_reason)))
    chosen = [film for turn in turns for film in turn if film][:count]
    return sorted(chosen, key=lambda film: (kind_of_reason(film.reasons), film.image_id))


def kind_of_reason(reasons: Sequence[str]) -> str:
    """The first reason without its numbers and what is in brackets, by which films are sorted."""
    return re.sub(r"\d+([.,]\d+)*", "…", re.sub(r"\s*\(.*\)", "", reasons[0])) if reasons else ""


def groups_of_copies(films: Iterable[JudgedFilm]) -> Groups:
    """The groups of films that are copies of one another, the largest first."""
    groups: dict[int, list[JudgedFilm]] = defaultdict(list)
    for film in films:
        groups[film.original].append(film)
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)


def _text(text: object) -> str:
    return escape(str(text))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _tiles(counts: Mapping[str, int]) -> str:
    shown = [(TITLES[status], counts[status], status) for status in STATUSES] + [("Skipped", counts["skipped"], "skipped")]
    tiles = "".join(f'<div class="tile {name}"><dt>{title}</dt><dd>{count:,}</dd></div>' for title, count, name in shown)
    sentences = [
        f"Two lungs on {counts['two_lungs']:,}, one on {counts['one_lung']:,}, none on {counts['no_lung']:,}",
        f"{_many(counts['inverted'], 'film')} inverted and turned round",
        f"{_many(counts['copies'], 'copy').replace('copys', 'copies')} of other films",
    ]
    if counts["not_done"]:
        sentences.append(f"{_many(counts['not_done'], 'film')} not done yet: the same command goes on")
    return f'<dl class="tiles">{tiles}</dl>\n<p>{"; ".join(sentences)}. Training takes the accepted films alone.</p>'


def _sheet(
    status: str, shown: Sequence[JudgedFilm], films: Sequence[JudgedFilm], pictures: Mapping[int, str], laterality: str
) -> str:
    total = sum(film.status == status for film in films)
    if not total:
        return "<p>None.</p>"
    colours = "".join(
        f'<li><span class="key" style="background:rgb{LUNG_COLOURS[category]}"></span>{name.replace("_", " ")}</li>'
        for category, name in CATEGORIES.items()
    )
    keys = f'<ul class="keys">{colours}<li class="soft">{_text(LEGENDS[laterality])}</li></ul>'
    count = f"All {total:,}" if len(shown) == total else f"{len(shown):,} of {total:,}"
    if status == ACCEPTED:
        least = f", the {LEAST_CERTAIN} least certain first" if total > LEAST_CERTAIN else ""
        by_chance = "" if len(shown) == total else ", the others sampled at random"
        return f"<p>{count}{least}{by_chance}.</p>{keys}{_figures(shown, pictures)}"
    parts = [f"<p>{count}; a film may have several reasons.</p>", keys]
    totals = Counter(kind_of_reason(film.reasons) for film in films if film.status == status)
    by_kind: dict[str, list[JudgedFilm]] = defaultdict(list)
    for film in shown:
        by_kind[kind_of_reason(film.reasons)].append(film)
    for kind, of_kind in by_kind.items():
        parts.append(f"<h3>{_text(kind.capitalize())} ({totals[kind]:,})</h3>{_figures(of_kind, pictures)}")
    return "\n".join(parts)


def _figures(films: Iterable[JudgedFilm], pictures: Mapping[int, str]) -> str:
    return f'<div class="sheet">{"".join(_figure(film, pictures.get(film.image_id)) for film in films)}</div>'


def _figure(film: JudgedFilm, picture: str | None) -> str:
    name, words = _text(film.source.file_name), ["no lung", "one lung", "both lungs"][film.lungs]
    image = '<div class="missing">the file cannot be read any more</div>'
    if picture:
        image = f'<img src="{picture}" alt="{name}: {words} outlined" loading="lazy" decoding="async">'
    items = "".join(f"<li>{_text(reason)}</li>" for reason in film.reasons)
    reasons = f"<ul>{items}</ul>" if items else "<br>"
    folder, _, last = name.rpartition("/")
    shown = f'<span class="soft">{folder}/</span><b>{last}</b>' if folder else f"<b>{last}</b>"
    return f"<figure>{image}<figcaption>{shown}{reasons}agreement {film.agreement:.2f}</figcaption></figure>\n"


def _distributions(films: Sequence[JudgedFilm]) -> str:
    keys = "".join(f'<li><span class="key {status}"></span>{TITLES[status].lower()}</li>' for status in STATUSES)
    parts = [_counts_by_class(films), f'<ul class="keys">{keys}</ul>']
    measures: tuple[tuple[str, str, Callable[[JudgedFilm], float | None], float, float], ...] = (
        ("Agreement", "mean Dice between the opinions on a film", lambda film: film.agreement, 0.5, 1.0),
        ("Area", "both lungs, share of the film", lambda film: film.area, 0.0, 0.6),
        ("Left over right", "area of the left lung over that of the right", lambda film: film.ratio, 0.0, 2.0),
    )
    for title, meaning, measure, low, high in measures:
        values: dict[str, list[float]] = {status: [] for status in STATUSES}
        by_class: dict[tuple[str, str], list[float]] = defaultdict(list)
        for film in films:
            if (value := measure(film)) is not None:
                values[film.status].append(value)
                by_class[film.source.collection, film.source.label].append(value)
        everything = [value for of_status in values.values() for value in of_status]
        parts.append(f"<h3>{title}: {meaning}</h3>")
        if not everything:
            parts.append("<p>No film has it.</p>")
            continue
        label = f"{title} of {_many(len(everything), 'film')}, median (5th to 95th percentile): {summary(everything)}"
        ends = "≤ " * (low > 0), "≥ " * (high != 1)  # the outermost bars hold what lies beyond
        axis = "".join(
            f"<span>{ends[0] * (k == 0)}{ends[1] * (k == 4)}{low + (high - low) * k / 4:.3g}</span>" for k in range(5)
        )
        parts.append(
            f'<figure class="histogram">{histogram(values, low, high, 50, label)}<div class="axis">{axis}</div></figure>'
        )
        rows = [
            f'<tr>{_class_cells(name)}<td class="number">{len(of_class):,}</td><td class="number">{summary(of_class)}</td>'
            f'<td class="strip">{strip(of_class, low, high)}</td></tr>'
            for name, of_class in _most(by_class, len)
        ]
        heads = "source", "class", "#films", "#median (5th to 95th percentile)", f"{low:g} to {high:g}"
        parts.append(_table(f"{title} by source and class", heads, rows))
    return "\n".join(parts)


def _counts_by_class(films: Iterable[JudgedFilm]) -> str:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for film in films:
        counts[film.source.collection, film.source.label][film.status] += 1
    rows = [
        f"<tr>{_class_cells(name)}"
        + "".join(f'<td class="number">{of_class[status]:,}</td>' for status in STATUSES) + "</tr>"
        for name, of_class in _most(counts, lambda of_class: of_class.total())
    ]
    left_out = f"<p>The {ROWS} largest of {len(counts):,}; quality.csv has all.</p>" if len(counts) > ROWS else ""
    heads = "source", "class", *(f"#{TITLES[status].lower()}" for status in STATUSES)
    return left_out + _table("Films by source and class", heads, rows)


def _most(by_class: Mapping[tuple[str, str], T], size: Callable[[T], int]) -> list[tuple[tuple[str, str], T]]:
    """The largest classes, by name."""
    return sorted(sorted(by_class.items(), key=lambda item: (-size(item[1]), item[0]))[:ROWS], key=lambda item: item[0])


def _class_cells(name: tuple[str, str]) -> str:
    return f'<th scope="row">{_text(name[0])}</th><td>{_text(name[1]) or "–"}</td>'


def _table(name: str, heads: Iterable[str], rows: Iterable[str]) -> str:
    """A table that a narrow screen scrolls; a head that begins with # is of numbers."""
    cells = "".join(
        f'<th scope="col"{" class=number" if head[0] == "#" else ""}>{_text(head.removeprefix("#"))}</th>' for head in heads
    )
    table = f'<table><thead><tr>{cells}</tr></thead>\n<tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll" role="region" aria-label="{_text(name)}" tabindex="0">{table}</div>'


def _copies(groups: Groups, pictures: Mapping[int, str]) -> str:
    if not groups:
        return "<p>No film is a copy of another.</p>"
    films = sum(map(len, groups))
    across = sum(len({film.source.collection for film in group}) > 1 for group in groups)
    parts = [
        f"<p>{_many(len(groups), 'group')} of {films:,} films, {across:,} of them across sources. Training and validation "
        "never share a group.</p>"
    ]
    if len(groups) > GROUPS:
        parts.append(f"<p>The {GROUPS} largest are shown; the column group of quality.csv has all.</p>")
    for number, group in enumerate(groups[:GROUPS], start=1):
        more = f", {COPIES} of them shown" if len(group) > COPIES else ""
        sources = ", ".join(sorted({film.source.collection for film in group}))
        parts.append(
            f'<div class="copies"><h3>{number}. {len(group):,} copies{more}</h3><p class="soft">{_text(sources)}</p>'
            f"{_figures(group[:COPIES], pictures)}</div>"
        )
    return "\n".join(parts)


def _skipped(skipped: Sequence[Mapping[str, str]], notes: Sequence[str]) -> str:
    listed = "".join(f"<li>{_text(note)}</li>" for note in notes[:NAMES])
    parts = [f"<ul>{listed}</ul>" if notes else ""]
    if not skipped:
        parts.append("<p>Every file that was found could be used.</p>")
    files: dict[str, list[str]] = defaultdict(list)
    for record in skipped:
        files[kind_of_reason([record["reason"].split("; ")[0]])].append(f"{record['file']}: {record['reason']}")
    for reason, lines in sorted(files.items(), key=lambda item: (-len(item[1]), item[0])):
        names = "".join(f"<li>{_text(line)}</li>" for line in lines[:NAMES])
        more = f"<li>and {len(lines) - NAMES:,} more, in dataset.json</li>" if len(lines) > NAMES else ""
        parts.append(
            f"<details><summary>{_text(reason)}: {_many(len(lines), 'file')}</summary><ul>{names}{more}</ul></details>"
        )
    return "\n".join(parts)


def _settings(info: Mapping[str, Any]) -> str:
    values = {
        "command": info["command"],
        "laterality": LEGENDS[info["laterality"]],
        **{f"U-Net {unet['file']}": f"{unet['encoder']}, SHA-256 {unet['sha256']}" for unet in info["unet"]},
        **{f"quality.{key}": value for key, value in info["quality"].items()},
        **info["versions"],
    }
    rows = [f'<tr><th scope="row">{_text(key)}</th><td>{_text(value)}</td></tr>' for key, value in values.items()]
    return _table("Settings", ("setting", "value"), rows)
