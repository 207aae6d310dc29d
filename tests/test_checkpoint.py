"""Weights files: ours and the reference's there and back, and the one line that each bad file is refused with."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras_2 import write_legacy

import mask_rcnn
from mask_rcnn.config import Config, ConfigError, config_from_dict, config_to_dict, learned_part
from mask_rcnn.model import MaskRCNN
from mask_rcnn.weights import checkpoint
from mask_rcnn.weights.checkpoint import CLASS_HEADS, CheckpointError
from mask_rcnn.weights.weights_file import FORMAT

SIZES = {
    "backbone": "resnet14",
    "backbone_width": 4,
    "pyramid_channels": 8,
    "pyramid_output_channels": 6,
    "rpn_channels": 10,
    "box_head_channels": 12,
    "mask_head_channels": 14,
}


def build(**network: Any) -> MaskRCNN:
    return MaskRCNN(config_from_dict({"network": SIZES | network}))


build_once = functools.cache(build)  # for networks that no test fills


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
            assert file.attrs["format"] == FORMAT == 2 and file.attrs["program"] == mask_rcnn.__version__
            assert "quality" not in json.loads(file.attrs["config"]), "no network depends on create_dataset.py's thresholds"

    def test_of_the_first_format_are_read(self, saved: Path, model: MaskRCNN) -> None:
        """It said nothing of its format and held the thresholds of create_dataset.py, whatever they were called."""
        with h5py.File(saved, "a") as file:
            del file.attrs["format"], file.attrs["program"]
            values = json.loads(file.attrs["config"])
            file.attrs["config"] = json.dumps(values | {"quality": {"min_area": 0.1, "of_old": 3}})
        assert checkpoint.read_config(saved) == model.config
        assert_equal_weights(MaskRCNN.load(saved), model, np.float16)

    def test_that_ship_are_read(self) -> None:
        for path in (Path(__file__).resolve().parent.parent / "models").glob("*.weights.h5"):
            assert checkpoint.read_config(path).name == "lungs_small"

    def test_have_the_same_bytes_whatever_was_built_before(self, model: MaskRCNN, saved: Path, tmp_path: Path) -> None:
        """Keras numbers layers over all networks of a process."""
        again, path = build(), tmp_path / "again.weights.h5"
        again.set_weights(model.get_weights())
        again.save(path)
        assert path.read_bytes() == saved.read_bytes()

    def test_give_their_notes_back(self, model: MaskRCNN, saved: Path, tmp_path: Path) -> None:
        path = tmp_path / "notes.weights.h5"
        checkpoint.save(model.network, model.config, path, notes={"member": 3})
        assert checkpoint.read_notes(path) == {"member": 3}
        with h5py.File(saved, "a") as file:
            file.attrs["notes"] = "{"
        assert "holds no notes that can be read" in refusal(checkpoint.read_notes, saved)

    def test_are_loaded_with_other_settings(self, saved: Path, model: MaskRCNN) -> None:
        config = MaskRCNN.load(saved, settings=["detection.min_score=0.1"]).config
        assert config.detection.min_score == 0.1 and learned_part(config) == learned_part(model.config)
        with pytest.raises(ConfigError, match="network.image_size cannot be changed here; detection, bag can"):
            MaskRCNN.load(saved, settings=["network.image_size=64"])

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
        assert int(other.network.optimizer.iterations) == 0
        other.network.set_weights([np.zeros(weight.shape) for weight in other.network.weights])
        checkpoint.resume(other.network, path)
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

    def test_without_the_optimiser_are_not_gone_on_from(self, saved: Path, other: MaskRCNN) -> None:
        other.compile(0.01)
        assert "delete it to begin anew" in refusal(checkpoint.resume, other.network, saved)

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
            ("[" * 10**4, "recursion"),
        ],
    )
    def test_a_configuration_that_cannot_be_used(self, saved: Path, held: str | int, reason: str) -> None:
        with h5py.File(saved, "a") as file:
            file.attrs["config"] = held
        message = refusal(checkpoint.read_config, saved)
        assert "its configuration cannot be used" in message and reason in message

    def test_a_configuration_that_is_not_the_weights(self, saved: Path) -> None:
        """Refused before a network is built of it, which might take all memory."""
        with h5py.File(saved, "a") as file:
            values = json.loads(file.attrs["config"])
            values["network"]["box_head_channels"] = 10**9
            file.attrs["config"] = json.dumps(values)
        message = refusal(MaskRCNN.load, saved)
        assert "its network.box_head_channels is 1000000000, its weights' 12" in message

    def test_a_newer_format(self, reader: Callable[[Path], Any], saved: Path) -> None:
        with h5py.File(saved, "a") as file:
            file.attrs["format"] = 3
        message = refusal(reader, saved)
        assert message == f"{saved}: written by a newer program (format 3; this one reads up to 2); update the program"

    @pytest.mark.parametrize("held", ["two", np.arange(3)])
    def test_a_format_that_is_none(self, reader: Callable[[Path], Any], saved: Path, held: Any) -> None:
        with h5py.File(saved, "a") as file:
            file.attrs["format"] = held
        assert "not an HDF5 file, or torn" in refusal(reader, saved)

    def test_no_configuration(self, saved: Path, model: MaskRCNN, other: MaskRCNN) -> None:
        with h5py.File(saved, "a") as file:
            del file.attrs["config"]
        assert "carries no configuration; write weights with MaskRCNN.save" in refusal(MaskRCNN.load, saved)
        other.load_weights(saved)  # whose configuration is known
        assert_equal_weights(other, model, np.float16)

    def test_any_damage_is_a_refusal_or_passes_unseen(self, saved: Path, other: MaskRCNN) -> None:
        """HDF5 has no checksums here: damaged numbers load where they are finite. Nothing else may come of it than one line,
        and the same path loads once a good file lies there again."""
        whole, rng, refused = saved.read_bytes(), np.random.default_rng(3), 0
        for round_ in range(40):
            # Every other time where the structure is, at the beginning.
            start = int(rng.integers(0, len(whole) - 64 if round_ % 2 else 6000))
            saved.write_bytes(whole[:start] + rng.bytes(64) + whole[start + 64 :])
            try:
                checkpoint.read_config(saved)
                other.load_weights(saved)
            except CheckpointError as error:
                assert "\n" not in str(error) and str(saved) in str(error)
                refused += 1
        assert 10 < refused
        saved.write_bytes(whole)
        other.load_weights(saved)


Change = Callable[[str, np.ndarray], "np.ndarray | None"]


@pytest.fixture(params=["ours", "reference"])
def write(request: pytest.FixtureRequest, model: MaskRCNN, content: bytes, tmp_path: Path) -> Callable[[Change], Path]:
    """Writes the model's file of either kind with some of its variables changed, or left out where they are None."""

    def ours(change: Change) -> Path:
        path = tmp_path / "ours.weights.h5"
        path.write_bytes(content)
        names = {layer.name: [weight.name for weight in layer.weights] for layer in model.network.named_layers().values()}
        with h5py.File(path, "a") as file:
            groups: list[h5py.Group] = []
            file.visititems(lambda name, node: groups.append(node) if name.endswith("/vars") and len(node) else None)
            for group in groups:
                for number, name in enumerate(names[group.attrs["name"]]):
                    value = change(f"{group.attrs['name']}/{name}", group[str(number)][()])
                    del group[str(number)]
                    if value is not None:
                        group[str(number)] = value
        return path

    def reference(change: Change) -> Path:
        write_legacy(tmp_path / "reference.h5", model, change=change)
        return tmp_path / "reference.h5"

    return {"ours": ours, "reference": reference}[request.param]


