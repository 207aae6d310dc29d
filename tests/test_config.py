"""The config: every file in configs/ loads, what is wrong is refused by name, what is written comes back."""

from __future__ import annotations

import dataclasses
import re
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


def test_configs_open_with_command_purpose_cost_and_score() -> None:
    for path in CONFIG_FOLDER.glob("*.yaml"):
        head = path.read_text().partition("\nname:")[0].partition("\nbase:")[0]
        first, *others = head.splitlines()
        assert first.startswith("# python train.py --config ") and path.stem in first.split()[4], path
        assert [line.split(":")[0] for line in others if re.match("# (Purpose|Cost|Score):", line)] == [
            "# Purpose", "# Cost", "# Score"
        ], path


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
        ({"data": {"sources": ["a.json"], "epoch_films": [1, 2]}}, "data.epoch_films must be as many"),
        ({"data": {"sources": ["a.json"], "epoch_films": [-1]}}, "data.epoch_films must not be negative"),
        ({"data": {"sources": ["a.json", " "]}}, "data.sources"),
        ({"data": {"sources": ["a\0"]}}, "data.sources"),
        ({"data": {"train_fraction": 1}}, "data.train_fraction"),
        ({"data": {"members": "each"}}, "data.members"),
        ({"training": {"precision": "float64"}}, "training.precision must be one of auto, float32, float16, bfloat16"),
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
        ({"training": {"augmentation": {"ill": 1.5}}}, "training.augmentation.ill"),
        ({"training": {"augmentation": {"ill_kinds": ["gas", "smoke"]}}}, "training.augmentation.ill_kinds"),
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


FIVE_MISTAKES = """\
sede: 1
laterality: left
network: {image_size: 250, backbone: 26, anchor_scales: [1, 2]}
training:
  learning_rate: fast
  batch_size: 0
bag: 3
"""


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(FIVE_MISTAKES)
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["detection.min_score=2", "detection.min_scor=1", "seed", "bag.members=many"])
    assert sorted(str(caught.value).splitlines()) == sorted([
        f"{path}: unknown key sede; did you mean seed?",
        f"{path}: laterality must be patient or image",
        f"{path}: network.image_size must be a multiple of 64",
        f"{path}: network.backbone must be str, not 26",
        f"{path}: network.anchor_scales must be 5 sizes, for pyramid levels P2 to P6",
        f"{path}: training.learning_rate must be float, not 'fast'",
        f"{path}: training.batch_size must be 1 or more",
        f"{path}: bag must hold keys and values, not 3",
        "--set detection.min_score=2: detection.min_score must be in [0, 1]",
        "--set detection.min_scor=1: unknown key detection.min_scor; did you mean detection.min_score?",
        "--set seed: must be KEY=VALUE, such as bag.min_agreement=0.9",
        "--set bag.members=many: bag.members must be int, not 'many'",
    ])


def test_all_mistakes_of_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), ["bag.members=2", "bag.min_votes=3", "bag.opening=0", "bag.opening=1", "seed=1"], ["bag"])
    assert str(caught.value).splitlines() == [
        "--set bag.opening=1: bag.opening is set twice; leave one of them out",
        "--set seed=1: seed cannot be changed here; bag can",
        "--set bag.opening=0: bag.opening must be 1 or more",
        "--set bag.min_votes=3: bag.min_votes must be from 1 to bag.members",
    ]


def test_a_value_that_breaks_several_rules_is_told_once() -> None:
    for values in ({"training": {"learning_rate": -1}}, {"network": {"anchor_ratios": [float("nan")]}}):
        with pytest.raises(ConfigError) as caught:
            config_from_dict(values)
        assert "\n" not in str(caught.value)


def test_a_config_that_is_built_directly_keeps_the_rules_too() -> None:
    with pytest.raises(ConfigError, match="^seed must not be negative\nbag.min_votes must be from 1 to bag.members$"):
        dataclasses.replace(Config(), seed=-1, bag=config_module.BagConfig(members=2))


