"""``train.py`` through its ``main``, on the phantoms: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from mask_rcnn import train_command
from mask_rcnn.checkpoint import read_config
from mask_rcnn.config import load_config
from mask_rcnn.losses import LOSS_NAMES
from mask_rcnn.model import MaskRCNN

PHANTOMS = Path(__file__).resolve().parent.parent / "data" / "phantoms"

TINY = {
    "name": "tiny",
    "network": {
        "image_size": 64,
        "backbone": "resnet26",
        "backbone_width": 4,
        "pyramid_channels": 8,
        "pyramid_output_channels": 8,
        "rpn_channels": 8,
        "box_head_channels": 16,
        "mask_head_channels": 8,
        "train_batch_norm": True,
        "anchor_scales": [4, 8, 16, 32, 64],
    },
    "proposals": {"before_nms": 100, "training_count": 16, "inference_count": 16},
    "targets": {"rois_per_image": 12, "positive_fraction": 0.5, "add_ground_truth": True},
    "detection": {"min_score": 0.0},
    "data": {"sources": [str(PHANTOMS)]},
    "training": {"heads_epochs": 1, "all_epochs": 2, "batch_size": 4, "optimiser": "adam", "schedule": "cosine"},
    "bag": {"members": 2, "min_votes": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, int]]:
    """A training of two members, stopped once in the second stage of member 1 and started again."""
    folder = tmp_path_factory.mktemp("training")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    command = ["--config", str(config), "--out", str(folder / "models"), "--runs", str(folder / "runs"), "--device", "cpu"]
    measured = train_command.validation_dice
    calls = 0

    def stop_in_epoch_2(*arguments: object) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return measured(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_command, "validation_dice", stop_in_epoch_2)
        stopped = train_command.main(command)
        finished = train_command.main(command)
    return folder, command, {"stopped": stopped, "finished": finished}


def test_a_stopped_training_goes_on_after_its_last_whole_epoch(trained: tuple[Path, list[str], dict[str, int]]) -> None:
    folder, _, codes = trained
    assert codes == {"stopped": 130, "finished": 0}
    for member in (1, 2):
        log = (folder / "runs" / f"tiny_{member}" / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3]


def test_the_weights_carry_their_config_and_load(trained: tuple[Path, list[str], dict[str, int]]) -> None:
    folder, _, _ = trained
    config = load_config(folder / "tiny.yaml")
    for member in (1, 2):
        path = folder / "models" / f"tiny_{member}.weights.h5"
        assert read_config(path) == config
        assert load_config(path.with_name(f"tiny_{member}.yaml")) == config
    assert MaskRCNN.load(folder / "models" / "tiny_1.weights.h5").config == config


def test_a_training_killed_before_its_weights_were_written_writes_them(
    trained: tuple[Path, list[str], dict[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, command, _ = trained
    path = folder / "models" / "tiny_2.weights.h5"
    before = MaskRCNN.load(path).network.get_weights()
    path.unlink()
    assert train_command.main(command) == 0
    assert "tiny_2: going on after epoch 3" in capsys.readouterr().out
    for old, new in zip(before, MaskRCNN.load(path).network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_tensorboard_holds_the_losses_the_learning_rate_and_the_dice(
    trained: tuple[Path, list[str], dict[str, int]],
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _, _ = trained
    tags: set[str] = set()
    for part in ("train", "validation"):
        events = EventAccumulator(str(folder / "runs" / "tiny_2" / part))
        events.Reload()
        tags |= {f"{part}/{tag}" for tag in events.Tags()["tensors"]}
    for name in ("loss", *LOSS_NAMES):
        assert f"train/epoch_{name}" in tags
        assert f"validation/epoch_{name}" in tags
    assert "train/epoch_learning_rate" in tags
    assert "validation/epoch_dice" in tags


def test_trained_members_are_left_alone(
    trained: tuple[Path, list[str], dict[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, command, _ = trained
    before = (folder / "models" / "tiny_1.weights.h5").stat().st_mtime_ns
    assert train_command.main(command) == 0
    assert "already trained" in capsys.readouterr().out
    assert (folder / "models" / "tiny_1.weights.h5").stat().st_mtime_ns == before


def test_weights_of_another_config_are_not_overwritten(
    trained: tuple[Path, list[str], dict[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command, _ = trained
    other = tmp_path / "tiny.yaml"
    other.write_text(yaml.safe_dump({**TINY, "seed": 7}))
    assert train_command.main(["--config", str(other), *command[2:]]) == 1
    assert "another config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"sources": ["/nowhere/dataset.json"]}}, "/nowhere/dataset.json: there is no such file"),
        ({"training": {"lerning_rate": 1}}, "unknown key training.lerning_rate"),
    ],
)
def test_what_cannot_be_done_gets_one_line(
    change: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({**TINY, **change}))
    folders = ["--out", str(tmp_path / "models"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert train_command.main(["--config", str(config), *folders]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_weights_to_start_from_must_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    torn = tmp_path / "torn.weights.h5"
    torn.write_bytes(b"no HDF5")
    folders = ["--out", str(tmp_path / "models"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert train_command.main(["--config", str(config), "--weights", str(torn), *folders]) == 1
    assert f"{torn}: not an HDF5 file" in capsys.readouterr().err


def test_imagenet_has_taught_no_trunk_of_this_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    folders = ["--out", str(tmp_path / "models"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert train_command.main(["--config", str(config), "--weights", "imagenet", *folders]) == 1
    error = capsys.readouterr().err
    assert error.startswith("train: imagenet: there are no such weights for resnet26 of backbone_width 4; set")
    assert error.count("\n") == 1


def test_a_training_starts_from_weights_of_other_classes(
    trained: tuple[Path, list[str], dict[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The heads for the classes are new, and learn first: in the first stage the trunk stays as it was given."""
    start, config = trained[0] / "models" / "tiny_1.weights.h5", tmp_path / "four.yaml"
    values = {
        **TINY,
        "name": "four",
        "network": {**TINY["network"], "class_count": 4},  # type: ignore[dict-item]
        "training": {**TINY["training"], "all_epochs": 0},  # type: ignore[dict-item]
    }
    config.write_text(yaml.safe_dump(values))
    folders = ["--out", str(tmp_path / "models"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert train_command.main(["--config", str(config), "--member", "1", "--weights", str(start), *folders]) == 0
    said = capsys.readouterr().out
    assert f"four_1: starting from {start}\n" in said
    left_out = "left out mrcnn_class_logits, mrcnn_bbox_fc, mrcnn_mask: the file has 3 classes, the config 4"
    assert f"four_1: {left_out}\n" in said
    assert "random weights" not in said
    before, after = (MaskRCNN.load(path).network.named_layers() for path in (start, tmp_path / "models/four_1.weights.h5"))
    changed = {
        name for name, layer in after.items()
        for old, new in zip(before[name].get_weights(), layer.get_weights(), strict=True) if not np.array_equal(old, new)
    }
    assert changed and all(name.startswith(("fpn_", "rpn_", "mrcnn_")) for name in changed)