class TestFilesOfBothKinds:
    def test_the_first_layer_that_does_not_fit_is_named_with_both_shapes(
        self, write: Callable[[Change], Path], other: MaskRCNN
    ) -> None:
        before = other.network.get_weights()
        wrong = {"mrcnn_mask/bias": np.zeros(5), "res3a_branch2b/kernel": np.zeros((3, 3, 8, 9))}
        message = refusal(other.load_weights, write(lambda name, value: wrong.get(name, value)))
        assert "res3a_branch2b/kernel needs (3, 3, 8, 8), the file holds (3, 3, 8, 9); give other weights" in message
        for old, new in zip(before, other.network.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new, err_msg="a refused file changes nothing")

    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("backbone_width", 2, "conv1/kernel needs (7, 7, 3, 2), the file holds (7, 7, 3, 4)"),
            ("rpn_channels", 9, "rpn_conv_shared/kernel needs (3, 3, 6, 9), the file holds (3, 3, 6, 10)"),
            ("class_count", 4, "mrcnn_bbox_fc/kernel needs (12, 16), the file holds (12, 12)"),
            ("backbone", "resnet50", "lacks the layer res2b_branch2a"),
        ],
    )
    def test_of_another_size_are_refused_with_what_to_set(
        self, write: Callable[[Change], Path], key: str, value: int | str, reason: str
    ) -> None:
        message = refusal(build_once(**{key: value}).load_weights, write(lambda name, values: values))
        assert f"{reason}; give other weights, or set network.{key}: {SIZES.get(key, 3)} in the config" in message

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
    def test_numbers_that_are_none_are_refused(
        self, write: Callable[[Change], Path], other: MaskRCNN, value: float
    ) -> None:
        def damage(name: str, values: np.ndarray) -> np.ndarray:
            values = values.astype(np.float64)
            if name in ("bn4a_branch2a/gamma", "mrcnn_mask/bias"):
                values[-1] = value
            return values

        assert "bn4a_branch2a/gamma holds NaN or infinity" in refusal(other.load_weights, write(damage))

    @pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", ">f2"])
    def test_every_kind_of_float_is_read(
        self, write: Callable[[Change], Path], model: MaskRCNN, other: MaskRCNN, dtype: str
    ) -> None:
        other.load_weights(write(lambda name, values: values.astype(np.float16).astype(dtype)))
        assert_equal_weights(other, model, np.float16)

    def test_what_is_no_number_is_refused(self, write: Callable[[Change], Path], other: MaskRCNN) -> None:
        path = write(lambda name, values: np.array([b"import os"] * 4) if name == "conv1/bias" else values)
        assert "its layer 'conv1' holds no numbers" in refusal(other.load_weights, path)

    @pytest.mark.parametrize("replaced", [False, True])
    def test_a_path_is_read_anew_after_a_refusal(
        self, write: Callable[[Change], Path], model: MaskRCNN, other: MaskRCNN, tmp_path: Path, replaced: bool
    ) -> None:
        path = write(lambda name, values: values)
        good = path.read_bytes()
        bad = write(lambda name, values: np.zeros(5) if name == "mrcnn_mask/bias" else values)
        assert bad == path
        for broken in (path.read_bytes(), good[: len(good) // 2], b""):
            path.write_bytes(broken)
            refusal(other.load_weights, path)
            if replaced:
                (tmp_path / "new").write_bytes(good)
                os.replace(tmp_path / "new", path)
            else:
                path.write_bytes(good)
            other.network.set_weights([np.zeros(weight.shape) for weight in other.network.weights])
            other.load_weights(path)
            assert_equal_weights(other, model, np.float16 if path.name == "ours.weights.h5" else np.float32)


class TestHostileFiles:
    """What a file may claim or point to: the line says so at once, and nothing is allocated or opened for it."""

    @pytest.fixture
    def path(self, model: MaskRCNN, tmp_path: Path) -> Path:
        write_legacy(tmp_path / "reference.h5", model)
        return tmp_path / "reference.h5"

    def test_numbers_that_were_never_written(self, path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file["fpn_c5p5/fpn_c5p5/kernel:0"]
            file.create_dataset("fpn_c5p5/fpn_c5p5/kernel:0", (1, 1, 128, 2**31), np.float32, chunks=(1, 1, 1, 1024))
        assert path.stat().st_size < 2**20
        message = refusal(MaskRCNN.load, path)
        assert f"its layer 'fpn_c5p5' claims {4 * 128 * 2**31} bytes and has 0" in message

    def test_names_by_the_million(self, tmp_path: Path) -> None:
        path = tmp_path / "names.h5"
        with h5py.File(path, "w", libver="latest") as file:
            file.attrs["layer_names"] = np.zeros(2**18, "S8")
        assert "the attribute layer_names claims shape (262144,)" in refusal(MaskRCNN.load, path)

    def test_numbers_in_other_files(self, path: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        with h5py.File(secret, "w") as file:
            file["numbers"] = np.ones(4, np.float32)
        name = "conv1/conv1/bias:0"
        for kind, reason in (("virtual", "lies in other files"), ("raw", "lies in other files"), ("link", "torn at layer")):
            with h5py.File(path, "a") as file:
                del file[name]
                if kind == "virtual":
                    layout = h5py.VirtualLayout((4,), np.float32)
                    layout[:] = h5py.VirtualSource(secret, "numbers", (4,))
                    file.create_virtual_dataset(name, layout)
                elif kind == "raw":
                    file.create_dataset(name, (4,), np.float32, external=[(str(secret), 0, 16)])
                else:
                    file[name] = h5py.ExternalLink(secret, "numbers")
            message = refusal(MaskRCNN.load, path)
            assert reason in message and "'conv1'" in message


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
        values["detection"]["exact_masks"] = False  # its masks are pasted as the reference pasted them
        assert config_to_dict(revived.config) == values

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

    def test_a_deeper_network_does_not_pass_for_a_shallow_one(self, tmp_path: Path, other: MaskRCNN) -> None:
        """All that a ResNet-14 needs is in it, and would mean nothing without the blocks between."""
        path = tmp_path / "reference.h5"
        write_legacy(path, build_once(backbone="resnet50"))
        message = refusal(other.load_weights, path)
        assert "its layer 'res2b_branch2a' has no place in the network" in message
        assert "set network.backbone: resnet50 in the config" in message

    def test_sizes_that_no_network_has_are_refused(self, model: MaskRCNN, tmp_path: Path) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, model, change=lambda name, value: value[..., :1] if name.split("/")[0] in CLASS_HEADS else value)
        assert "network.class_count must be 2 or more" in refusal(MaskRCNN.load, path)

    def test_a_resnet_101_loads(self, parity: Path, tmp_path: Path) -> None:
        """Written by the script that wrote the weights of the ResNet-50, whose answers are known."""
        names: list[list[Any]] = []
        for name, layer in build(backbone="resnet101").network.named_layers().items():
            names.append([name, [[f"{name}/{weight.name}:0", list(weight.shape)] for weight in layer.weights]])
        manifest, path = tmp_path / "manifest.json", tmp_path / "reference.h5"
        manifest.write_text(json.dumps(names))
        subprocess.run([sys.executable, parity / "synthetic_weights.py", manifest, path], check=True)
        model = MaskRCNN.load(path)
        assert model.config.network.backbone == "resnet101"
        assert sum(name.endswith("_branch2c") for name in model.network.named_layers()) == 2 * (3 + 4 + 23 + 3)
        images = np.random.default_rng(0).normal(0, 50, (1, 256, 256, 3)).astype(np.float32)
        for level in model.network.pyramid(images):
            assert np.isfinite(keras.ops.convert_to_numpy(level)).all()

    def test_other_anchor_ratios_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, build(anchor_ratios=[1.0, 2.0]))
        assert "has 2 anchor ratios, not 3" in refusal(MaskRCNN.load, path)

    def test_a_group_that_is_torn_off_is_named(self, model: MaskRCNN, tmp_path: Path) -> None:
        path = tmp_path / "reference.h5"
        write_legacy(path, model)
        with h5py.File(path, "a") as file:
            del file["bn_conv1"]
        assert "torn at layer 'bn_conv1'" in refusal(MaskRCNN.load, path)


class TestStartingATraining:
    """``start_from`` takes what it can use of a file and says what it did."""

    @staticmethod
    def heads(model: MaskRCNN) -> list[np.ndarray]:
        """Class logits [n, c], deltas [n, c, 4] and mask logits [n, 28, 28, c] of some pooled RoIs."""
        rng = np.random.default_rng(5)
        pooled, pooled_for_masks = (rng.normal(size=(3, side, side, 6)).astype(np.float32) for side in (7, 14))
        answers = [*model.network.box_head(pooled), model.network.mask_head(pooled_for_masks)]
        return [keras.ops.convert_to_numpy(answer) for answer in answers]

    def test_a_file_that_fits_is_taken_whole(self, saved: Path, model: MaskRCNN, other: MaskRCNN) -> None:
        assert checkpoint.start_from(other.network, saved) == []
        assert_equal_weights(other, model, np.float16)

    @pytest.mark.parametrize("kind", ["ours", "reference"])
    def test_heads_of_other_classes_are_left_out(
        self, model: MaskRCNN, other: MaskRCNN, tmp_path: Path, kind: str
    ) -> None:
        five, path = build_once(class_count=5), tmp_path / "five.weights.h5"
        for name, layer in five.network.named_layers().items():
            if name not in CLASS_HEADS:
                layer.set_weights(model.network.named_layers()[name].get_weights())
        five.save(path) if kind == "ours" else write_legacy(path, five)
        for weight in other.network.weights:
            weight.assign(np.full(weight.shape, 0.5))
        said = "left out mrcnn_class_logits, mrcnn_bbox_fc, mrcnn_mask: the file has 5 classes, the config 3"
        assert checkpoint.start_from(other.network, path) == [said]
        expected, dtype = weights_of(model), np.float16 if kind == "ours" else np.float32
        for name, weight in weights_of(other).items():
            if name.split("/")[0] in CLASS_HEADS:
                assert (weight == 0.5).all()
            else:
                np.testing.assert_array_equal(weight, expected[name].astype(dtype), err_msg=name)
        assert "mrcnn_bbox_fc/kernel needs (12, 12), the file holds (12, 20)" in refusal(other.load_weights, path)

    def test_left_and_right_are_exchanged_where_the_laterality_differs(
        self, model: MaskRCNN, other: MaskRCNN, tmp_path: Path
    ) -> None:
        """The left lung of the image is the patient's right one, and all else stays."""
        by_image = MaskRCNN(config_from_dict({"laterality": "image", "network": SIZES}))
        reference, ours = tmp_path / "reference.h5", tmp_path / "ours.weights.h5"
        write_legacy(reference, model)
        (said,) = checkpoint.start_from(other.network, reference)
        assert said == ("exchanged left and right in mrcnn_class_logits, mrcnn_bbox_fc, mrcnn_mask: the file's laterality "
                        "is image, the config's patient")
        (logits, deltas, masks), (new_logits, new_deltas, new_masks) = self.heads(model), self.heads(other)
        assert not np.array_equal(logits[:, 1], logits[:, 2])
        np.testing.assert_allclose(new_logits, logits[:, [0, 2, 1]], rtol=1e-5)
        np.testing.assert_allclose(new_deltas, deltas[:, [0, 2, 1]], rtol=1e-5)
        np.testing.assert_allclose(new_masks, masks[..., [0, 2, 1]], rtol=1e-5)
        # Back again, now from a file of ours: as the reference's had it.
        checkpoint.save(other.network, other.config, ours, half=False)
        (said,) = checkpoint.start_from(by_image.network, ours)
        assert "the file's laterality is patient, the config's image" in said
        assert_equal_weights(by_image, model)
        assert checkpoint.start_from(by_image.network, reference) == []
        assert_equal_weights(by_image, model)

    @pytest.mark.parametrize("classes", [3, 5])
    def test_any_other_misfit_is_refused(
        self, model: MaskRCNN, other: MaskRCNN, tmp_path: Path, classes: int
    ) -> None:
        def change(name: str, value: np.ndarray) -> np.ndarray:
            if name == "mrcnn_mask_conv2/kernel":
                return np.zeros((3, 3, 14, 15))
            head = name.split("/")[0] in CLASS_HEADS
            return np.zeros((*value.shape[:-1], value.shape[-1] // 3 * classes)) if head else value

        path = tmp_path / "reference.h5"
        write_legacy(path, model, change=change)
        message = refusal(checkpoint.start_from, other.network, path)
        assert "mrcnn_mask_conv2/kernel needs (3, 3, 14, 14), the file holds (3, 3, 14, 15)" in message
