"""Files that a kill or a full disk cannot spoil: written whole or not at all, or journals that lose one line at most."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial-"  # what the name of every file begins with that is still being written


@contextmanager
def replacing_path(path: Path, ending: str = "") -> Iterator[Path]:
    """A path to write a file to, which takes the place of ``path`` when the block ends; makes the folder.

    No other thread, process or file ever has that path. Where the block fails, ``path`` stays as it was and what was
    written is removed; what a kill leaves behind, ``remove_partials`` removes.

    Args:
        path: whatever its name; the temporary file has a short one of its own.
        ending: of the temporary name, for writers that choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{_partials_of(path)}{secrets.token_hex(12)}{ending}"
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` when the block ends, as with ``replacing_path``."""
    with replacing_path(path) as partial, partial.open("xb") as file:
        yield file


def _partials_of(path: Path) -> str:
    """How the names of a file's temporary files begin; those of a temporary file are also those of the file it is for."""
    if path.name.startswith(PARTIAL):
        return path.name[: len(PARTIAL) + 17]
    return f"{PARTIAL}{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}-"


def remove_partials(folder: Path) -> None:
    """Removes what killed runs have left half written in a folder and all below it; no run may be at work there."""
    for inner, _, names in os.walk(folder):
        _remove(Path(inner, name) for name in names if name.startswith(PARTIAL))


def remove_partials_of(path: Path) -> None:
    """Removes what killed runs have left half written of one file; no run may be writing it."""
    _remove(path.parent.glob(f"{_partials_of(path)}*"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, never a part; makes its folder."""
    with replacing(path) as file:
        file.write(content)


def file_version(path: Path) -> list[int]:
    """Bytes and time of the last change: a file that differs in them is another file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def digest_of(path: Path) -> str:
    """A digest of a file's bytes, 128 bits in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def writable(name: str) -> str:
    """A file name as JSON and HTML can hold it; Linux allows any bytes in a name, they only text."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def journal_line(content: Mapping[str, Any]) -> bytes:
    """A line of a journal; ASCII, so that no file name can tear it."""
    return json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"


def journal_contents(path: Path) -> Generator[tuple[int, int, dict[str, Any]]]:
    """The whole lines of a journal, each with the bytes where it begins and ends; none where there is no journal.

    What a kill or a full disk has torn, and what is no JSON object, is passed over.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        offset = 0
        for line in file:
            end = offset + len(line)
            with suppress(ValueError):
                content = json.loads(line)
                if isinstance(content, dict) and line.endswith(b"\n"):
                    yield offset, end, content
            offset = end


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON so that the file is either the old one or the whole new one, never a part."""
    write_bytes(Path(path), json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))
