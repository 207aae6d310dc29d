"""Weights files: ours and the reference's there and back, and the one line that each bad file is refused with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from mask_rcnn import checkpoint
from mask_rcnn.checkpoint import CheckpointError
from mask_rcnn.config import Config, config_from_dict, config_to_dict
from mask_rcnn.model import MaskRCNN

SIZES = {
    "backbone": "resnet26",
    "backbone_width": 4,
    "pyramid_channels": 8,
    "pyramid_output_channels": 6,
    "rpn_channels": 10,
    "box_head_channels": 12,
    "mask_head_channels": 14,
}


def build(**network: Any) -> MaskRCNN:
    return MaskRCNN(config_from_dict({"network": SIZES | network}))


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    """Random weights, those of batch normalisation too, so that none is where a fresh network has it."""
    keras.utils.set_random_seed(1)
    model, rng = build(), np.random.default_rng(1)
    for layer in model.network.named_layers().values():
        for weight in layer.weights:
            weight.assign(rng.uniform(0.1, 1, weight.shape))
    return model


@pytest.fixture(scope="module")
def other() -> MaskRCNN:
    """Another of the same sizes, for whatever a test loads into it."""
    return build()


@pytest.fixture(scope="module")
def content(model: MaskRCNN, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("content") / "lungs_1.weights.h5"
    model.save(path)
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    return path.read_bytes()


@pytest.fixture
def saved(content: bytes, tmp_path: Path) -> Path:
    """The model's file, for the test alone."""
    path = tmp_path / "lungs_1.weights.h5"
    path.write_bytes(content)
    return path


def weights_of(model: MaskRCNN) -> dict[str, np.ndarray]:
    layers = model.network.named_layers().items()
    return {f"{name}/{weight.name}": weight.numpy() for name, layer in layers for weight in layer.weights}


def assert_equal_weights(ours: MaskRCNN, theirs: MaskRCNN, dtype: type = np.float32) -> None:
    expected, actual = weights_of(theirs), weights_of(ours)
    assert list(actual) == list(expected)
    for name, weight in expected.items():
        np.testing.assert_array_equal(actual[name], weight.astype(dtype), err_msg=name)


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    """The message of the CheckpointError that a call raises, which is one line."""
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and str(arguments[-1]) in message
    return message


