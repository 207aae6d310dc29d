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
    apply_settings,
    config_from_dict,
    config_to_dict,
    learned_part,
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
        ({"network": {"anchor_scales": [16, 32, 0, 128, 256]}}, "network.anchor_scales must be above 0"),
        ({"network": {"anchor_ratios": []}}, "network.anchor_ratios"),
        ({"network": {"anchor_ratios": [1, -1]}}, "network.anchor_ratios must be above 0"),
        ({"network": {"mean_pixel": [0, 0, 300]}}, "network.mean_pixel must be in"),
        ({"network": {"box_pool_size": 1}}, "network.box_pool_size must be 2 or more"),
        ({"network": {"mask_pool_size": 0}}, "network.mask_pool_size must be 1 or more"),
        ({"network": {"mean_pixel": [1.0]}}, "network.mean_pixel"),
        ({"network": {"rpn_channels": 0}}, "network.rpn_channels"),
        ({"proposals": {"nms_threshold": 1.2}}, "proposals.nms_threshold"),
        ({"proposals": {"box_std": [0.1, 0.1, 0.2, 0.0]}}, "proposals.box_std"),
        ({"proposals": {"box_std": []}}, "proposals.box_std"),
        ({"targets": {"anchors_per_image": 0}}, "targets.anchors_per_image must be 2 or more"),
        ({"targets": {"rois_per_image": 1}}, "targets.rois_per_image must be 2 or more"),
        ({"targets": {"max_instances": 1}}, "targets.max_instances must be 2 or more"),
        ({"detection": {"max_instances": 1}}, "detection.max_instances must be 2 or more"),
        ({"seed": -1}, "seed must not be negative"),
        ({"seed": 2**31}, "seed must not be beyond"),
        ({"targets": {"max_instances": 10**4000}}, "targets.max_instances must not be beyond"),
        ({"targets": {"positive_fraction": 0}}, "targets.positive_fraction"),
        ({"targets": {"max_instances": 0}}, "targets.max_instances"),
        ({"detection": {"min_score": 1.5}}, "detection.min_score"),
        ({"detection": {"nms_threshold": 0}}, "detection.nms_threshold"),
        ({"data": {"sources": []}}, "data.sources"),
        ({"data": {"sources": ["a.json", " "]}}, "data.sources"),
        ({"data": {"sources": ["a\0"]}}, "data.sources"),
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
        ({"training": {"momentum": 1}}, "training.momentum must be below 1"),
        ({"training": {"loss_weights": [1, 1]}}, "training.loss_weights"),
        ({"training": {"loss_weights": [0, 0, 0, 0, 0]}}, "training.loss_weights"),
        ({"training": {"loss_weights": [1, 1, 1, 1, -1]}}, "training.loss_weights"),
        ({"training": {"augmentation": {"flip": 1.5}}}, "training.augmentation.flip"),
        ({"training": {"augmentation": {"scale": 900}}}, "training.augmentation.scale"),
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


