"""Paths as they are given on the command line: files, folders, and glob patterns that no shell has expanded."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

WEIGHTS_ENDINGS = (".h5", ".hdf5")  # of the files that a folder of weights is taken for


class PathError(ValueError):
    """A path that is not there, or holds nothing of use; the message names it and what to give instead."""


def expand_paths(patterns: Iterable[str | os.PathLike[str]], option: str) -> list[str]:
    """The files and folders that are meant, in the order of the patterns, those of one pattern sorted.

    Args:
        option: that they were given to, for the messages.

    Raises:
        PathError: a path is not there, or a pattern matches nothing.
    """
    return [path for pattern in patterns for path in _matches(os.fspath(pattern), option)]


def expand_files(
    patterns: Iterable[str | os.PathLike[str]], option: str, endings: Sequence[str]
) -> list[str]:
    """The files that are meant: a folder means those directly in it that have one of the endings, sorted.

    A pattern means the files that it matches, whatever their names, and not what lies in folders that it matches.

    Raises:
        PathError: as ``expand_paths``, or a folder holds no such file.
    """
    files: list[str] = []
    for pattern in patterns:
        paths = _matches(os.fspath(pattern), option)
        if len(paths) == 1 and os.path.isdir(paths[0]):
            files += _files_in(paths[0], option, endings)
        else:
            files += [path for path in paths if not os.path.isdir(path)]
    return files


def _files_in(folder: str, option: str, endings: Sequence[str]) -> list[str]:
    with os.scandir(folder) as entries:
        files = [entry.path for entry in entries if entry.name.endswith(tuple(endings)) and entry.is_file()]
    if not files:
        wanted = " or ".join(f"*{ending}" for ending in endings)
        raise PathError(f"{folder}: holds no {wanted}; check the folder given to {option}")
    return sorted(files)


def _matches(pattern: str, option: str) -> list[str]:
    paths = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
    if not paths:
        if glob.has_magic(pattern):
            raise PathError(f"{pattern}: matches no file; check the pattern given to {option}")
        raise PathError(f"{pattern}: there is no such file or folder; check the path given to {option}")
    return paths
