"""The review server: it hands out the page and nothing else, and keeps decisions."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PHANTOMS, write_phantom_page
from PIL import Image

from mask_rcnn.commands.review import main
from mask_rcnn.dataset.decisions import DECISIONS, Decision, read_decisions, write_decisions
from mask_rcnn.results.page.server import LARGEST, ReviewServer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a film that browsers show and of one that they do not, and a secret beside it."""
    root = tmp_path_factory.mktemp("review")
    (root / "films").mkdir()
    plain = root / "films" / "phantom_0001.png"
    shutil.copy(PHANTOMS / "images" / plain.name, plain)
    deep = root / "films" / "phantom_0002.tiff"
    Image.open(PHANTOMS / "images" / "phantom_0002.png").save(deep)
    write_phantom_page(root / "out", [plain, deep])
    (root / "out" / "secret.txt").write_text("secret")
    (root / "secret.png").write_text("secret")
    (root / "out" / "report_files" / "link.js").symlink_to(root / "out" / "secret.txt")
    return root / "out"


@pytest.fixture
def server(folder: Path) -> Iterator[ReviewServer]:
    write_decisions(folder / DECISIONS, [])
    server = ReviewServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(
    server: ReviewServer, path: str, body: object = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request("GET" if body is None else "POST", path, None if body is None else content, given)
    response = connection.getresponse()
    result = response.status, response.read(), response.headers
    connection.close()
    return result


def test_the_page_and_its_files_are_served(server: ReviewServer, folder: Path) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, content, headers = ask(server, "/report.html")
    assert status == 200 and content == (folder / "report.html").read_bytes()
    assert headers["Content-Type"] == "text/html; charset=utf-8" and headers["Cache-Control"] == "no-store"
    assert ask(server, "/")[2]["Location"] == "/report.html"
    assert ask(server, "/report_files/index.js")[1].startswith(b"lungs.index(")
    status, content, headers = ask(server, "/film/0/1")
    assert status == 200 and content == (folder.parent / "films" / "phantom_0001.png").read_bytes()
    assert headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("path", [
    "/secret.txt", "/films.jsonl", "/decisions.csv", "/report_files/../secret.txt", "/report_files/%2e%2e/secret.txt",
    "/report_files/..%2fsecret.txt", "/report_files/..%5csecret.txt", "/../secret.png", "//etc/passwd", "/etc/passwd",
    "/report_files", "/report_files/", "/report_files/link.js", "/report_files/index.js%00.txt", "/film/0/9", "/film/9/0",
    "/film/0/-1", "/film/0/../../secret.png", "/film/..%2f..%2fsecret/0", "/film/0/1/2", "/report_files/" + "a" * 5000,
])  # fmt: skip
def test_nothing_else_is(path: str, server: ReviewServer) -> None:
    status, content, _ = ask(server, path)
    assert status == 404 and b"root:" not in content and content != b"secret"


def test_decisions_are_kept_and_taken_back(server: ReviewServer, folder: Path) -> None:
    body = {"image_id": 1001, "file": "ward/a, b.png", "decision": "reject", "wrong": ["left_lung"]}
    assert ask(server, "/decisions", body)[0] == 204
    (item,) = read_decisions(folder / DECISIONS)
    assert (item.image_id, item.file, item.wrong) == (1001, "ward/a, b.png", ("left_lung",)) and item.decided
    assert json.loads(ask(server, "/decisions")[1]) == [[1001, "reject", ["left_lung"], item.decided]]
    ask(server, "/decisions", {**body, "decision": "accept", "wrong": []})
    assert [item.decision for item in read_decisions(folder / DECISIONS)] == ["accept"]
    ask(server, "/decisions", {**body, "decision": "", "wrong": []})
    assert read_decisions(folder / DECISIONS) == []


@pytest.mark.parametrize("body", [
    b"no json", [], {}, {"image_id": "1", "file": "a", "decision": "accept", "wrong": []},
    {"image_id": True, "file": "a", "decision": "accept", "wrong": []},
    {"image_id": -1, "file": "a", "decision": "accept", "wrong": []},
    {"image_id": 1, "file": 2, "decision": "accept", "wrong": []},
    {"image_id": 1, "file": "a", "decision": "maybe", "wrong": []},
    {"image_id": 1, "file": "a", "decision": [], "wrong": []},
    {"image_id": 1, "file": "a", "decision": "reject", "wrong": ["ear"]},
    {"image_id": 1, "file": "a", "decision": "reject", "wrong": [[]]},
    {"image_id": 1, "file": "a", "decision": "accept", "wrong": ["left_lung"]},
])  # fmt: skip
def test_what_is_no_decision_is_refused(body: object, server: ReviewServer, folder: Path) -> None:
    assert ask(server, "/decisions", body)[0] == 400
    assert read_decisions(folder / DECISIONS) == []


def test_other_hosts_sites_and_floods_are_refused(server: ReviewServer, folder: Path) -> None:
    body = {"image_id": 1, "file": "a", "decision": "accept", "wrong": []}
    assert ask(server, "/report.html", Host="evil.example")[0] == 403, "a name that was made to mean this machine"
    assert ask(server, "/decisions", body, Origin="http://evil.example")[0] == 403
    assert ask(server, "/decisions", body, Content_Type="text/plain")[0] == 404, "what a form of another site can send"
    assert ask(server, "/decisions", b"0" * (LARGEST + 1))[0] == 413
    assert read_decisions(folder / DECISIONS) == []
    port = server.server_address[1]
    assert ask(server, "/decisions", body, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 204


def test_decisions_that_are_there_stay(folder: Path) -> None:
    old = [Decision(None, "by hand.png", "reject"), Decision(None, "other.png", "accept"), Decision(5, "x.png", "accept")]
    write_decisions(folder / DECISIONS, old)
    server = ReviewServer(folder)
    try:
        server.decide(Decision(6, "y.png", "reject"))
    finally:
        server.server_close()
    assert {item.file for item in read_decisions(folder / DECISIONS)} == {"by hand.png", "other.png", "x.png", "y.png"}


def test_the_command_serves_until_it_is_stopped(folder: Path) -> None:
    import signal

    write_decisions(folder / DECISIONS, [])
    command = [sys.executable, str(ROOT / "scripts" / "review.py"), str(folder), "--port", "0"]
    environment = {"PYTHONPATH": f"{ROOT}:{':'.join(filter(None, sys.path))}"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell has what runs behind it ignore
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:") and DECISIONS in line
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and "every decision is saved" in errors


def test_the_command_says_what_is_wrong(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "holds no report.html" in capsys.readouterr().err
    server = ReviewServer(folder)
    try:
        assert main([str(folder), "--port", str(server.server_address[1])]) == 1
    finally:
        server.server_close()
    assert "give another --port" in capsys.readouterr().err
    (folder / DECISIONS).write_text("nothing\n")
    assert main([str(folder)]) == 1
    assert "has no column" in capsys.readouterr().err
