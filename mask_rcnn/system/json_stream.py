"""Reads large JSON a record at a time, so that its text never lies in memory whole beside what is read from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import IO, Any

PIECE = 2**20  # characters that are read at a time

_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: {intern(key): value for key, value in pairs})
_NO_SPACE = re.compile(r"[^ \t\n\r]")


def read_json(path: Path) -> Any:
    """What ``json.loads`` gives of a file in UTF-8, 16 or 32, with or without a mark of it.

    An object's lists are read item by item. The names of all objects are the same strings.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON; the message says where.
        RecursionError: it is nested too deeply.
    """
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
    try:
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as text:
            return _Reader(text).whole()
    except ValueError:
        return json.loads(path.read_bytes())  # which says what is wrong with the whole


class _Reader:
    """A text, of which ``self.text[self.at :]`` is read and not yet decoded."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.text, self.at, self.is_whole = file, "", 0, False

    def whole(self) -> Any:
        """The one value of the text."""
        value = dict(self._members()) if self._next() == "{" else self._value()
        if self._next():
            raise ValueError("more than one value")
        return value

    def _members(self) -> Iterator[tuple[str, Any]]:
        self.at += 1
        if self._next() != "}":
            yield self._member()
            while self._next() == ",":
                self.at += 1
                yield self._member()
        self._take("}")

    def _member(self) -> tuple[str, Any]:
        if self._next() != '"':
            raise ValueError("no name")
        key = self._value()
        self._take(":")
        return key, list(self._items()) if self._next() == "[" else self._value()

    def _items(self) -> Iterator[Any]:
        self.at += 1
        if self._next() != "]":
            yield self._value()
            while self._next() == ",":
                self.at += 1
                yield self._value()
        self._take("]")

    def _take(self, sign: str) -> None:
        if self._next() != sign:
            raise ValueError(f"no {sign}")
        self.at += 1

    def _next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            if found := _NO_SPACE.search(self.text, self.at):
                self.at = found.start()
                return found.group()
            self.at = len(self.text)
            if self.is_whole:
                return ""
            self._read(PIECE)

    def _value(self) -> Any:
        """The next value; one that ends where the text that was read ends may go on."""
        self._next()
        size = PIECE
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.is_whole:
                    self.at = end
                    return value
            except ValueError:
                if self.is_whole:
                    raise
            self._read(size)
            size *= 2

    def _read(self, size: int) -> None:
        piece = self.file.read(size)
        self.text, self.at, self.is_whole = self.text[self.at :] + piece, 0, not piece
