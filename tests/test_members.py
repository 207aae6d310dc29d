"""Members that share a network say what they say alone; loading names what it leaves out (``test_inference`` has more)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from mask_rcnn import members
from mask_rcnn.model import MaskRCNN


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Weights of three networks: two of one config, the third of another."""
    folder = tmp_path_factory.mktemp("bag")
    paths = [folder / f"{name}.weights.h5" for name in "abc"]
    model = tiny.build_sober(tiny.drawing_all_config())
    model.save(paths[0])
    bias = model.network.named_layers()["mrcnn_mask"].bias
    bias.assign(bias + 0.3)
    model.save(paths[1])
    tiny.build_sober(tiny.drawing_all_config(optimiser="adam")).save(paths[2])
    return paths


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [tiny.draw_film(rng)[0][: 128 - 9 * k] for k in range(3)]


def test_members_of_one_config_take_turns_in_one_network(bag: list[Path], films: list[np.ndarray]) -> None:
    loaded = members.load_members([str(bag[0].parent / "?.weights.h5")])
    assert [member.path for member in loaded] == bag
    assert loaded[0].network is loaded[1].network is not loaded[2].network
    assert [member.weights is None for member in loaded] == [False, False, True]
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
    whole = members.look(loaded, films, 3)
    for batch in (1, 2):
        for expected, answers in zip(whole, members.look(loaded, films, batch), strict=True):
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

    for step in ("unmold", "look"):
        monkeypatch.setattr(loaded[0].network, step, fail)
        with pytest.raises(members.InferenceError, match="too little memory; give a smaller --batch"):
            list(members.detect(loaded, films))
