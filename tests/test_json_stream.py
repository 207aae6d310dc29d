"""Large JSON is read as the standard library reads it, whatever is in it and wherever a piece of it ends."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mask_rcnn.system import json_stream
from mask_rcnn.system.garbage import without_collection
from mask_rcnn.system.json_stream import read_json

DATASET = {
    "info": {"command": 'a "b" \\ [1, {2', "versions": {"numpy": "2"}, "roots": ["."]}, "licenses": [],
    "images": [{"id": k, "file_name": f"é {k}.png", "spacing": [0.5, -1e-9], "empty": {}, "none": None} for k in range(30)],
    "annotations": [{"id": 12345678901234567, "segmentation": [[1, 2.5], []]}, 7, "text", [[]], True], "last": 1.25,
}  # fmt: skip
WHOLE = [DATASET, {}, [], [1, {"a": []}], 3, -12.5, "text", None, {"a": []}, {"a": {}}, {"": [[], {}]}]


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding, "surrogatepass"))
    return path


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 2**20])
def test_files_are_read_as_by_the_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(json_stream, "PIECE", piece)
    path = tmp_path / "file.json"
    for content in WHOLE:
        for options in ({"indent": 2}, {"separators": (",", ":"), "ensure_ascii": False}):
            assert read_json(written(path, json.dumps(content, **options))) == content
    for text in (' {"a" : [ 1 , 2 ] , "a":[3]}\r\n', '{"a":NaN,"b":[Infinity]}', '{"a":"\ud800"}', '{"a":[1]}   '):
        assert repr(read_json(written(path, text))) == repr(json.loads(text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_encodings_of_spreadsheets_and_windows_are_read(tmp_path: Path, encoding: str) -> None:
    assert read_json(written(tmp_path / "file.json", json.dumps(DATASET, ensure_ascii=False), encoding)) == DATASET


@pytest.mark.parametrize("text", [
    "", " ", "{", "[", '{"a":[1,2', '{"a":[1,]}', '{"a":[1 2]}', '{"a":1,}', '{"a" 1}', "{1:2}", '{"a":[1]} {}', "{}x",
    '{"a":[1}}', '{"a":"', '{"a":tru}', "no json", '{"a":[1],2:[]}', '{"a":[1]"b":2}', '{"a":"\n"}', '{,"a":1}',
])  # fmt: skip
def test_what_is_no_json_is_refused_in_the_same_words(tmp_path: Path, text: str) -> None:
    def refusal(read: Any, given: Any) -> str:
        with pytest.raises(ValueError) as caught:
            read(given)
        return str(caught.value)

    assert refusal(read_json, written(tmp_path / "file.json", text)) == refusal(json.loads, text)


def test_the_text_is_never_in_memory_whole(tmp_path: Path) -> None:
    """Of a file of which next to nothing is kept."""
    path = tmp_path / "file.json"
    with path.open("w", encoding="ascii") as file:
        file.write('{"numbers":[' + ",\n".join(["[]" + 1000 * " "] * 20_000) + "]}")
    tracemalloc.start()
    try:
        assert len(read_json(path)["numbers"]) == 20_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10 * 2**20 < path.stat().st_size


def test_the_names_of_all_records_are_the_same_strings(tmp_path: Path) -> None:
    path = written(tmp_path / "file.json", '{"images":[{"file_name":1},{"file_name":2}]}')
    (one,), (other,) = read_json(path)["images"]
    assert one is other


def test_garbage_is_not_searched_for_meanwhile() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
