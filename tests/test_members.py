"""Members that share a network say what they say alone; loading names what it leaves out (``test_inference`` has more)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from mask_rcnn.bag import members
from mask_rcnn.model import MaskRCNN
from mask_rcnn.weights.checkpoint import read_config


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Weights of three networks: two of one config, the third of one that differs in its training."""
    folder = tmp_path_factory.mktemp("bag")
    paths = [folder / f"{name}.weights.h5" for name in "abc"]
    model = tiny.build_sober(tiny.drawing_all_config())
    model.save(paths[0])
    bias = model.network.named_layers()["mrcnn_mask"].bias
    bias.assign(bias + 0.3)
    model.save(paths[1])
    tiny.build_sober(tiny.drawing_all_config(optimiser="adam")).save(paths[2])
    return paths


@pytest.fixture(scope="module", autouse=True)
def build_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "load", staticmethod(tiny.refilled(MaskRCNN.load)))
        yield


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [tiny.draw_film(rng)[0][: 128 - 9 * k] for k in range(3)]


def test_members_that_predict_alike_take_turns_in_one_network(bag: list[Path], films: list[np.ndarray]) -> None:
    loaded = members.load_members([str(bag[0].parent / "?.weights.h5")])
    assert sorted(member.path for member in loaded) == bag
    loaded = sorted(loaded, key=lambda member: member.path)
    assert loaded[0].network is loaded[1].network is not loaded[2].network
    assert loaded[2].network.network is loaded[0].network.network
    assert [member.network.config.training.optimiser for member in loaded] == ["sgd", "sgd", "adam"], "each its own config"
    assert [member.load is None for member in loaded] == [False, False, False]
    found = list(members.detect(loaded, films, soft=True))
    assert [len(of_film) for of_film in found] == [3, 3, 3]
    for number, path in enumerate(bag):
        for of_film, alone in zip(found, MaskRCNN.load(path).detect(films, soft=True), strict=True):
            assert len(alone["scores"]) > 0
            for name, value in alone.items():
                np.testing.assert_allclose(of_film[number][name], value, atol=1e-5)
    first, second, third = found[0]
    assert np.abs(first["masks"] - second["masks"]).max() > 0.01, "the members differ"
    np.testing.assert_allclose(first["masks"], third["masks"], atol=1e-5)


def test_batches_of_any_size_say_the_same(bag: list[Path], films: list[np.ndarray]) -> None:
    loaded = members.load_members([str(path) for path in bag[:2]])
    whole = members.predict(loaded, films, 3)
    for batch in (1, 2):
        for expected, answers in zip(whole, members.predict(loaded, films, batch), strict=True):
            for one, other in zip(expected, answers, strict=True):
                np.testing.assert_allclose(other.detections, one.detections, atol=1e-4)
                np.testing.assert_allclose(other.masks, one.masks, atol=1e-4)
                assert other.window == one.window


def test_the_bag_says_whether_masks_are_soft(bag: list[Path], films: list[np.ndarray]) -> None:
    loaded = members.load_members([str(bag[2])])
    assert loaded[0].network.config.bag.pixels == "votes"
    for soft, kind in ((None, bool), (False, bool), (True, np.float32)):
        ((found,),) = members.detect(loaded, films[:1], soft)
        assert found["masks"].dtype == kind and found["masks"].shape[:2] == films[0].shape


def test_too_little_memory_is_said(bag: list[Path], films: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = members.load_members([str(bag[2])])

    def fail(*arguments: object) -> None:
        raise MemoryError

    for step in ("unmold", "predict"):
        monkeypatch.setattr(loaded[0].network, step, fail)
        with pytest.raises(members.InferenceError, match="too little memory; give a smaller --batch"):
            list(members.detect(loaded, films))


def test_the_order_they_are_given_in_changes_nothing(bag: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(path: str, settings: object) -> Any:  # building networks takes seconds
        said: Any = SimpleNamespace(config=read_config(path), get_weights=list, set_weights=list)
        said.load_weights = lambda _: None
        said.sharing = lambda config: SimpleNamespace(**{**vars(said), "config": config})
        return said

    monkeypatch.setattr(MaskRCNN, "load", describe)
    orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]
    loaded = [members.load_members([str(bag[k]) for k in order]) for order in orders]
    hashes = [[member.sha256 for member in each] for each in loaded]
    assert hashes[0] == hashes[1] == hashes[2] == sorted(hashes[0])
    assert [[member.path for member in each] for each in loaded] == 3 * [[member.path for member in loaded[0]]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("absent.weights.h5", "absent.weights.h5: there is no such file or folder; check the path"),
        ("absent_*.h5", "matches no file; check the pattern"),
        ("empty", r"empty: holds no \*\.h5 or \*\.hdf5; check the folder given to --weights"),
    ],
)
def test_what_is_not_there_stops_before_anything_is_loaded(
    bag: list[Path], monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setattr(MaskRCNN, "load", lambda *_, **__: pytest.fail("loaded"))
    path = bag[0].parent / given
    (bag[0].parent / "empty").mkdir(exist_ok=True)
    with pytest.raises(members.InferenceError, match=said):
        members.load_members([str(bag[0]), str(path)])


def test_what_is_there_and_cannot_be_used_is_left_out(
    bag: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn, copy = tmp_path / "torn.weights.h5", tmp_path / "copy.weights.h5"
    torn.write_bytes(bag[0].read_bytes()[:3000])
    copy.write_bytes(bag[0].read_bytes())
    assert [member.path for member in members.load_members([str(path) for path in (torn, bag[0], copy)])] == [bag[0]]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"left out {torn}: ") and second.startswith(f"left out {copy}: the same weights as")
    with pytest.raises(members.InferenceError, match="no weights that can be used"):
        members.load_members([str(torn)])


@pytest.mark.usefixtures("eagerly")
def test_settings_change_how_weights_are_read(bag: list[Path], films: list[np.ndarray]) -> None:
    settings = ["detection.max_instances=2", "bag.pixels=probabilities", "bag.min_agreement=0.5"]
    loaded = members.load_members([str(bag[0])], settings)
    config = loaded[0].network.config
    assert (config.detection.max_instances, config.bag.pixels, config.bag.min_agreement) == (2, "probabilities", 0.5)
    ((found,),) = members.detect(loaded, films[:1])
    assert len(found["scores"]) == 2 and found["masks"].dtype == np.float32
    assert len(MaskRCNN.load(bag[0]).detect(films[:1])[0]["scores"]) > 2
    refusals = {"network.rpn_channels=1": "cannot be changed here", "bag.pixel=votes": "did you mean bag.pixels"}
    for setting, said in refusals.items():
        with pytest.raises(members.InferenceError, match=said):
            members.load_members([str(bag[0])], [setting])


def test_the_bag_of_members_that_differ_is_said(
    bag: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.weights.h5"
    MaskRCNN.load(bag[1], settings=["bag.min_agreement=0.3"]).save(other)
    loaded = members.load_members([str(bag[0]), str(other)])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "differ in bag.min_agreement" in said and "--set bag.min_agreement=VALUE" in said
    assert f"those of {loaded[0].path} are used" in said
    members.load_members([str(bag[0]), str(other)], ["bag.min_agreement=0.4"])
    assert capsys.readouterr().err == ""
