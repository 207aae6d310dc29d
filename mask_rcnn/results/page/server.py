"""The review server: one run's page on this machine alone, whose decisions go to ``decisions.csv`` at once.

It answers to nobody but a browser of this machine that has the page open: it listens on 127.0.0.1, refuses names of other
hosts (DNS rebinding) and what another site's page sends, and hands out the page, its files, and the films that the page names.
"""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from mask_rcnn.dataset.decisions import ACCEPT, DECISIONS, MARKS, REJECT, Decision, read_decisions, write_decisions
from mask_rcnn.results.names import PAGE, PAGE_FILES

HOST = "127.0.0.1"
LARGEST = 1 << 16  # bytes of a decision
_FILM_KINDS = frozenset({"image/jpeg", "image/png", "image/webp", "image/bmp", "image/x-ms-bmp", "image/gif"})


class ReviewServer(ThreadingHTTPServer):
    """Serves the page of a folder until it is shut down.

    Args:
        folder: of a run, which holds the page.
        port: 0 takes a free one.

    Raises:
        DatasetError: the decisions that are there cannot be read.
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder.resolve()
        self.decisions = {_key(item): item for item in read_decisions(self.folder / DECISIONS)}
        self.lock = Lock()
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_address[1]}/{PAGE}"

    def decide(self, item: Decision) -> None:
        """Keeps a decision, or takes back the one on that film where it has none, and writes the file.

        Raises:
            OSError: it cannot be written.
        """
        with self.lock:
            decisions = {key: other for key, other in self.decisions.items() if key != _key(item)}
            if item.decision:
                decisions[_key(item)] = item
            write_decisions(self.folder / DECISIONS, decisions.values())
            self.decisions = decisions


class _Refused(Exception):
    """A request that is not answered, with its status and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:  # noqa: N802, the name that http.server calls
        try:
            self._check_host()
            path = unquote(urlsplit(self.path).path)
            if path == "/":
                self._send(HTTPStatus.FOUND, b"", "text/plain", {"Location": f"/{PAGE}"})
            elif path == "/decisions":
                rows = [[item.image_id, item.decision, item.wrong, item.decided] for item in self.server.decisions.values()]
                self._send(HTTPStatus.OK, json.dumps(rows).encode("ascii"), "application/json")
            elif path.startswith("/film/"):
                self._send_file(self._film(path))
            else:
                self._send_file(self._own_file(path))
        except _Refused as refused:
            self._refuse(refused)

    def do_POST(self) -> None:  # noqa: N802
        try:
            self._check_host()
            if self.headers.get("Origin") not in (None, self._own_origin()):
                raise _Refused(HTTPStatus.FORBIDDEN, "another site's page")
            if self.path != "/decisions" or self.headers.get_content_type() != "application/json":
                raise _Refused(HTTPStatus.NOT_FOUND, "only decisions are taken, as JSON")
            self.server.decide(_decision_of(self._body()))
        except _Refused as refused:
            self._refuse(refused)
        except OSError as error:
            self._refuse(_Refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"{DECISIONS} cannot be written ({error.strerror})"))
        else:
            self._send(HTTPStatus.NO_CONTENT, b"", "text/plain")

    def _own_origin(self) -> str:
        return f"http://{self.headers.get('Host', '')}"

    def _check_host(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            raise _Refused(HTTPStatus.FORBIDDEN, f"only {self.server.address} is served")

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long for a decision")
        try:
            return json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "no JSON") from error

    def _own_file(self, path: str) -> Path:
        """The page or one of its files; nothing else of the folder, whatever the path is made of."""
        files = self.server.folder / PAGE_FILES
        file = self.server.folder / path.lstrip("/") if "\0" not in path and "\\" not in path else files
        try:
            file = file.resolve()
            if file == (self.server.folder / PAGE).resolve() or (file.is_relative_to(files.resolve()) and file.is_file()):
                return file
        except OSError:
            pass
        raise _Refused(HTTPStatus.NOT_FOUND, "no file of the page")

    def _film(self, path: str) -> Path:
        """The film that the page names at a place of its details; a path is never taken from the request."""
        chunk, _, place = path.removeprefix("/film/").partition("/")
        try:
            if not (chunk.isdecimal() and place.isdecimal()):
                raise ValueError
            name = _films_of(self.server.folder, int(chunk))[int(place)]
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise _Refused(HTTPStatus.NOT_FOUND, "no film of the page") from error
        if name.startswith("file:"):  # of another drive
            name = urlsplit(name).path.lstrip("/")
        file = self.server.folder / os.fsdecode(unquote_to_bytes(name))
        if mimetypes.guess_type(file.name)[0] not in _FILM_KINDS:
            raise _Refused(HTTPStatus.NOT_FOUND, "no film that a browser shows")
        return file

    def _send_file(self, file: Path) -> None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise _Refused(HTTPStatus.NOT_FOUND, "it is not there any more") from error
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._send(HTTPStatus.OK, content, f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store",
                   "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, refused: _Refused) -> None:
        self.close_connection = True  # a body may not have been read
        self._send(refused.status, str(refused).encode("utf-8"), "text/plain", {"Connection": "close"})

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002, its name there
        """Logs nothing: names of films are nobody's on a terminal."""


def _key(item: Decision) -> int | str:
    return item.file if item.image_id is None else item.image_id


def _films_of(folder: Path, chunk: int) -> list[str]:
    """The films of a file of details, by place, as seen from the folder."""
    script = (folder / PAGE_FILES / "details" / f"{chunk}.js").read_text(encoding="ascii")
    return [film["film"] for film in json.loads(script[script.index("[") : script.rindex("]") + 1])]


def _decision_of(body: Any) -> Decision:
    """A decision from a request; an empty one takes back another."""
    try:
        image_id, file, decision, wrong = (body[key] for key in ("image_id", "file", "decision", "wrong"))
        if type(image_id) is not int or not isinstance(file, str) or decision not in (ACCEPT, REJECT, ""):
            raise TypeError
        if not isinstance(wrong, list) or any(mark not in MARKS for mark in wrong) or (wrong and decision != REJECT):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "no decision") from error
    if not 0 <= image_id < 1 << 53:
        raise _Refused(HTTPStatus.BAD_REQUEST, "no image id")
    return Decision(image_id, file, decision, tuple(wrong), datetime.now(UTC).isoformat(timespec="seconds"))
