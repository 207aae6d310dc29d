"""What the three command lines share: synopsis, help, version, unknown options, paths; through their ``main``s."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from create_dataset import command as create_dataset_command
from mask_rcnn.commands import inference as inference_command, train as train_command
from mask_rcnn.system.paths import PathError, expand_files, expand_paths
from mask_rcnn.version import __version__

Main = Callable[[Sequence[str]], int]
COMMANDS = {
    "create_dataset.py": create_dataset_command.main, "train.py": train_command.main, "inference.py": inference_command.main,
}
EVERY_COMMAND = pytest.mark.parametrize(("name", "main"), COMMANDS.items(), ids=COMMANDS)


def end_of(main: Main, *argv: str) -> int:
    """The exit status where argparse ends the command."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@EVERY_COMMAND
def test_without_arguments_a_synopsis(name: str, main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(main) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 4
    assert lines[0].startswith(f"usage: {name} --") and lines[2].startswith(f"example: {name} --")
    assert lines[3] == f"{name} --help lists all options"


@EVERY_COMMAND
def test_help_has_defaults_an_example_and_the_exit_statuses(
    name: str, main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(main, "--help") == 0
    shown = capsys.readouterr().out
    assert f"  {name} --" in shown[shown.index("examples:"):]
    statuses = re.findall(r"^  (\d+) ", shown[shown.index("exit status:"):], re.MULTILINE)
    assert statuses == ["0", "1", "2", "130"]
    options = shown[:shown.index("examples:")]
    for option in ("--device", "--out"):
        assert "(default: " in options[options.index(f"  {option} "):].split("\n  --")[0], option
    assert all(option in options for option in ("-q, --quiet", "-v, --verbose", "--version", "--set"))
    assert max(map(len, shown.splitlines())) <= 125


@EVERY_COMMAND
def test_version(name: str, main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(main, "--version") == 0
    assert capsys.readouterr().out == f"{name} {__version__}\n"


@pytest.mark.parametrize(("name", "argv", "line"), [
    ("inference.py", ["--wieghts", "x.h5"], "unknown option --wieghts; did you mean --weights?"),
    ("inference.py", ["--src", "a", "-weights", "x.h5"], "unknown option -weights; did you mean --weights?"),
    ("inference.py", ["--ouput=x"], "unknown option --ouput; did you mean --out?"),
    ("inference.py", ["--zzzz"], "unknown option --zzzz;"),
    ("train.py", ["--confg", "a.yaml"], "unknown option --confg; did you mean --config?"),
    ("create_dataset.py", ["--source", "a"], "unknown option --source; did you mean --src?"),
    ("create_dataset.py", ["--out", "a"], "the following arguments are required: --src;"),
    ("inference.py", ["--src", "a", "-q", "-v"], "argument -v/--verbose: not allowed with argument -q/--quiet;"),
    ("inference.py", ["--device", "tpu"], "argument --device: must be auto, cpu, gpu or gpu:N, not tpu;"),
    ("create_dataset.py", ["--src", "a", "--device", "gpu:"],
     "argument --device: must be auto, cpu, gpu or gpu:N, not gpu:;"),
    ("inference.py", ["--batch", "0"], "argument --batch: must be a whole number from 1, not 0;"),
    ("inference.py", ["--save", "masks,overlay"],
     "argument --save: unknown 'overlay' of masks, overlays, probabilities, dicom-seg, dicom-sr, page; "
     "did you mean overlays?"),
])  # fmt: skip
def test_a_wrong_command_line_gets_one_line(
    name: str, argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(COMMANDS[name], *argv) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{name}: {line} {name} --help lists all options\n")


def test_old_ways_to_write_a_command_line() -> None:
    arguments = inference_command.parse(["--weight", "a.h5", "b.h5", "--src=x", "--set", "bag.min_agreement=-1", "-q"])
    assert (arguments.weights, arguments.src, arguments.verbosity) == (["a.h5", "b.h5"], ["x"], -1)
    assert arguments.out == Path("results") and arguments.device == "auto"
    assert arguments.save == ["masks", "overlays", "page"]
    several = inference_command.parse(["--src", "a", "b", "--src", "c", "--save", "overlays,masks", "-v"])
    assert several.src == ["a", "b", "c"] and several.save == ["masks", "overlays"] and several.verbosity == 1


def test_paths_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("models/b.weights.h5", "models/a.hdf5", "models/a.yaml", "models/unet/c.h5", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    models = tmp_path / "models"
    endings = (".h5", ".hdf5")
    in_folder = [str(models / name) for name in ("a.hdf5", "b.weights.h5")]
    assert expand_files([models], "--weights", endings) == in_folder
    assert expand_files([f"{models}/*", models / "a.hdf5"], "--weights", endings) == [
        in_folder[0], str(models / "a.yaml"), in_folder[1], in_folder[0]], "what a pattern matches, without folders"
    assert expand_paths([f"{tmp_path}/*", models], "--src") == [str(tmp_path / "empty"), str(models), str(models)]
    (tmp_path / "[1].png").touch()  # a name that looks like a pattern
    assert expand_paths([tmp_path / "[1].png"], "--src") == [str(tmp_path / "[1].png")]
    for pattern, reason in {
        tmp_path / "empty": "holds no *.h5 or *.hdf5; check the folder given to --weights",
        tmp_path / "absent.h5": "there is no such file or folder; check the path given to --weights",
        tmp_path / "absent*": "matches no file; check the pattern given to --weights",
    }.items():
        with pytest.raises(PathError, match=re.escape(f"{pattern}: {reason}")):
            expand_files([models, pattern], "--weights", endings)
