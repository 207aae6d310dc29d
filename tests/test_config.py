"""The config: every file in configs/ loads, what is wrong is refused by name, what is written comes back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from mask_rcnn import config as config_module
from mask_rcnn.config import (
    CONFIG_FOLDER,
    Config,
    ConfigError,
    config_from_dict,
    config_to_dict,
    load_config,
)


def test_every_config_loads_by_its_bare_name() -> None:
    paths = sorted(CONFIG_FOLDER.glob("*.yaml"))
    assert paths, f"{CONFIG_FOLDER} holds no config"
    for path in paths:
        assert load_config(path.name) == load_config(path.stem) == load_config(path)


def test_configs_differ_in_name() -> None:
    names = [load_config(path).name for path in CONFIG_FOLDER.glob("*.yaml")]
    assert len(names) == len(set(names))


def test_an_empty_file_is_the_published_configuration(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing differs\n")
    assert load_config(path) == Config()


def nested_values() -> dict[str, Any]:
    return {
        "name": "small",
        "laterality": "image",
        "seed": 4,
        "network": {"backbone": "resnet26", "anchor_ratios": [1, 2.5], "train_batch_norm": True},
        "training": {"learning_rate": 0.02, "augmentation": {"flip": 0.5, "rotation": 6}},
        "data": {"sources": ["a.json", "b"]},
        "bag": {"members": 3, "min_votes": 2},
    }


@pytest.mark.parametrize("values", [{}, nested_values()], ids=["published", "altered"])
def test_configs_survive_yaml(values: dict[str, Any]) -> None:
    config = config_from_dict(values)
    stored = yaml.safe_load(yaml.safe_dump(config_to_dict(config)))
    assert config_from_dict(stored) == config


def test_nested_values_arrive_with_their_types() -> None:
    config = config_from_dict(nested_values())
    assert config.network.anchor_ratios == (1.0, 2.5)
    assert isinstance(config.training.augmentation.rotation, float)
    assert config.data.sources == ("a.json", "b")
    assert config.network.backbone_width == Config().network.backbone_width


def test_floats_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("training: {weight_decay: 1e-5, learning_rate: 2.5e-3}\n")  # YAML 1.1 takes 1e-5 for text
    training = load_config(path).training
    assert (training.weight_decay, training.learning_rate) == (1e-5, 2.5e-3)


@pytest.mark.parametrize(
    ("values", "unknown", "nearest"),
    [
        ({"sede": 1}, "unknown key sede", "did you mean seed?"),
        ({"network": {"bakbone": "resnet50"}}, "network.bakbone", "network.backbone?"),
        ({"training": {"lerning_rate": 1}}, "training.lerning_rate", "training.learning_rate?"),
        ({"training": {"augmentation": {"rotate": 1}}}, "augmentation.rotate;", "augmentation.rotation?"),
        ({"training": {"optimizer": "sgd"}}, "training.optimizer", "training.optimiser?"),
        ({"network": {"mask_size": 28}}, "network.mask_size", "did you mean network."),
        ({1: 2}, "unknown key 1", "did you mean"),
    ],
)
def test_unknown_keys_are_refused_by_name(values: dict[Any, Any], unknown: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values)
    assert unknown in str(caught.value) and nearest in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seed": "one"}, "seed must be int, not 'one'"),
        ({"seed": 1.5}, "seed must be int"),
        ({"seed": True}, "seed must be int, not True"),
        ({"seed": None}, "seed must be int, not None"),
        ({"name": 3}, "name must be str"),
        ({"network": 3}, "network must hold keys and values"),
        ({"network": None}, "network must hold keys and values"),
        ({"network": {"train_batch_norm": 1}}, "network.train_batch_norm must be bool"),
        ({"network": {"anchor_scales": 32}}, "network.anchor_scales must be a list"),
        ({"network": {"anchor_scales": [1, 2, "x", 4, 5]}}, "network.anchor_scales must be int"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate must be float"),
        ({"data": {"sources": "a.json"}}, "data.sources must be a list"),
        ([1, 2], "must hold keys and values"),
    ],
)
def test_wrong_types_are_refused(values: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"laterality": "left"}, "laterality"),
        ({"network": {"image_size": 250}}, "network.image_size"),
        ({"network": {"image_size": 0}}, "network.image_size"),
        ({"network": {"class_count": 1}}, "network.class_count"),
        ({"network": {"backbone": "resnet18"}}, "network.backbone"),
        ({"network": {"anchor_scales": [16, 32]}}, "network.anchor_scales"),
        ({"network": {"anchor_ratios": []}}, "network.anchor_ratios"),
        ({"network": {"mean_pixel": [1.0]}}, "network.mean_pixel"),
        ({"network": {"rpn_channels": 0}}, "network.rpn_channels"),
        ({"proposals": {"nms_threshold": 1.2}}, "proposals.nms_threshold"),
        ({"proposals": {"box_std": [0.1, 0.1, 0.2, 0.0]}}, "proposals.box_std"),
        ({"targets": {"positive_fraction": 0}}, "targets.positive_fraction"),
        ({"targets": {"max_instances": 0}}, "targets.max_instances"),
        ({"detection": {"min_score": 1.5}}, "detection.min_score"),
        ({"detection": {"nms_threshold": 0}}, "detection.nms_threshold"),
        ({"data": {"sources": []}}, "data.sources"),
        ({"data": {"train_fraction": 1}}, "data.train_fraction"),
        ({"data": {"members": "each"}}, "data.members"),
        ({"training": {"precision": "float64"}}, "training.precision must be one of float32, float16, bfloat16"),
        ({"training": {"optimiser": "lion"}}, "training.optimiser"),
        ({"training": {"schedule": "linear"}}, "training.schedule"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate"),
        ({"training": {"batch_size": 0}}, "training.batch_size"),
        ({"training": {"heads_epochs": 0, "all_epochs": 0}}, "training.heads_epochs"),
        ({"training": {"heads_epochs": -1}}, "training.heads_epochs"),
        ({"training": {"loss_weights": [1, 1]}}, "training.loss_weights"),
        ({"training": {"augmentation": {"noise": -0.1}}}, "training.augmentation.noise"),
        ({"bag": {"members": 2, "min_votes": 3}}, "bag.min_votes"),
        ({"bag": {"members": 0, "min_votes": 0}}, "bag.m"),
        ({"bag": {"min_agreement": 1.5}}, "bag.min_agreement"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"seed: [1", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"- 1\n- 2\n", "must hold keys and values"),
        (b"just text", "must hold keys and values"),
        (b"sede: 1", "did you mean seed?"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chests.yaml").write_text("name: chests\n")
    monkeypatch.setattr(config_module, "CONFIG_FOLDER", tmp_path)
    assert load_config("chests").name == load_config("chests.yaml").name == "chests"
    with pytest.raises(ConfigError, match="wrists.*known are chests.yaml"):
        load_config("wrists")
    with pytest.raises(ConfigError, match="there is no such config"):
        load_config(tmp_path / "wrists.yaml")


def test_a_config_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3  # type: ignore[misc]


def test_masks_are_twice_the_pool() -> None:
    assert Config().network.mask_size == 2 * Config().network.mask_pool_size
