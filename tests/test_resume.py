"""A run that is killed, stopped or out of disk goes on where it was, and ends where an undisturbed one does."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in import STANDS_IN, DarkFields, draw_film, write_weights

from create_dataset import pipeline, run as dataset_run
from create_dataset.assemble import TABLE
from create_dataset.command import main
from create_dataset.run import JOURNAL
from create_dataset.sources import Source, find_films
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.films.known_groups import KNOWN_COPIES
from mask_rcnn.results.names import DATASET, PAGE, PAGE_FILES
from mask_rcnn.run.folder import sole_run
from mask_rcnn.run.journal import Journal

REPOSITORY = Path(__file__).resolve().parents[1]
FILMS = 20


@pytest.fixture(autouse=True)
def films_asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Puts the stand-in in the U-Net's place, and counts the films that it is asked about."""
    for replacement in STANDS_IN:
        monkeypatch.setattr(*replacement)
    asked: list[int] = []
    ask = pipeline.predict_votes

    def counted(members: Any, films: Sequence[pipeline.Film | None], batch: int) -> Any:
        asked.append(sum(film is not None for film in films))
        return ask(members, films, batch)

    monkeypatch.setattr(pipeline, "predict_votes", counted)
    return asked


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of some patients, one of them twice, and a file that is none."""
    folder = tmp_path_factory.mktemp("films") / "src"
    for k in range(FILMS - 1):
        draw_film(folder / ("NORMAL" if k % 2 else "PNEUMONIA") / f"person{k // 3}_virus_{k}.png", height=90 + k)
    shutil.copy(folder / "NORMAL" / "person1_virus_3.png", folder / "copy.png")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    return folder


def arguments_for(source: Path, out: Path, *more: str) -> list[str]:
    weights = out.parent / "dark.weights.h5"
    if not weights.exists():
        write_weights(weights)
    return ["--src", str(source), "--out", str(out), "--unet", str(weights), "--batch", "2", *more]


def outcome(out: Path) -> dict[str, str]:
    """All that a run wrote for others to read, but for when and how it was called."""
    texts = {name: (out / name).read_bytes().decode() for name in (DATASET, TABLE, PAGE, f"{PAGE_FILES}/index.js")}
    for name, text in texts.items():
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+00:00| UTC)", "WHEN", text)
        texts[name] = re.sub(r"create_dataset.py --src[^\"<]*", "COMMAND", text)
    return texts


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> dict[str, str]:
    out = source.parent / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        for replacement in STANDS_IN:
            patch.setattr(*replacement)
        assert main(arguments_for(source, out)) == 0
    assert len(read_dataset(out / DATASET)["images"]) == FILMS
    return outcome(out)


def films_in(journal: Path) -> list[str]:
    """The films of its whole lines, the one with the settings aside."""
    lines = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1]]
    return [line["film"] for line in lines if "film" in line]


def test_killed_twice_it_ends_as_if_undisturbed(source: Path, undisturbed: dict[str, str]) -> None:
    out = source.parent / "killed"
    arguments = arguments_for(source, out)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done: list[int] = []
    for at_least in (3, 9):
        process = subprocess.Popen([sys.executable, "tests/stand_in.py", *arguments], cwd=REPOSITORY, env=environment)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (out / JOURNAL).exists() and (out / JOURNAL).read_bytes().count(b"\n") > at_least + 1:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        assert process.wait(60) == -signal.SIGKILL
        assert not (out / DATASET).exists()
        done.append(len(films_in(out / JOURNAL)))
    assert 3 <= done[0] < 9 <= done[1] < FILMS
    assert main(arguments) == 0
    assert outcome(out) == undisturbed
    films = films_in(out / JOURNAL)
    assert len(films) == FILMS == len(set(films)), "nothing lost and nothing twice"
    assert (out / JOURNAL).read_bytes() == (source.parent / "undisturbed" / JOURNAL).read_bytes()


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the networks are at the batch after these."""
    left = [None] * batches
    answer = DarkFields.predict_on_batch

    def predict_on_batch(self: DarkFields, inputs: np.ndarray) -> np.ndarray:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return answer(self, inputs)

    monkeypatch.setattr(DarkFields, "predict_on_batch", predict_on_batch)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    source: Path, undisturbed: dict[str, str], films_asked: list[int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = source.parent / "stopped"
    arguments = arguments_for(source, out)
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        assert main(arguments) == 130
    assert "goes on" in capsys.readouterr().err.splitlines()[-1]
    stopped = read_dataset(out / DATASET)
    assert 0 < len(stopped["images"]) == stopped["info"]["counts"]["films"] < FILMS
    assert (out / PAGE).exists() and (out / TABLE).exists()

    films_asked.clear()
    assert main(arguments) == 0
    done = len(stopped["images"])
    assert f"{done} of {FILMS + 1} films are done already" in capsys.readouterr().err
    assert sum(films_asked) == FILMS - done
    assert outcome(out) == undisturbed


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to make any file larger, as it refuses any on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("full_at", [JOURNAL, DATASET, TABLE, PAGE])
def test_out_of_disk_nothing_is_lost(
    full_at: str, source: Path, undisturbed: dict[str, str], films_asked: list[int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Full while the journal is written; or later, as if the results before had been put on another disk."""
    out = source.parent / f"full at {full_at}"
    arguments = arguments_for(source, out)
    written = {DATASET: "write_dataset", TABLE: "write_table", PAGE: "write_report"}
    with monkeypatch.context() as patch:
        if full_at == JOURNAL:
            with files_of_at_most(len(undisturbed[DATASET]) // 3):
                status = main(arguments)
        else:
            work = getattr(dataset_run, written[full_at])

            def on_full_disk(*given: Any) -> None:
                with files_of_at_most(500):
                    work(*given)

            patch.setattr(dataset_run, written[full_at], on_full_disk)
            status = main(arguments)
    assert status == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors and "check --out and the disk" in errors.splitlines()[-1]
    assert not (out / full_at).exists() or full_at == JOURNAL
    assert not list(out.glob(".*")), "no partial file is left to fill the disk"
    done = len(films_in(out / JOURNAL))
    assert (0 < done < FILMS) if full_at == JOURNAL else done == FILMS

    films_asked.clear()
    assert main(arguments) == 0
    assert sum(films_asked) == FILMS - done
    assert outcome(out) == undisturbed


def test_the_answers_do_not_depend_on_batches_and_order(source: Path, undisturbed: dict[str, str]) -> None:
    out = source.parent / "another order"
    roots = sorted((path for path in source.iterdir()), reverse=True)
    assert main(["--src", *map(str, roots), *arguments_for(source, out, "--batch", "7")[2:]]) == 0
    found = read_dataset(out / DATASET)
    expected = read_dataset(source.parent / "undisturbed" / DATASET)

    def masks(dataset: dict[str, Any]) -> dict[tuple[str, int], Any]:
        names = {image["id"]: Path(image["file_name"]).name for image in dataset["images"]}
        return {(names[a["image_id"]], a["category_id"]): a["segmentation"] for a in dataset["annotations"]}

    assert masks(found) == masks(expected) and len(masks(found)) > FILMS

    def measures(dataset: dict[str, Any]) -> dict[str, Any]:
        kept = ("height", "width", "label", "patient", "inverted", "quality", "agreement")
        return {Path(image["file_name"]).name: [image[key] for key in kept] for image in dataset["images"]}

    assert measures(found) == measures(expected)


def test_only_what_changed_is_done_again(
    source: Path, films_asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = shutil.copytree(source, tmp_path / "src")
    arguments = arguments_for(films, tmp_path / "out")
    assert main(arguments) == 0
    assert sum(films_asked) == FILMS
    assert main(arguments) == 0
    assert sum(films_asked) == FILMS, "the second run had nothing to do"

    mended, changed, gone = films / "torn.png", films / "copy.png", films / "NORMAL" / "person0_virus_1.png"
    draw_film(mended, height=50)
    shutil.copy(draw_film(tmp_path / "other.png", height=70), changed)
    gone.unlink()
    added = draw_film(films / "PNEUMONIA" / "added.png", height=60)
    ids = {image["file_name"]: image["id"] for image in read_dataset(tmp_path / "out" / DATASET)["images"]}
    assert main(arguments) == 0
    assert sum(films_asked) == FILMS + 3
    images = {image["file_name"]: image for image in read_dataset(tmp_path / "out" / DATASET)["images"]}
    assert len(images) == FILMS + 1
    heights = {path: images[path.relative_to(films).as_posix()]["height"] for path in (mended, changed, added)}
    assert heights == {mended: 50, changed: 70, added: 60}
    assert all(images[name]["id"] == ids[name] for name in ids if name in images), "ids stay"

    capsys.readouterr()
    assert main([*arguments, "--laterality", "image"]) == 0
    assert "beginning anew" in capsys.readouterr().err
    assert sum(films_asked) == FILMS + 3 + FILMS + 1
    assert read_dataset(tmp_path / "out" / DATASET)["info"]["laterality"] == "image"
    (kept,) = (tmp_path / "out").glob("earlier-*")
    assert len(set(films_in(kept / JOURNAL))) == FILMS + 2, "a mistake does not cost a night"
    assert {path.name for path in kept.iterdir()} == {JOURNAL, DATASET, TABLE, PAGE, PAGE_FILES}
    assert main([*arguments, "--laterality", "patient"]) == 0  # and neither does a second one
    assert len(list((tmp_path / "out").glob("earlier-*"))) == 2
    assert len(set(films_in(kept / JOURNAL))) == FILMS + 2


@pytest.mark.parametrize("how", ["both", "films renamed", "to another machine"])
def test_moved_films_are_not_asked_about_again(
    how: str, source: Path, undisturbed: dict[str, str], films_asked: list[int], tmp_path: Path
) -> None:
    films, out = Path(shutil.copytree(source, tmp_path / "one" / "src")), tmp_path / "one" / "out"
    assert main(arguments_for(films, out)) == 0
    before = read_dataset(out / DATASET)
    films_asked.clear()
    if how == "both":
        (tmp_path / "one").rename(tmp_path / "two")
        films, out = tmp_path / "two" / "src", tmp_path / "two" / "out"
    elif how == "films renamed":
        films = films.rename(tmp_path / "one" / "films of 2026")
    else:  # by a copy that keeps no times
        films = Path(shutil.copytree(films, tmp_path / "there" / "data" / "src", copy_function=shutil.copyfile))
        out = Path(shutil.copytree(out, tmp_path / "there" / "out"))
        for name in ("dark.weights.h5", "one"):
            shutil.move(tmp_path / "one" / name if name != "one" else tmp_path / "one", tmp_path / "there" / f"old {name}")
    assert main(arguments_for(films, out)) == 0
    assert films_asked == []
    after = read_dataset(out / DATASET)
    for image in (*before["images"], *after["images"]):
        del image["collection"]  # named after the folder
    assert after["images"] == before["images"] and after["annotations"] == before["annotations"]
    assert all((out / after["info"]["roots"][image["root"]] / image["file_name"]).is_file() for image in after["images"])
    table = outcome(out)[TABLE].replace("films of 2026", "src").replace("../data/src", "../src")
    assert table == undisturbed[TABLE]


def test_other_folders_leave_the_dataset_alone(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    first, second = (draw_film(tmp_path / name / "a.png").parent for name in ("first", "second"))
    results = {}
    for number, roots in enumerate(([first], [first, second], [second], [second], [first])):
        before = (out / DATASET).read_bytes() if number else b""
        assert main(["--src", *map(str, roots), *arguments_for(first, out)[2:]]) == 0
        results[number] = before
        names = {image["file_name"] for image in read_dataset(out / DATASET)["images"]}
        assert names == {"a.png"} and len(read_dataset(out / DATASET)["info"]["roots"]) == len(roots)
    kept = {(path / DATASET).read_bytes() for path in out.glob("earlier-*")}
    # Kept are the dataset of both folders and then that of the second; what was only added to was not.
    assert kept == {results[2], results[4]}
    assert "made of other folders too (first)" in (errors := capsys.readouterr().err)
    assert "made of other folders too (second)" in errors


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00", b"[1, 2]\n{}\n", b'{"settings": null}\n{"film": 3}\n'])
def test_a_journal_of_junk_is_begun_anew(junk: bytes, tmp_path: Path) -> None:
    draw_film(tmp_path / "src" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_bytes(junk)
    assert main(arguments_for(tmp_path / "src", tmp_path / "out")) == 0
    assert read_dataset(tmp_path / "out" / DATASET)["info"]["counts"]["films"] == 1


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    entry = {"id": 7, "version": [1, 2], "digest": "d", "measures": {}}
    one, two = (Source(tmp_path, name, "", "", "", "") for name in ("one", "two"))

    def opened() -> Journal:
        journal = Journal(path, {"a": 1})
        journal.find_roots([tmp_path])
        return journal

    with opened() as journal:
        journal.add(two, entry)
        before = path.read_bytes()
        journal.add(one, entry)
    whole = path.read_bytes()
    for cut in range(1, len(whole) - len(before) + 1):
        path.write_bytes(whole[:-cut])
        with opened() as journal:
            assert one not in journal
            journal.add(one, entry)
        assert path.read_bytes() == whole, "as if nothing had happened"
    with opened() as journal:
        assert one in journal and two in journal and journal.read(one) == {"film": f"{tmp_path.name}//one", **entry}


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_film(tmp_path / "src" / "a.png")
    (tmp_path / "out").mkdir()
    with sole_run(tmp_path / "out"):
        assert main(arguments_for(tmp_path / "src", tmp_path / "out")) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "another run" in errors[0] and "; " in errors[0]
    assert main(arguments_for(tmp_path / "src", tmp_path / "out")) == 0


def test_one_film_does_not_end_the_night(
    source: Path, films_asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A fault of the program, or too little memory, costs the film alone; it is tried again."""
    arguments = arguments_for(source, tmp_path / "out")
    faults = {90: ZeroDivisionError("by nothing"), 91: MemoryError()}
    measured = pipeline.fingerprint

    def fingerprint(film: np.ndarray, lungs: Any) -> str:
        if len(film) in faults:
            raise faults[len(film)]
        return measured(film, lungs)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "fingerprint", fingerprint)
        assert main(arguments) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert len(told) == 3 and all("; " in line for line in told)
    assert sum("ZeroDivisionError: by nothing" in line for line in told) == sum("memory" in line for line in told) == 1
    assert read_dataset(tmp_path / "out" / DATASET)["info"]["counts"]["skipped"] == 3
    films_asked.clear()
    assert main(arguments) == 0
    assert sum(films_asked) == 2


def test_few_films_are_in_memory(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []
    read = pipeline.read

    def counted(film: Any) -> pipeline.Film:
        started.append(film.path)
        return read(film)

    monkeypatch.setattr(pipeline, "read", counted)
    sources = [film for film in find_films(source) if film.path.stem != "torn"]
    finished = 0
    for _ in pipeline.find_all_lungs(enumerate(sources), [DarkFields()], 2, "patient", pytest.fail):
        time.sleep(0.02)  # a slow disk for the journal
        assert len(started) - finished <= 3 * 2 + 1
        finished += 1
    assert finished == FILMS == len(set(started))


def test_parts_come_to_the_bytes_of_one_run(
    source: Path, undisturbed: dict[str, str], films_asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = source.parent / "parts"
    arguments = arguments_for(source, out)
    merge = [*arguments, "--part", "merge"]
    assert main(merge) == 1
    assert "holds no parts; run the command with --part 1/N to N/N first" in capsys.readouterr().err
    for number in (3, 1):
        assert main([*arguments, "--part", f"{number}/3"]) == 0
    assert "part 1 of 3 is done, 8 films; --part merge puts all parts together" in capsys.readouterr().out
    assert not (out / DATASET).exists()
    assert main(merge) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"{out}: part 2 of 3 is missing; run the command with --part 2/3"
    assert main([*arguments, "--part", "2/3"]) == 0
    assert sum(films_asked) == FILMS, "each film once"
    journals = [films_in(out / f"part-{number}-of-3" / JOURNAL) for number in (1, 2, 3)]
    assert sorted(map(len, journals)) == [6, 6, 8] and len({film for journal in journals for film in journal}) == FILMS
    assert main([*arguments, "--part", "2/3"]) == 0 and main(merge) == 0
    assert sum(films_asked) == FILMS
    assert outcome(out) == undisturbed
    assert [path.relative_to(out).as_posix() for path in out.rglob(KNOWN_COPIES)] == [KNOWN_COPIES]
    assert main(merge) == 0 and main(arguments) == 0 and sum(films_asked) == FILMS, "the whole run goes on as any other"
    assert outcome(out) == undisturbed


def test_parts_of_other_networks_or_films_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "src"
    shutil.copytree(source / "NORMAL", films)
    arguments = arguments_for(films, tmp_path / "out")
    for number in (1, 2):
        assert main([*arguments, "--part", f"{number}/2"]) == 0
    assert main([*arguments, "--part", "merge", "--laterality", "image"]) == 1
    assert "made with other weights or settings than those given now" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / DATASET).exists()
    draw_film(films / "one_more.png")
    assert main([*arguments, "--part", "merge"]) == 1
    assert "made of other films than there are now" in capsys.readouterr().err.splitlines()[-1]
    for number in (1, 2):
        assert main([*arguments, "--part", f"{number}/2"]) == 0
    assert main([*arguments, "--part", "merge"]) == 0
    assert len(read_dataset(tmp_path / "out" / DATASET)["images"]) == len(list(films.iterdir()))
