"""How a film lies and what it shows by its DICOM header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film_of, write_dicom
from PIL import Image
from pydicom.dataset import Dataset

from mask_rcnn.films.orientation import doubts_of, upright
from mask_rcnn.films.radiograph import read_film, read_radiograph

# Headers hold what the standard does not allow.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")

# Of an upright film: the way it is stored under each orientation, and what is done to turn it back.
STORED: dict[tuple[str, str], tuple[Any, str]] = {
    ("L", "F"): (lambda film: film, ""),
    ("R", "F"): (np.fliplr, "mirrored"),
    ("R", "H"): (lambda film: np.rot90(film, 2), "turned by 180 degrees"),
    ("L", "H"): (np.flipud, "mirrored and turned by 180 degrees"),
    ("F", "R"): (np.rot90, "turned by 90 degrees clockwise"),
    ("H", "L"): (lambda film: np.rot90(film, 3), "turned by 90 degrees counterclockwise"),
    ("F", "L"): (np.transpose, "mirrored and turned by 90 degrees counterclockwise"),
    ("H", "R"): (lambda film: np.rot90(film, 2).T, "mirrored and turned by 90 degrees clockwise"),
}
# By its words alone: how many right angles counterclockwise.
TURNS = {"clockwise": 3, "counterclockwise": 1, "degrees": 2, "mirrored": 0, "": 0}


@pytest.mark.parametrize("orientation", STORED)
def test_a_film_is_turned_upright_as_its_header_says(tmp_path: Path, orientation: tuple[str, str]) -> None:
    store, turned = STORED[orientation]
    stored = np.ascontiguousarray(store(film_of()))
    spacing = [0.2, 0.1] if stored.shape == film_of().shape else [0.1, 0.2]
    told = {"PatientOrientation": list(orientation), "PixelSpacing": spacing}
    path = write_dicom(tmp_path / "film.dcm", stored, "MONOCHROME2", 8, **told)
    film = read_radiograph(path)
    np.testing.assert_array_equal(film.pixels, film_of())
    assert film.pixels.flags.c_contiguous
    assert (film.spacing, film.turned, film.doubts) == ((0.2, 0.1), turned, ())
    np.testing.assert_array_equal(read_film(path), film_of())
    by_words = np.fliplr(stored) if turned.startswith("mirrored") else stored
    np.testing.assert_array_equal(np.rot90(by_words, TURNS[turned.rpartition(" ")[2]]), film_of())


def test_the_patient_s_left_comes_to_the_right() -> None:
    """Letter by letter: walking along the rows of an upright film one goes to the left of the patient, down to the feet."""
    rows, columns = np.indices((3, 5))
    for orientation in STORED:
        place = {"L": columns, "R": 4 - columns, "F": rows, "H": 2 - rows}  # of each pixel of an upright film
        first, second = (place[letter] for letter in orientation)
        stored = np.zeros((second.max() + 1, first.max() + 1), int)
        stored[second, first] = np.arange(15).reshape(3, 5)
        dataset = Dataset()
        dataset.PatientOrientation = list(orientation)
        np.testing.assert_array_equal(upright(stored, None, dataset)[0], np.arange(15).reshape(3, 5))


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(["LF", "FR"], ""), (["LA", "F"], ""), (["L", "FP"], ""), (["RFA", "FLA"], "mirrored"), (["r ", "f"], "mirrored")],
)
def test_of_a_tilted_film_the_main_direction_counts(orientation: list[str], turned: str) -> None:
    dataset = header(PatientOrientation=orientation)
    assert upright(film_of(), None, dataset)[2] == turned and doubts_of(dataset) == ()


@pytest.mark.parametrize(
    ("orientation", "doubts"),
    [
        (None, ()),
        ("", ()),
        (["", ""], ()),
        (["A", "F"], ("a lateral film by its PatientOrientation (A\\F)",)),
        (["P", "F"], ("a lateral film by its PatientOrientation (P\\F)",)),
        (["H", "P"], ("a lateral film by its PatientOrientation (H\\P)",)),
        (["PL", "FR"], ("a lateral film by its PatientOrientation (PL\\FR)",)),
        (["L", "P"], ("no frontal film by its PatientOrientation (L\\P)",)),
        *(
            (nonsense, ("its PatientOrientation (" + "\\".join(nonsense) + ") cannot be understood",))
            for nonsense in (["L", "R"], ["F", "F"], ["L"], ["L", "F", "P"], ["LR", "F"], ["LE", "CD"], ["L", ""],
                             ["LL", "F"], ["1", "0"], ["LEFT", "FOOT"], ["LF", "HF"])
        ),
    ],
)  # fmt: skip
def test_orientations_that_are_not_frontal_turn_nothing(orientation: Any, doubts: tuple[str, ...]) -> None:
    dataset = header(PatientOrientation=orientation)
    film, spacing, turned = upright(film_of(), (0.2, 0.1), dataset)
    np.testing.assert_array_equal(film, film_of())
    assert (spacing, turned) == ((0.2, 0.1), "")
    assert doubts_of(dataset) == doubts


LATERAL = ("LL", "RL", "LAT", "LATERAL", "LT LATERAL", "L LAT", "LLAT", "LEFT LATERAL", "lateral", "R-LATERAL", "PA_LAT",
           "ML")  # fmt: skip
OBLIQUE = ("LLO", "RLO", "LPO", "RPO", "LAO", "RAO", "OBLIQUE", "OBL", "LEFT OBLIQUE", "PA OBLIQUE", "MLO")
FRONTAL = ("", None, "PA", "AP", "pa", "LLD", "RLD", "PA AXIAL", "LORDOTIC", "AP SUPINE", "LATERAL DECUB",
           "FRONTAL", "BILATERAL", "CLAPMLX")  # fmt: skip


@pytest.mark.parametrize("view", [*LATERAL, *OBLIQUE, *FRONTAL])
def test_view_positions(view: str | None) -> None:
    kind = "a lateral" if view in LATERAL else "an oblique"
    expected = () if view in FRONTAL else (f"{kind} film by its ViewPosition ({str(view).upper()})",)
    assert doubts_of(header(ViewPosition=view)) == expected


@pytest.mark.parametrize(
    ("meaning", "kind"),
    [("left lateral", "a lateral"), ("Medio-lateral", "a lateral"), ("postero-anterior", ""), ("antero-posterior", ""),
     ("right posterior oblique", "an oblique"), ("left lateral decubitus", ""), ("Lateral projection", "a lateral")],
)  # fmt: skip
def test_view_codes(meaning: str, kind: str) -> None:
    doubts = (f"{kind} film by its ViewCodeSequence ({meaning.upper()})",) if kind else ()
    assert doubts_of(header(ViewCodeSequence=[header(CodeMeaning=meaning)])) == doubts
    assert doubts_of(header(ViewCodeSequence=[])) == doubts_of(header(ViewCodeSequence=[Dataset()])) == ()


def test_a_view_is_doubted_once() -> None:
    both = header(ViewPosition="LL", ViewCodeSequence=[header(CodeMeaning="left lateral")])
    assert doubts_of(both) == ("a lateral film by its ViewPosition (LL)",)


@pytest.mark.parametrize("name", ["Laterality", "ImageLaterality"])
def test_one_side_only(name: str) -> None:
    for side in ("L", "R"):
        assert doubts_of(header(**{name: side})) == (f"one side only by its {name} ({side})",)
    for side in ("B", "U", "", None):
        assert doubts_of(header(**{name: side})) == ()


def test_a_flip_is_doubted_where_no_orientation_decides() -> None:
    (doubt,) = doubts_of(header(FieldOfViewHorizontalFlip="YES"))
    assert doubt.startswith("perhaps mirrored") and "FieldOfViewHorizontalFlip" in doubt
    assert doubts_of(header(FieldOfViewHorizontalFlip="NO")) == ()
    for orientation in (["L", "F"], ["R", "F"]):
        assert doubts_of(header(FieldOfViewHorizontalFlip="YES", PatientOrientation=orientation)) == ()
    assert len(doubts_of(header(FieldOfViewHorizontalFlip="YES", PatientOrientation=["X", "F"]))) == 2


def test_doubts_come_with_the_film_and_raster_films_have_none(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", film_of(), "MONOCHROME2", 8, ViewPosition="LL", Laterality="L",
                       PatientOrientation=["P", "F"])  # fmt: skip
    film = read_radiograph(path)
    assert (film.turned, len(film.doubts)) == ("", 3) and all("\n" not in doubt for doubt in film.doubts)
    Image.fromarray(film_of()).save(tmp_path / "film.png")
    assert read_radiograph(tmp_path / "film.png")[1:] == (None, "", (), None)