def write_configs(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(content)


def test_a_config_names_what_differs_from_its_base(tmp_path: Path) -> None:
    write_configs(
        tmp_path,
        first="name: first\nseed: 3\ntraining: {batch_size: 4, augmentation: {flip: 0.5, noise: 0.1}}\n"
              "data: {sources: [a.json, b.json]}\n",
        second="base: first.yaml\nname: second\ntraining: {augmentation: {noise: 0}}\ndata: {sources: [c.json]}\n",
        third=f"base: {tmp_path / 'second.yaml'}\nname: third\nseed: 0\n",
    )
    config = load_config(tmp_path / "third.yaml", ["training.learning_rate=0.5"])
    assert config == config_from_dict({
        "name": "third", "data": {"sources": ["c.json"]},
        "training": {"batch_size": 4, "learning_rate": 0.5, "augmentation": {"flip": 0.5, "noise": 0}},
    })
    assert config_from_dict(config_to_dict(config)) == config and "base" not in config_to_dict(config)


def test_a_base_is_looked_up_beside_the_file_and_then_among_the_configs(tmp_path: Path) -> None:
    write_configs(tmp_path, mine="base: lungs_small.yaml\nname: mine\n")
    assert load_config(tmp_path / "mine.yaml") == dataclasses.replace(load_config("lungs_small"), name="mine")
    write_configs(tmp_path, lungs_small="seed: 5\n")
    assert load_config(tmp_path / "mine.yaml") == config_from_dict({"name": "mine", "seed": 5})


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"a": "base: a.yaml\n"}, "its base a.yaml leads back to it"),
        ({"a": "base: b.yaml\n", "b": "base: c.yaml\n", "c": "base: a.yaml\n"}, "its base a.yaml leads back to it"),
        ({"a": "base: none.yaml\n"}, "its base none.yaml is neither in"),
        ({"a": "base: [b.yaml]\n"}, "base must be the name of a YAML file, not ['b.yaml']"),
        ({"a": "base:\n"}, "base must be the name of a YAML file, not None"),
        ({"a": "base: b.yaml\n", "b": "seed: [1\n"}, "b.yaml: not readable as YAML"),
        ({"a": "base: b.yaml\nseed: 1\n", "b": "- 1\n"}, "b.yaml: the file must hold keys and values"),
        ({"a": "network: {base: b.yaml}\n"}, "unknown key network.base"),
    ],
)
def test_bases_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, contents: dict[str, str], said: str) -> None:
    write_configs(tmp_path, **contents)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_mistake_is_told_of_the_file_that_holds_it(tmp_path: Path) -> None:
    write_configs(tmp_path, a="base: b.yaml\nbag: {members: 2}\nsede: 1\n", b="seed: -1\nbag: {min_vots: 1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml")
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert str(caught.value).splitlines() == [
        f"{second}: unknown key bag.min_vots; did you mean bag.min_votes?",
        f"{first}: unknown key sede; did you mean seed?",
        f"{second}: seed must not be negative",
        f"{first}: bag.min_votes must be from 1 to bag.members",
    ]


def test_a_base_is_no_key_of_a_config() -> None:
    with pytest.raises(ConfigError, match="unknown key base"):
        config_from_dict({"base": "lungs.yaml"})


def test_dotted_keys_belong_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match="unknown key training.batch_size"):
        config_from_dict({"training.batch_size": 3})


def test_configs_with_a_base_name_nothing_that_it_holds_too() -> None:
    """A value that the base holds already is a second place to change it."""
    seen = 0
    for path in sorted(CONFIG_FOLDER.glob("*.yaml")):
        values = yaml.safe_load(path.read_text())
        if not (base := values.pop("base", None)):
            continue
        seen += 1
        held = dict(leaves(config_to_dict(load_config(base))))
        assert [key for key, value in leaves(values) if held[key] == value] == [], path
    assert seen


def leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        leaf for key, value in tree.items()
        for leaf in (leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)])
    ]