class TestOwnFiles:
    def test_bring_the_weights_back_as_half_floats(self, saved: Path, model: MaskRCNN) -> None:
        assert_equal_weights(MaskRCNN.load(saved), model, np.float16)

    def test_hold_the_weights_and_nothing_else(self, saved: Path) -> None:
        with h5py.File(saved) as file:
            assert {"config", "notes"} <= set(file.attrs) and "optimizer" not in file
            assert json.loads(file.attrs["notes"]) == {}

    def test_revive_the_whole_configuration(self, tmp_path: Path) -> None:
        values = {
            "name": "other",
            "laterality": "image",
            "seed": 7,
            "network": SIZES | {"anchor_ratios": [0.5, 1.5], "mean_pixel": [1, 2.5, 3]},
            "proposals": {"box_std": [0.1, 0.2, 0.3, 0.4]},
            "data": {"sources": ["a", "b/c.json"]},
            "training": {"loss_weights": [1, 2, 3, 4, 5], "augmentation": {"flip": 0.5}},
        }
        config, path = config_from_dict(values), tmp_path / "other.weights.h5"
        checkpoint.save(MaskRCNN(config).network, config, path, notes={"member": 3})
        assert checkpoint.read_config(path) == config
        with h5py.File(path) as file:
            assert json.loads(file.attrs["notes"]) == {"member": 3}

    def test_in_full_they_bring_the_optimiser_back(
        self, model: MaskRCNN, other: MaskRCNN, tmp_path: Path
    ) -> None:
        path = tmp_path / "last.weights.h5"
        for each in (model, other):
            each.compile(0.01)
        for variable in model.network.optimizer.variables[1:]:  # the first counts the steps
            if variable.dtype == "float32":
                variable.assign(np.random.default_rng(2).normal(size=variable.shape))
        model.network.optimizer.iterations.assign(42)
        checkpoint.save(model.network, model.config, path, half=False)
        other.load_weights(path)
        assert_equal_weights(other, model)
        assert int(other.network.optimizer.iterations) == 42
        pairs = zip(other.network.optimizer.variables, model.network.optimizer.variables, strict=True)
        assert all(np.array_equal(one.numpy(), two.numpy()) for one, two in pairs)

    def test_weights_too_large_for_half_floats_stay_whole(
        self, model: MaskRCNN, other: MaskRCNN, tmp_path: Path
    ) -> None:
        """Variances of tens of thousands do occur; as infinity, one would silence its channel."""
        path = tmp_path / "large.weights.h5"
        other.network.set_weights(model.network.get_weights())
        variance = other.network.named_layers()["bn_conv1"].moving_variance
        variance.assign([1e-3, 65504, 65520, 1e6])
        other.save(path)
        np.testing.assert_array_equal(
            MaskRCNN.load(path).network.named_layers()["bn_conv1"].moving_variance, variance.numpy()
        )

    def test_are_the_old_one_or_the_new_one(
        self, saved: Path, other: MaskRCNN, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, replace = saved.read_bytes(), os.replace

        def full_disk(source: Path, target: Path) -> None:
            if target == saved:
                raise OSError(28, "No space left on device")
            replace(source, target)

        other.network.named_layers()["conv1"].bias.assign([7] * 4)
        monkeypatch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space"):
            other.save(saved)
        assert saved.read_bytes() == before
        monkeypatch.undo()
        other.save(saved)
        assert saved.read_bytes() != before

    def test_have_names_that_keras_reads(self, model: MaskRCNN, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"\.weights\.h5"):
            model.save(tmp_path / "lungs.h5")

    @pytest.mark.parametrize(
        ("key", "value"), [("rpn_channels", 9), ("class_count", 4), ("backbone", "resnet50")]
    )
    def test_of_another_size_are_refused_by_its_name(self, saved: Path, key: str, value: int | str) -> None:
        message = refusal(build(**{key: value}).load_weights, saved)
        assert f"its network.{key} is {SIZES.get(key, 3)}, the config's {value}" in message

    def test_may_be_loaded_for_films_of_another_size(self, saved: Path, model: MaskRCNN) -> None:
        larger = build(image_size=320)
        larger.load_weights(saved)
        assert_equal_weights(larger, model, np.float16)


class TestBadFiles:
    @pytest.fixture(params=["load", "load_weights", "read_config"])
    def reader(self, request: pytest.FixtureRequest, other: MaskRCNN) -> Callable[[Path], Any]:
        return {
            "load": MaskRCNN.load,
            "load_weights": other.load_weights,
            "read_config": checkpoint.read_config,
        }[request.param]

    def test_absent(self, reader: Callable[[Path], Any], tmp_path: Path) -> None:
        assert "there is no such file; check the path" in refusal(reader, tmp_path / "absent.weights.h5")
        assert "there is no such file" in refusal(reader, tmp_path)  # a folder

    @pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
    def test_torn(self, reader: Callable[[Path], Any], saved: Path, kept: int) -> None:
        torn = saved.with_name("torn.weights.h5")
        torn.write_bytes(saved.read_bytes()[:kept])
        assert "not an HDF5 file, or torn" in refusal(reader, torn)

    def test_other_kinds_of_file(self, reader: Callable[[Path], Any], tmp_path: Path) -> None:
        text, tables = tmp_path / "text.weights.h5", tmp_path / "tables.weights.h5"
        text.write_text("weights: none\n")
        with h5py.File(tables, "w") as file:
            file["table"] = np.arange(5)
        assert "not an HDF5 file" in refusal(reader, text)
        assert "holds no Mask R-CNN" in refusal(reader, tables)

    @pytest.mark.parametrize(
        ("held", "reason"),
        [
            ("{", "Expecting property name"),
            ("[1, 2]", "must hold keys and values"),
            ('{"network": {"rpn_chanels": 8}}', "did you mean network.rpn_channels"),
            (7, "must be str"),
        ],
    )
    def test_a_configuration_that_cannot_be_used(self, saved: Path, held: str | int, reason: str) -> None:
        with h5py.File(saved, "a") as file:
            file.attrs["config"] = held
        message = refusal(checkpoint.read_config, saved)
        assert "its configuration cannot be used" in message and reason in message

    def test_any_damage_is_a_refusal_or_passes_unseen(self, saved: Path, other: MaskRCNN) -> None:
        """HDF5 has no checksums here: damaged numbers load. Nothing else may come of it than one line."""
        whole, rng, refused = saved.read_bytes(), np.random.default_rng(3), 0
        for round_ in range(24):
            # Every other time where the structure is, at the beginning.
            start = int(rng.integers(0, len(whole) - 64 if round_ % 2 else 6000))
            damaged = saved.with_name(
                f"damaged_{round_}.weights.h5"
            )  # HDF5 remembers a file that it failed to read
            damaged.write_bytes(whole[:start] + rng.bytes(64) + whole[start + 64 :])
            try:
                checkpoint.read_config(damaged)
                other.load_weights(damaged)
            except CheckpointError as error:
                assert "\n" not in str(error) and str(damaged) in str(error)
                refused += 1
        assert 0 < refused


def write_legacy(
    path: Path,
    model: MaskRCNN,
    nested: bool = False,
    whole: bool = False,
    change: Callable[[str, np.ndarray], np.ndarray | None] = lambda name, value: value,
) -> None:
    """Writes weights as the reference's Keras 2 does.

    Args:
        nested: the RPN is a model in the model, one group of its own, and the names begin with a model's.
        whole: as a whole model, weights one group down, names as text instead of bytes.
        change: gives the value to write for ``layer/variable``; None leaves it out.
    """
    groups: dict[str, dict[str, np.ndarray]] = {"input_image": {}}
    for name, layer in model.network.named_layers().items():
        group = "rpn_model" if nested and name.startswith("rpn_") else name
        values = {weight.name: change(f"{name}/{weight.name}", weight.numpy()) for weight in layer.weights}
        prefix = f"mask_rcnn/{name}" if nested else name
        weights = {f"{prefix}/{variable}:0": value for variable, value in values.items() if value is not None}
        if weights:
            groups.setdefault(group, {}).update(weights)
    text: Callable[[list[str]], Any] = list if whole else lambda names: [name.encode() for name in names]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        root.attrs["layer_names"] = text(list(groups))
        for group, weights in groups.items():
            node = root.create_group(group)
            node.attrs["weight_names"] = text(list(weights))
            for name, value in weights.items():
                node[name] = value


class TestReferenceFiles:
    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("whole", [False, True])
    def test_bring_sizes_and_weights(
        self, model: MaskRCNN, tmp_path: Path, nested: bool, whole: bool
    ) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, model, nested, whole)
        revived = MaskRCNN.load(path)
        assert_equal_weights(revived, model)
        values = config_to_dict(Config(laterality="image"))
        values["network"] |= SIZES
        values["detection"]["mask_corners"] = False  # its masks are pasted as the reference pasted them
        assert config_to_dict(revived.config) == values

    def test_the_first_layer_of_another_shape_is_named_with_both(
        self, model: MaskRCNN, other: MaskRCNN, tmp_path: Path
    ) -> None:
        path = tmp_path / "reference.h5"
        wrong = {"res3a_branch2b/kernel": np.zeros((3, 3, 8, 9)), "mrcnn_mask/bias": np.zeros(5)}
        write_legacy(path, model, change=lambda name, value: wrong.get(name, value))
        message = refusal(other.load_weights, path)
        assert "res3a_branch2b/kernel needs (3, 3, 8, 8), the file holds (3, 3, 8, 9)" in message

    @pytest.mark.parametrize(
        ("absent", "reason"),
        [
            ("fpn_p3/", "lacks the layer fpn_p3"),
            ("fpn_p3/bias", r"fpn_p3/bias needs (6,), the file holds nothing"),
            ("conv1/", "lacks the layer conv1"),
            ("res4", "its ResNet has 0 blocks in stage 4"),
        ],
    )
    def test_what_is_absent_is_named(self, model: MaskRCNN, tmp_path: Path, absent: str, reason: str) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, model, change=lambda name, value: None if name.startswith(absent) else value)
        assert reason in refusal(MaskRCNN.load, path)

    def test_other_anchor_ratios_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, build(anchor_ratios=[1.0, 2.0]))
        assert "has 2 anchor ratios, not 3" in refusal(MaskRCNN.load, path)

    def test_a_group_that_is_torn_off_is_named(self, model: MaskRCNN, tmp_path: Path) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, model)
        with h5py.File(path, "a") as file:
            del file["bn_conv1"]
        assert "torn at layer bn_conv1" in refusal(MaskRCNN.load, path)
