"""What a command prints ends no run: names that the terminal cannot show, and readers that have gone."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from script import ROOT

from mask_rcnn.system import console
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.progress import progress, warn

NAMES = [b"zwei w\xc3\xb6rter \xc3\xbc.png", b"bytes \xff\xfe.png"]


def run(code: str, *arguments: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = f"import sys; from mask_rcnn.system.console import forgiving_streams; forgiving_streams(); {code}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_every_name_is_written(encoding: str) -> None:
    code = "from tqdm import tqdm; print(*sys.argv[1:], sep='\\n'); tqdm.write(sys.argv[2], file=sys.stderr)"
    done = run(code, *NAMES, PYTHONIOENCODING=encoding, PYTHONUTF8="1")
    words = "wörter ü".encode(encoding, "backslashreplace")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [b"zwei " + words + b".png", b"bytes \\udcff\\udcfe.png"]
    assert done.stderr.splitlines() == [b"bytes \\udcff\\udcfe.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_command_prints_a_folder_of_any_name(tmp_path: Path, name: bytes) -> None:
    out = os.path.join(os.fsencode(tmp_path), name)
    command = [sys.executable, "scripts/make_phantoms.py", "--count", "1", "--size", "64", "--out", out]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"1 films in" in done.stdout
    assert os.listdir(os.path.join(out, b"images")) == [b"phantom_0001.png"]


@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_a_run_goes_on_when_nobody_reads_it_any_more(tmp_path: Path, where: str) -> None:
    """The reader takes one line and goes, and 10,000 more are written: more than any pipe holds."""
    code = (
        "import sys, pathlib; from mask_rcnn.system.console import forgiving_streams; forgiving_streams();"
        f"[print('line', k, file=sys.{where}, flush=True) for k in range(10000)]; pathlib.Path(sys.argv[1]).touch()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "end")], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    left, other = (process.stdout, process.stderr) if where == "stdout" else (process.stderr, process.stdout)
    assert left.readline() == "line 0\n"
    left.close()
    assert other.read() == ""
    other.close()
    assert process.wait(60) == 0
    assert (tmp_path / "end").exists()


@pytest.mark.parametrize("unbuffered", [True, False])
def test_what_is_printed_comes_at_once_where_it_did(unbuffered: bool) -> None:
    """Without ``-u`` a pipe gets what is printed when the buffer is full or the process ends."""
    code = (
        "import os; from mask_rcnn.system.console import forgiving_streams; forgiving_streams();"
        "print('printed'); os.write(1, b'written ')"
    )
    command = [sys.executable, *(["-u"] if unbuffered else []), "-c", code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown == ("printed\nwritten " if unbuffered else "written printed\n")


def test_streams_of_others_stay_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    text, wrapped = io.StringIO(), io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", text)
    monkeypatch.setattr(sys, "stderr", wrapped)
    forgiving_streams()
    assert sys.stdout is text and sys.stderr is wrapped
    print("ü", file=sys.stderr, flush=True)
    assert wrapped.buffer.getvalue() == b"\\xfc\n"


def test_a_process_without_streams() -> None:
    code = "from mask_rcnn.system.console import forgiving_streams; forgiving_streams(); print(1)"
    done = subprocess.run(f"'{sys.executable}' -c '{code}' >&- 2>&-", shell=True, cwd=ROOT)
    assert done.returncode == 0


def test_what_is_shown_by_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> tuple[str, str]:
        console.inform("informed")
        console.note("noted")
        console.detail("detailed")
        with console.step("loading"):
            pass
        warn("warned")
        return tuple(capsys.readouterr())

    with console.console(console.QUIET):
        assert work() == ("", "warned\n") and list(progress(range(3), name="films")) == [0, 1, 2]
        assert progress(name="films", total=3).disable
    with console.console():
        assert work() == ("informed\n", "noted\nloading\nwarned\n") and not console.is_quiet()
    with console.console(console.VERBOSE):
        assert work() == ("informed\n", "noted\ndetailed\nloading\nloading: 0.0 s\nwarned\n")
    # Other programs see what the library prints, and its steps where they want them.
    assert work() == ("informed\n", "warned\n") and not progress(name="films", total=3).disable
