"""Progress where standard error is no terminal: now and then a line, and nothing of short work."""

from __future__ import annotations

import re
import time

import pytest

from mask_rcnn.system import progress as module
from mask_rcnn.system.progress import progress, warn


def test_long_work_writes_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY", 0.1)
    with progress(name="lungs", total=40, done=20) as bar:
        for k in range(20):
            time.sleep(0.02)
            bar.update()
            if k == 10:
                warn("skipped film.png: torn; copy it again")
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("skipped film.png: torn; copy it again") == 1
    told = [line for line in lines if line.startswith("lungs: ")]
    assert 2 <= len(told) <= 6 and len(told) == len(lines) - 1
    assert all(re.search(r"\d+/40 \[\d\d:\d\d<\d\d:\d\d, .*films/s\]", line) for line in told)
    assert "40/40" in told[-1] and "\r" not in "".join(lines)


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), name="short", total=3)) == [0, 1, 2]
    assert list(progress(iter("ab"), name="of unknown length")) == ["a", "b"]
    assert capsys.readouterr().err == ""
