"""A film as the page shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mask_rcnn.checks.quality import ACCEPTED, REJECTED, REVIEW

RISK = (REVIEW, REJECTED, ACCEPTED)  # statuses from what a person should see first


@dataclass(frozen=True, slots=True)
class PageFilm:
    """What the page has of every film; the rest it reads when the film is enlarged. Less than a kilobyte."""

    image_id: int
    file: str  # as in the tables
    path: Path
    digest: str  # of its file, and of its lungs where a person corrected them
    status: str
    reasons: tuple[str, ...]
    agreement: float | None
    area: float | None  # of both lungs, of the film's
    ratio: float | None  # left over right lung's area, where there are both
    inverted: bool
    source: str  # the collection or folder that it comes from
    label: str = ""  # its class, where the source says one
    risk: float | None = None  # that a lung is wrong, where a bag predicted it


def by_risk(films: Iterable[PageFilm]) -> list[PageFilm]:
    """What is for review comes first, then what was rejected; within each the highest risk, or where there is none those on
    which opinions differ most."""
    return sorted(films, key=lambda film: (
        RISK.index(film.status), -(film.risk or 0), 1 if film.agreement is None else film.agreement, film.image_id
    ))  # fmt: skip


def kind_of_reason(reason: str) -> str:
    """A reason without its numbers and what is in brackets, by which films are filtered."""
    return re.sub(r"\d+([.,]\d+)*", "…", re.sub(r"\s*\(.*\)", "", reason))
