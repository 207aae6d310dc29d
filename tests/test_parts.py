"""The shares of a run: which films are whose, and what is refused where they are put together."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from films import NamedFilm as Film

from mask_rcnn.run.folder import RunError
from mask_rcnn.run.parts import (
    FACTS,
    MERGE,
    Part,
    begin_part,
    end_part,
    finished_parts,
    link_or_copy,
    part_or_merge,
)
from mask_rcnn.system.formats import FormatError


FILMS = [Film(Path("/films"), f"{name}.png") for name in "abcdefg"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where three parts are done."""
    for number in (1, 2, 3):
        part = Part(number, 3)
        part.folder(tmp_path).mkdir()
        end_part(part.folder(tmp_path), part, 2, FILMS)
    return tmp_path


@pytest.mark.parametrize(("count", "batch", "of"), [(7, 2, 3), (100, 8, 7), (3, 8, 2), (10, 1, 10), (5, 2, 1)])
def test_every_film_is_of_one_part_and_batches_stay_whole(count: int, batch: int, of: int) -> None:
    parts = [Part(number, of) for number in range(1, of + 1)]
    owners = [[part.number for part in parts if part.has(place, batch)] for place in range(count)]
    assert all(len(owner) == 1 for owner in owners)
    assert all(owners[place] == owners[place - place % batch] for place in range(count))
    shares = [sum(owner == [part.number] for owner in owners) for part in parts]
    assert max(shares) - min(shares) <= batch


def test_the_option_takes_shares_and_merge() -> None:
    assert part_or_merge("2/3") == Part(2, 3) and part_or_merge(MERGE) == MERGE
    for wrong in ("0/3", "4/3", "1/0", "1", "1/", "-1/3", "1/3/3", "merged", "", "1.5/3"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be K/N"):
            part_or_merge(wrong)


def test_parts_that_are_done_are_found(out: Path) -> None:
    assert finished_parts(out, 2, FILMS) == [Part(1, 3), Part(2, 3), Part(3, 3)]
    (out / "part-x-of-3").mkdir()
    (out / "part-1-of-9").write_text("no folder")
    assert len(finished_parts(out, 2, FILMS)) == 3


def refusal(out: Path, batch: int = 2, films: list[Film] = FILMS) -> str:
    with pytest.raises(RunError) as caught:
        finished_parts(out, batch, films)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_make_a_whole_is_refused(out: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    nothing = tmp_path_factory.mktemp("nothing")
    assert refusal(nothing) == f"{nothing}: holds no parts; run the command with --part 1/N to N/N first"
    other = f"{out / 'part-1-of-3'}: made of other films than there are now, or with another --batch; "
    assert refusal(out, 3).startswith(other) and refusal(out, films=FILMS[:-1]).startswith(other)
    assert refusal(out, films=[*FILMS[1:], FILMS[0]]).startswith(other)
    begin_part(out / "part-2-of-3")
    begin_part(out / "part-2-of-3")
    assert refusal(out).startswith(f"{out / 'part-2-of-3'}: not done yet; run the command with --part 2/3, ")
    for torn in ("[]", "{", ""):
        (out / "part-2-of-3" / FACTS).write_text(torn)
        assert "not done yet" in refusal(out)
    (out / "part-2-of-3" / FACTS).unlink()
    (out / "part-2-of-3").rmdir()
    assert refusal(out) == f"{out}: part 2 of 3 is missing; run the command with --part 2/3"
    (out / "part-2-of-2").mkdir()
    assert refusal(out).startswith(f"{out}: holds parts of 2 and of 3, each film twice; ")


def test_a_part_of_a_newer_program_is_refused(out: Path) -> None:
    facts = out / "part-3-of-3" / FACTS
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 99}))
    with pytest.raises(FormatError, match="update the program"):
        finished_parts(out, 2, FILMS)


def test_a_file_is_linked_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"new")
    target.parent.mkdir()
    target.write_bytes(b"old")
    link_or_copy(source, target)
    assert target.samefile(source) and target.read_bytes() == b"new"
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    link_or_copy(source, target)
    assert target.read_bytes() == b"new" and not target.samefile(source)
    link_or_copy(tmp_path / "none", target)
    assert not target.exists(), "what the part has not"
