"""What a person decided of films: ``decisions.csv``, written by the page and its server, read wherever films are chosen.

A row a film: ``image_id`` and ``file`` as in all tables, ``decision`` (accept or reject), ``wrong`` (``MARKS``, semicolons
between them; a mark rejects) and ``decided`` (ISO 8601). A decision outweighs every check. The file is no result of a run:
none sets it aside or writes over it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.files import write_bytes

DECISIONS = "decisions.csv"
ACCEPT, REJECT = "accept", "reject"
COLUMNS = ("image_id", "file", "decision", "wrong", "decided")

# What a person can say is wrong, in the order of the keys 1, 2, ... on the page.
MARKS: Mapping[str, str] = {
    **{name: f"{name.replace('_', ' ')} wrong" for name in CATEGORIES.values()},
    "not_frontal": "not a frontal chest",
    "mirrored": "mirrored",
    "spoilt": "cut off, blurred or otherwise spoilt",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's decision on one film."""

    image_id: int | None  # None where the row has none that can be read
    file: str  # path below the source, with forward slashes
    decision: str  # ACCEPT or REJECT
    wrong: tuple[str, ...] = ()  # of MARKS
    decided: str = ""

    @property
    def reason(self) -> str:
        """The decision in words."""
        verb = "accepted" if self.decision == ACCEPT else "rejected"
        marks = ", ".join(MARKS[mark] for mark in self.wrong)
        return f"{verb} by a person" + (f" ({marks})" if marks else "")


def read_decisions(path: Path) -> list[Decision]:
    """The decisions of a file, the last row of each film; none where there is no file.

    A spreadsheet may have saved it with semicolons or tabs, a mark of UTF-8, or image ids rounded to 2.8E+14, which then do
    not count. A row without decision and marks is passed over.

    Raises:
        DatasetError: it cannot be read, lacks a column, or has a decision or a mark that nobody knows.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
        heading = text.partition("\n")[0]
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count), strict=True)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not readable as a table ({error}); save it as CSV in UTF-8") from error
    if missing := {"image_id", "file", "decision"} - set(reader.fieldnames or ()):
        raise DatasetError(f"{path}: has no column {', '.join(sorted(missing))}; its columns are {', '.join(COLUMNS)}")
    latest: dict[tuple[int | None, str], Decision] = {}
    for number, row in enumerate(rows, start=2):
        image_id, file, word, wrong, decided = ((row.get(column) or "").strip() for column in COLUMNS)
        marks = tuple(mark for mark in re.split(r"[;,\s]+", wrong) if mark)
        if unknown := next((mark for mark in marks if mark not in MARKS), None):
            raise DatasetError(f"{path}: line {number}: unknown mark {unknown!r}; known are {', '.join(MARKS)}")
        if word not in (ACCEPT, REJECT, ""):
            raise DatasetError(f"{path}: line {number}: the decision {word!r} is none of {ACCEPT} and {REJECT}")
        if not (word or marks):
            continue
        if word == ACCEPT and marks:
            raise DatasetError(f"{path}: line {number}: accepted and yet marked {', '.join(marks)}; take one of them out")
        known = int(image_id) if re.fullmatch(r"\d{1,18}", image_id) else None
        decision = Decision(known, file.replace("\\", "/"), word or REJECT, marks, decided)
        key = known, "" if known is not None else decision.file
        latest.pop(key, None)
        latest[key] = decision
    return list(latest.values())


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Writes the file, by path of the films, whole or not at all.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in sorted(decisions, key=lambda item: item.file):
        image_id = "" if item.image_id is None else item.image_id
        writer.writerow((image_id, item.file, item.decision, ";".join(item.wrong), item.decided))
    write_bytes(path, text.getvalue().encode("utf-8"))