@pytest.mark.parametrize("value", [float("nan"), -float("inf"), 10**400])
@pytest.mark.parametrize(
    ("section", "key"),
    [(section, key) for section, values in config_to_dict(Config()).items() if isinstance(values, dict)
     for key, held in values.items() if isinstance(held, float)],
)
def test_numbers_must_be_finite(section: str, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{section}.{key} must be a finite number"):
        config_from_dict({section: {key: value}})
    assert isinstance(getattr(getattr(Config(), section), key), float)


@pytest.mark.parametrize("key", ["anchor_ratios", "mean_pixel"])
def test_numbers_in_lists_must_be_finite(key: str) -> None:
    with pytest.raises(ConfigError, match=f"network.{key} must be a finite number"):
        config_from_dict({"network": {key: [1, 1, float("nan")]}})


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", ".hidden", "a ", " a", "a.", "a\nb", "a\x00b", "a\u202eb", "a" * 101, "ä" * 150, "a*b",
     "a[b]", "c:d", "\ud800"],
)
def test_a_name_is_a_plain_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be a plain file name") as caught:
        config_from_dict({"name": name})
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lungs", "lungs_small-2.1", "Lungen ä 3", "肺", "a" * 100])
def test_other_names_are_taken(name: str) -> None:
    assert config_from_dict({"name": name}).name == name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed: 1\nname: a\nseed: 2\n", "line 3: the key seed stands twice, first in line 1"),
        ("network:\n  rpn_channels: 8\n  backbone: resnet26\n  rpn_channels: 9\n", "line 4: the key rpn_channels"),
        ("training: {augmentation: {flip: 0.1, noise: 0, flip: 0.2}}\n", "line 1: the key flip"),
        ("bag: {members: 1, min_votes: 1}\n'bag': {opening: 2}\n", "line 2: the key bag"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_one_key_in_two_sections_or_over_a_merge_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("targets: &lungs {max_instances: 3}\ndetection: {<<: *lungs, min_score: 0.5}\n")
    config = load_config(path)
    assert config.targets.max_instances == config.detection.max_instances == 3
    path.write_text("targets: &lungs {max_instances: 3}\ndetection: {<<: *lungs, max_instances: 4}\n")
    assert load_config(path).detection.max_instances == 4


def test_a_config_to_train_is_for_two_lungs(tmp_path: Path) -> None:
    """A file that others wrote is described by a config of its own classes, so that only what a user gives is refused."""
    assert config_from_dict({"network": {"class_count": 4}}).network.class_count == 4
    path = tmp_path / "four.yaml"
    path.write_text("network: {class_count: 4}\n")
    with pytest.raises(ConfigError, match="four.yaml: network.class_count must be 3, background and the two lungs, not 4"):
        load_config(path)
    with pytest.raises(ConfigError, match="class_count must be 3"):
        load_config("lungs", ["network.class_count=4"])


def test_settings_change_their_values_and_no_other() -> None:
    config = apply_settings(
        Config(), ["bag.min_agreement=0.9", "name=other", "training.augmentation.flip=0.5", "training.learning_rate=1e-4",
                   "network.anchor_ratios=[1, 2]", "network.train_batch_norm=true", "data.sources=[a=b.json]"]
    )
    assert config == config_from_dict({
        "name": "other", "bag": {"min_agreement": 0.9}, "data": {"sources": ["a=b.json"]},
        "training": {"augmentation": {"flip": 0.5}, "learning_rate": 1e-4},
        "network": {"anchor_ratios": [1, 2], "train_batch_norm": True},
    })
    assert apply_settings(config, []) is config


def test_settings_that_only_go_together_go_in_any_order() -> None:
    for settings in (["bag.members=1", "bag.min_votes=1"], ["bag.min_votes=1", "bag.members=1"]):
        assert apply_settings(Config(), settings).bag.members == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["bag.min_agrement=1"], "--set bag.min_agrement=1: unknown key bag.min_agrement; did you mean bag.min_agreement?"),
        (["min_agreement=1"], "did you mean bag.min_agreement?"),
        (["bag"], "--set bag: must be KEY=VALUE"),
        (["bag={members: 1}"], "bag is a section; set one of its values, such as bag.members"),
        (["bag.members"], "must be KEY=VALUE"),
        (["=1"], "unknown key"),
        (["bag.members="], "bag.members must be int, not None"),
        (["bag.members=many"], "bag.members must be int, not 'many'"),
        (["bag.members=2.0"], "bag.members must be int, not 2.0"),
        (["bag.min_agreement=[1"], "not readable as YAML"),
        (["bag.min_agreement=2"], "--set bag.min_agreement=2: bag.min_agreement must be in [0, 1]"),
        (["bag.min_agreement=.nan"], "must be a finite number"),
        (["bag.opening=2", "bag.opening=3"], "--set bag.opening=3: bag.opening is set twice"),
        (["seed=1"], "seed cannot be changed here; detection, bag can"),
        (["training.batch_size=1"], "training.batch_size cannot be changed here; detection, bag can"),
        (["training=1"], "training cannot be changed here"),
        (["detection.min_scor=1"], "did you mean detection.min_score?"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), settings, sections=("detection", "bag"))
    assert str(caught.value).startswith("--set ") and said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_learned_does_not_depend_on_how_it_is_read() -> None:
    reading = {"detection": {"min_score": 0.1}, "bag": {"members": 7, "min_agreement": 0.1}, "quality": {"min_area": 0.2}}
    assert learned_part(config_from_dict(reading)) == learned_part(Config())
    for values in ({"name": "a"}, {"laterality": "image"}, {"seed": 1}, {"network": {"rpn_channels": 1}},
                   {"proposals": {"before_nms": 1}}, {"targets": {"max_instances": 2}}, {"data": {"members": "all"}},
                   {"training": {"batch_size": 1}}):
        assert learned_part(config_from_dict(values)) != learned_part(Config())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0\n", "must hold keys and values"),
        (b"[]\n", "must hold keys and values"),
        (b"name: 2020-13-45\n", "not readable as YAML"),
        (b"[" * 10**4, "not readable as YAML"),
        (b"seed: " + b"9" * 5000, "not readable as YAML"),
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
