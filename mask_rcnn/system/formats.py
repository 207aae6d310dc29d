"""The formats of the files that the program writes, and what it does with files of other formats.

Every file that outlives a run holds its format, a whole number, and the version of the program that wrote it. Older formats
are read as what they are; a newer one may mean anything, and is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mask_rcnn.version import __version__

# Format 1 of each is what was written before files held their format.
JOURNAL_FORMAT = 2  # films by relative keys, with the digest of their files; format 1 is not gone on with
RUN_FORMAT = 2  # of inference's run.json


class FormatError(ValueError):
    """A file of a format that this program does not know; the message names it and the remedy."""


def stamp(number: int) -> dict[str, Any]:
    """The format and program of a file, for its head."""
    return {"format": number, "program": __version__}


def check_format(path: str | Path, found: Any, newest: int, kind: str) -> int:
    """The format of a file, which holds ``found`` or, in old files, no format.

    Raises:
        FormatError: it is newer than ``newest``, or no whole number from 1.
    """
    number = 1 if found is None else found
    if type(number) is not int or number < 1:
        raise FormatError(f"{path}: its format is {found!r}, which no {kind} has; copy it again from its source")
    if number > newest:
        raise FormatError(
            f"{path}: a {kind} of format {number}, written by a newer program; this one reads formats up to {newest}: "
            "update the program"
        )
    return number
