"""Orientation and view in a DICOM header: they turn a film upright, and raise doubts for a person's review.

Shapes
    film  [height, width]
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

# The directions of a film's rows and columns in the patient (PS3.3, C.7.6.1.1.1): L and R the patient's left and right,
# H and F head and feet; whether the film is to be mirrored, left for right, and by how many right angles it is then to be
# turned, counterclockwise, so that it lies as a frontal film is read: L\F, the patient's left on the right, the feet below.
_UPRIGHT: dict[tuple[str, ...], tuple[bool, int]] = {
    ("L", "F"): (False, 0), ("R", "F"): (True, 0),
    ("R", "H"): (False, 2), ("L", "H"): (True, 2),
    ("F", "R"): (False, 3), ("H", "R"): (True, 3),
    ("H", "L"): (False, 1), ("F", "L"): (True, 1),
}  # fmt: skip
_TURNED = ("", "turned by 90 degrees counterclockwise", "turned by 180 degrees", "turned by 90 degrees clockwise")
_WORDS = {
    (mirrored, turns): " and ".join(filter(None, ["mirrored" * mirrored, _TURNED[turns]]))
    for mirrored in (False, True) for turns in range(4)
}  # fmt: skip
_DIRECTION = re.compile(r"(?=[APRLHF]{1,3}$)(?!.*A.*P|.*P.*A|.*R.*L|.*L.*R|.*H.*F|.*F.*H|.*(.).*\1)")

# View positions (CR and DX defined terms, PS3.3, C.8.1.2 and C.8.11.5) and what else is written there. In decubitus (LLD,
# RLD) the patient lies on a side, the beam is horizontal, and the film frontal.
_LATERAL = re.compile(r"\b(LL|RL|ML|LM|[LR]?LATL?|LATERALS?|[LR] ?LATERAL|MEDIOLATERAL|LATEROMEDIAL)\b")
_OBLIQUE = re.compile(r"\b([LR][LAP]O|OBL|[LR]?OBLIQUES?|MLO|LMO)\b")
_DECUBITUS = re.compile(r"\b([LR]LD|DECUB\w*)")


def upright(film: np.ndarray, spacing: tuple[float, float] | None, dataset: Dataset) -> tuple[
    np.ndarray, tuple[float, float] | None, str
]:
    """A film turned by its PatientOrientation, its spacing with it, and in words what was done.

    The words: "" for nothing, "mirrored" (left for right), "turned by 180 degrees", "turned by 90 degrees clockwise",
    "turned by 90 degrees counterclockwise", and "mirrored and turned by ..." for the three of them, mirrored first.
    A film whose orientation is absent, not frontal or nonsense is left as it lies.
    """
    how = _UPRIGHT.get(_directions(dataset), (False, 0))
    if spacing and how[1] % 2:
        spacing = spacing[::-1]
    return _turn(film, *how), spacing, _WORDS[how]


def turn_likewise(labels: np.ndarray, turned: str) -> np.ndarray:
    """A mask of the film as it is stored, on the film as ``upright`` has turned it; ``turned`` are its words."""
    return _turn(labels, *next(how for how, words in _WORDS.items() if words == turned))


def turn_back(labels: np.ndarray, turned: str) -> np.ndarray:
    """A mask of the film as ``upright`` has turned it, on the film as it is stored: ``turn_likewise`` the other way."""
    mirrored, turns = next(how for how, words in _WORDS.items() if words == turned)
    back = np.rot90(labels, -turns)
    return np.ascontiguousarray(back[:, ::-1] if mirrored else back)


def _turn(pixels: np.ndarray, mirrored: bool, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def doubts_of(dataset: Dataset) -> tuple[str, ...]:
    """Reasons in the header, in words, why this is no upright frontal film with both lungs.

    A lateral or an oblique view (ViewPosition, ViewCodeSequence, PatientOrientation), one side alone (Laterality,
    ImageLaterality), an orientation that cannot be understood, and pixels that were flipped (FieldOfViewHorizontalFlip;
    PS3.3, C.8.11.4) without an orientation.
    """
    doubts = [*_doubts_of_view(dataset), *_doubts_of_orientation(dataset)]
    for name in ("Laterality", "ImageLaterality"):
        if (side := _text(dataset, name)) in ("L", "R"):
            doubts.append(f"one side only by its {name} ({side})")
    flipped = _text(dataset, "FieldOfViewHorizontalFlip") == "YES"
    if flipped and _directions(dataset) not in _UPRIGHT:
        doubts.append("perhaps mirrored: its FieldOfViewHorizontalFlip is YES, and no PatientOrientation tells how it lies")
    return tuple(doubts)


def _doubts_of_view(dataset: Dataset) -> list[str]:
    codes = dataset.get("ViewCodeSequence") or []
    told = [("ViewPosition", _text(dataset, "ViewPosition"))]
    told += [("ViewCodeSequence", _text(code, "CodeMeaning")) for code in codes]
    for name, view in told:
        words = re.sub(r"[^A-Z]+", " ", re.sub(r"(?<=MEDIO)-(?=LATERAL)|(?<=LATERO)-(?=MEDIAL)", "", view))
        if _DECUBITUS.search(words):
            continue
        if _OBLIQUE.search(words):
            return [f"an oblique film by its {name} ({view})"]
        if _LATERAL.search(words):
            return [f"a lateral film by its {name} ({view})"]
    return []


def _doubts_of_orientation(dataset: Dataset) -> list[str]:
    told = _text(dataset, "PatientOrientation")
    directions = _directions(dataset)
    if not told.strip("\\ ") or directions in _UPRIGHT:
        return []
    axes = {"A": "AP", "P": "AP", "R": "LR", "L": "LR", "H": "HF", "F": "HF"}
    lie = {axes[direction] for direction in directions}
    if lie == {"AP", "HF"}:
        return [f"a lateral film by its PatientOrientation ({told})"]
    if lie == {"AP", "LR"}:
        return [f"no frontal film by its PatientOrientation ({told})"]
    return [f"its PatientOrientation ({told}) cannot be understood"]


def _directions(dataset: Dataset) -> tuple[str, ...]:
    """The main directions of rows and columns: the first letter of each; () where they are absent or nonsense."""
    values = [value.strip() for value in _text(dataset, "PatientOrientation").split("\\")]
    if len(values) != 2 or not all(_DIRECTION.match(value) for value in values):
        return ()
    return values[0][0], values[1][0]


def _text(dataset: Dataset, name: str) -> str:
    """An attribute in capitals, several values with backslashes between, as the file has them; "" where it is absent."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom decodes a value on access, and trusts the file
        return ""
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    told = "\\".join("" if value is None else str(value).strip() for value in values)
    return re.sub(r"[^\x20-\x7e]+", " ", told).strip().upper()[:64]
