"""The page of a dataset, made of its journal's entries."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from create_dataset.assemble import JudgedFilm, with_correction
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.drawing import LEGENDS
from mask_rcnn.results.page.films import PageFilm
from mask_rcnn.results.page.write import Details, Page, many, write_page
from mask_rcnn.run.journal import Journal

GROUPS = 24  # of copies that are shown

Groups = list[list[JudgedFilm]]


def write_report(out: Path, info: Mapping[str, Any], films: Sequence[JudgedFilm], journal: Journal) -> None:
    """Writes the page on all films.

    Args:
        out: folder of the dataset.
        info: of the dataset, with its counts and what was skipped.
        films: all of them.
        journal: holds them.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    copies = groups_of_copies(films)
    judged = {film.image_id: film for film in films}

    def details(film: PageFilm) -> Details:
        source, correction = judged[film.image_id].source, judged[film.image_id].correction
        entry = with_correction(journal.read(source), correction)
        lungs = {lung["category_id"]: lung for lung in entry["lungs"]}
        facts = [("image_id", film.image_id), *((name, getattr(source, name)) for name in ("collection", "split", "label",
                 "patient")), ("height", entry["height"]), ("width", entry["width"]), ("inverted", int(film.inverted)),
                 ("turned", entry["turned"]), ("spacing_mm", entry["spacing_mm"]),
                 ("corrected", correction and correction.decided), *entry["measures"].items()]  # fmt: skip
        of_lungs = {
            "area_px": {category: lung["area"] for category, lung in lungs.items()},
            "box x, y, width, height": {
                category: ", ".join(f"{side:g}" for side in lung["bbox"]) for category, lung in lungs.items()
            },
        }
        segmentations = {category: lung["segmentation"] for category, lung in lungs.items() if category in CATEGORIES}
        return Details((entry["height"], entry["width"]), segmentations, (), facts, of_lungs)

    counts = info["counts"]
    write_page(out, Page(
        title=f"Lungs found on {counts['films']:,} chest films", date=info["date_created"], laterality=info["laterality"],
        films=[_page_film(film) for film in films], details_of=details, sentences=_sentences(counts),
        skipped=info["skipped"], notes=info["notes"], settings=_settings(info),
        decisions={film.image_id: film.decision for film in films if film.decision},
        copies=[[_page_film(film) for film in group] for group in copies[:GROUPS]], copy_count=len(copies),
        films_in_copies=sum(map(len, copies)),
    ))  # fmt: skip


def _page_film(film: JudgedFilm) -> PageFilm:
    source, digest = film.source, film.digest
    if film.correction:  # its picture shows other lungs
        digest = hashlib.blake2b(f"{digest}{film.correction.lungs}".encode(), digest_size=16).hexdigest()
    return PageFilm(
        film.image_id, source.file_name, source.path, digest, film.status, film.reasons, film.agreement, film.area,
        film.ratio, film.inverted, source.collection, source.label,
    )  # fmt: skip


def groups_of_copies(films: Iterable[JudgedFilm]) -> Groups:
    """The groups of films that are copies of one another, the largest first."""
    groups: dict[int, list[JudgedFilm]] = defaultdict(list)
    for film in films:
        groups[film.original].append(film)
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)


def _sentences(counts: Mapping[str, int]) -> str:
    sentences = [
        f"Two lungs on {counts['two_lungs']:,}, one on {counts['one_lung']:,}, none on {counts['no_lung']:,}",
        f"{many(counts['inverted'], 'film')} inverted and turned round",
        f"{many(counts['copies'], 'copy').replace('copys', 'copies')} of other films",
    ]
    if counts["not_done"]:
        sentences.append(f"{many(counts['not_done'], 'film')} not done yet: the same command goes on")
    return f"{'; '.join(sentences)}. Training takes the accepted films alone."


def _settings(info: Mapping[str, Any]) -> dict[str, object]:
    return {
        "command": info["command"],
        "laterality": LEGENDS[info["laterality"]],
        **{f"U-Net {unet['file']}": f"{unet['encoder']}, SHA-256 {unet['sha256']}" for unet in info["unet"]},
        **{f"quality.{key}": value for key, value in info["quality"].items()},
        **info["versions"],
    }
