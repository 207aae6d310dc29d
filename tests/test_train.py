"""``train.py`` through its ``main``, on the phantoms: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import yaml
from lines import problems
from PIL import Image
from script import copy_phantoms
from tiny import eager_networks

from mask_rcnn.commands import train as train_command
from mask_rcnn.config import QualityConfig, config_from_dict, load_config
from mask_rcnn.dataset import batches
from mask_rcnn.dataset.batches import TrainingBatches
from mask_rcnn.dataset.records import FilmRecord
from mask_rcnn.dataset.training_films import TrainingFilm
from mask_rcnn.films.known_groups import KNOWN_COPIES
from mask_rcnn.model import MaskRCNN
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.network.losses import LOSS_NAMES
from mask_rcnn.training import (
    bag as training_bag,
    callbacks as training_callbacks,
    outcome as training_outcome,
    run_folder as training_run,
)
from mask_rcnn.training.best import Best, best_of, is_worn_out
from mask_rcnn.training.films import Films
from mask_rcnn.training.report import epoch_line
from mask_rcnn.training.validation import Validation, validate
from mask_rcnn.weights.checkpoint import CheckpointError, open_weights, read_config, read_notes

PHANTOMS = Path(__file__).resolve().parent.parent / "data" / "phantoms"

TINY = {
    "name": "tiny",
    "network": {
        "image_size": 64,
        "backbone": "resnet14",
        "backbone_width": 4,
        "pyramid_channels": 8,
        "pyramid_output_channels": 8,
        "rpn_channels": 8,
        "box_head_channels": 16,
        "mask_head_channels": 8,
        "train_batch_norm": True,
        "anchor_scales": [4, 8, 16, 32, 64],
    },
    "proposals": {"before_nms": 100, "training_count": 16, "inference_count": 8},
    "targets": {"rois_per_image": 12, "positive_fraction": 0.5, "add_ground_truth": True},
    "detection": {"min_score": 0.0},
    "data": {"sources": [str(PHANTOMS)], "members": "all"},  # so that members differ by their seeds alone
    "training": {
        "heads_epochs": 1,
        "all_epochs": 2,
        "batch_size": 7,
        "precision": "float32",  # whatever the processor
        "optimiser": "sgd",  # whose graph is half that of adam; with momentum, so that it has a state as well
        "schedule": "cosine",
        "all_learning_rate_factor": 0.5,
        "augmentation": {"rotation": 5, "apparatus": 0.5},
    },
    "bag": {"members": 1, "min_votes": 1},
}


TIMES = re.compile(rb'"(seconds|films_per_second|waited)": [\d.]+|\d+ (s|min) \|')  # that no two runs have alike

Trained = tuple[Path, list[str], list[int]]  # folder, arguments, what the command returned each time


def write_config(path: Path, **changes: object) -> Path:
    """TINY with other values; a mapping's are set within the section."""
    values: dict[str, Any] = dict(TINY)
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(values))
    return path


def command_in(folder: Path, config: Path | None = None) -> list[str]:
    config = config or write_config(folder / "tiny.yaml")
    return ["--config", str(config), "--out", str(folder / "models"), "--runs", str(folder / "runs"), "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training that nothing disturbed; ``shown.json`` has the films it was shown, ``out`` and ``err`` what it printed."""
    folder = tmp_path_factory.mktemp("training")
    command, shown, change = command_in(folder), [], batches.augment

    def note(*arguments: Any) -> Any:
        film, labels = change(*arguments)
        shown.append(hashlib.sha256(film.tobytes()).hexdigest())
        return film, labels

    save, run = training_run.checkpoint.save, folder / "runs" / "tiny_1"

    def save_and_copy(*arguments: Any, **more: Any) -> None:
        save(*arguments, **more)
        if more["notes"].get("epochs") == 2:
            shutil.copytree(run, folder / "after epoch 2")

    with (
        eager_networks(), pytest.MonkeyPatch.context() as patch, (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
    ):  # fmt: skip
        patch.setattr(batches, "augment", note)
        patch.setattr(training_run.checkpoint, "save", save_and_copy)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        codes = [train_command.main(command)]
    (folder / "shown.json").write_text(json.dumps(shown))
    return folder, command, codes


@pytest.fixture(scope="module")
def stopped(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same training as a kill in its second stage leaves it, gone on with."""
    folder = tmp_path_factory.mktemp("stopped")
    run = Path(shutil.copytree(trained[0] / "after epoch 2", folder / "runs" / "tiny_1"))
    with (run / "log.jsonl").open("ab") as log:  # ahead of the checkpoint, and torn
        log.write(b'{"epoch": 3, "loss": 1.0}\n{"epoch": 4, "lo')
    command = command_in(folder)
    with eager_networks():
        return folder, command, [train_command.main(command)]


def test_the_output_of_a_training_is_a_short_line_an_epoch(trained: Trained) -> None:
    """Into files, without bars and carriage returns."""
    folder = trained[0]
    out, err = (folder / "out").read_text(), (folder / "err").read_text()
    assert "\r" not in out + err and "\b" not in out + err
    number = r"\d+\.\d{3}"
    epochs = [line for line in out.splitlines() if re.match(r"tiny_1: epoch \d/", line)]
    assert len(epochs) == 3 and max(map(len, epochs)) < 130
    line = rf"tiny_1: epoch %d/3, loss {number}, validation {number}, Dice left {number} right {number}(, best so far)?, "
    line += r"\d+ (s|min) \(\d+%% waiting\)"
    assert re.fullmatch(line % 1 + r", \d+ (s|min) left", epochs[0]) and re.fullmatch(line % 3, epochs[2])
    logged = [json.loads(line) for line in (folder / "runs" / "tiny_1" / "log.jsonl").read_text().splitlines()]
    assert all({*LOSS_NAMES, "val_dice", "learning_rate"} <= entry.keys() for entry in logged) and len(logged) == 3
    assert problems(err) == [] and "compiling" in err


@pytest.mark.usefixtures("eagerly")
def test_a_quiet_training_prints_the_path_of_its_weights(trained: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    folder, command, _ = trained
    weights = folder / "models" / "tiny_1.weights.h5"
    weights.unlink()
    assert train_command.main([*command, "-q"]) == 0
    assert tuple(capfd.readouterr()) == (f"tiny_1: written to {weights}\n", "")


def test_a_stopped_training_ends_with_the_bytes_of_an_undisturbed_one(trained: Trained, stopped: Trained) -> None:
    """Optimiser and schedule, what RoIs are sampled, order and changes of the films and batch normalisation all go on."""
    assert trained[2] == stopped[2] == [0]
    files = ["models/tiny_1.weights.h5", "models/tiny_1.yaml", "models/tiny_1.curves.png", "models/tiny_1.predictions.png",
             "models/tiny.members.md", "runs/tiny_1/log.jsonl", "runs/tiny_1/best.weights.h5",
             "runs/cache/films_64.bin", "runs/cache/films_64.jsonl"]  # fmt: skip
    for name in files:
        one, other = (TIMES.sub(b"", (folder / name).read_bytes()) for folder in (stopped[0], trained[0]))
        assert one == other, name


def test_beside_the_weights_lie_curves_predictions_and_the_members(trained: Trained) -> None:
    models, run = trained[0] / "models", trained[0] / "runs" / "tiny_1"
    with Image.open(models / "tiny_1.curves.png") as curves, Image.open(models / "tiny_1.predictions.png") as predictions:
        assert curves.size == (4 * 420, 2 * 280) and predictions.size == (2 * 536, 24 + 288)  # 2 films to validate on
    notes = read_notes(models / "tiny_1.weights.h5")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = max(log, key=lambda entry: (entry["val_dice"], -entry["val_loss"]))
    assert notes["best_epoch"] == best["epoch"] and notes["epochs"] == 3
    assert notes["scores"] == {key: value for key, value in best.items() if key not in ("epoch", *training_run.TIMES)}
    head, rule, *rows = (models / "tiny.members.md").read_text().splitlines()[2:]
    assert head == "| member | seed | films | epochs | best epoch | Dice left | Dice right | time |"
    dices = " | ".join(f"{best[f'val_dice_{lung}']:.4f}" for lung in CATEGORIES.values())
    (row,) = rows
    assert re.fullmatch(rf"\| 1 \| 1 \| 14 \| 3 \| {best['epoch']} \| {re.escape(dices)} \| \d+ (s|min) \|", row), row
    held = MaskRCNN.load(run / "best.weights.h5").network.get_weights()
    written = MaskRCNN.load(models / "tiny_1.weights.h5").network.get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(held, written, strict=True))


def bias_in(weights: Path) -> list[float]:
    """The numbers in the bias that ``by_script`` sets."""
    with open_weights(weights) as file:
        return np.unique(file.layers["fpn_c5p5"]["bias"][()]).tolist()


def by_script(monkeypatch: pytest.MonkeyPatch, dices: dict[int, float], stop_at: int = 0) -> list[int]:
    """Has epochs, from 1, take no step and come to these Dice; each sets one weight to its number. Gives the epochs."""
    began: list[int] = []

    def pretend(model: MaskRCNN, batches: Any, validation: Any, start: int, end: int, callbacks: Any, verbose: int) -> None:
        listed = keras.callbacks.CallbackList(callbacks, model=model.network)
        model.network.stop_training = False
        listed.on_train_begin()
        for epoch in range(start, end):
            if epoch + 1 == stop_at:
                raise KeyboardInterrupt
            began.append(epoch + 1)
            listed.on_epoch_begin(epoch)
            listed.on_train_batch_begin(0)
            listed.on_train_batch_end(0, {"loss": 1.0})
            bias = model.network.named_layers()["fpn_c5p5"].bias
            bias.assign(np.full(bias.shape, epoch + 1))
            listed.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.0})
            if model.network.stop_training:
                break
        listed.on_train_end()

    def validate_by_script(model: MaskRCNN, films: Any, wanted: Any) -> Validation:
        nothing = dict.fromkeys(CATEGORIES, np.zeros((64, 64), bool))
        return Validation({"val_dice": dices[began[-1]]} if began else {}, dict.fromkeys(wanted, nothing))

    monkeypatch.setattr(MaskRCNN, "fit_stage", pretend)
    for module in (training_callbacks, training_outcome):
        monkeypatch.setattr(module, "validate", validate_by_script)
    return began


@pytest.mark.usefixtures("eagerly")
def test_the_best_epoch_is_kept_and_waited_for_in_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first stage gives up after its fourth epoch, the second after its fourth; killed in between, it is the same."""
    dices = {1: 0.2, 2: 0.5, 3: 0.5, 4: 0.3, 7: 0.1, 8: 0.6, 9: 0.55, 10: 0.6}
    config = write_config(tmp_path / "tiny.yaml", training={"heads_epochs": 6, "all_epochs": 8, "patience": 2})
    command, run = command_in(tmp_path, config), tmp_path / "runs" / "tiny_1"
    weights = tmp_path / "models" / "tiny_1.weights.h5"
    with monkeypatch.context() as patch:
        assert by_script(patch, dices, stop_at=9) == [] and train_command.main(command) == 130
    assert not weights.exists() and read_notes(run / "best.weights.h5")["epoch"] == 8
    capsys.readouterr()
    (run / "best.weights.h5").unlink()  # as a kill right after the checkpoint of epoch 8 leaves it
    began = by_script(monkeypatch, dices)
    assert train_command.main(command) == 0 and began == [9, 10]
    said = capsys.readouterr().out
    assert "no better Dice for 2 epochs" in said and "epoch 8 of 10 is the best, with a Dice of 0.600" in said
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {entry["epoch"]: entry["val_dice"] for entry in log} == dices
    assert bias_in(weights) == [8] and read_notes(weights)["best_epoch"] == 8
    weights.unlink()
    began.clear()
    assert train_command.main(command) == 0 and not began, "a stage that gave up is not gone on with"
    assert bias_in(weights) == [8]


def test_which_epoch_is_best() -> None:
    best = best_of(None, 1, {"val_dice": 0.0, "val_loss": 3.0})
    assert best == Best(1, 0.0, 3.0) and best_of(best, 2, {"loss": 1.0}) == best
    assert best_of(best, 2, {"val_dice": 0.0, "val_loss": 3.0}) == best, "of equal ones the earlier"
    assert best_of(best, 2, {"val_dice": 0.0, "val_loss": 2.0}) == Best(2, 0.0, 2.0)
    assert best_of(Best(2, 0.5, 1.0), 3, {"val_dice": 0.4, "val_loss": 0.5}) == Best(2, 0.5, 1.0)
    waits = [(None, 9, 0, 3), (Best(2, 0, 0), 4, 0, 3), (Best(2, 0, 0), 7, 5, 3), (Best(2, 0, 0), 90, 0, 0)]
    assert not any(is_worn_out(*case) for case in waits)
    assert is_worn_out(Best(2, 0, 0), 5, 0, 3) and is_worn_out(Best(2, 0, 0), 8, 5, 3)


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_bag, "Films", stop)
    assert train_command.main(command_in(tmp_path)) == 130
    assert capsys.readouterr().err == "train: stopped; the same command goes on after the last whole epoch\n"


def test_each_epoch_shows_its_films_otherwise(trained: Trained) -> None:
    shown = json.loads((trained[0] / "shown.json").read_text())
    # Three epochs of 14 films; Keras asks for the first batch of a stage twice, to see what a batch holds.
    assert len(set(shown)) >= 3 * 14


def test_the_weights_carry_their_config_and_load(trained: Trained) -> None:
    folder, _, _ = trained
    config = load_config(folder / "tiny.yaml")
    path = folder / "models" / "tiny_1.weights.h5"
    assert read_config(path) == config
    told = yaml.safe_load(path.with_name("tiny_1.yaml").read_text())
    assert "quality" not in told and load_config(path.with_name("tiny_1.yaml")) == config
    assert MaskRCNN.load(path).config == config


@pytest.mark.usefixtures("eagerly")
def test_a_training_killed_before_its_weights_were_written_writes_them(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, command, _ = trained
    path = folder / "models" / "tiny_1.weights.h5"
    before = path.read_bytes()
    path.unlink()
    assert train_command.main(command) == 0
    assert "tiny_1: going on after epoch 3" in capsys.readouterr().out
    assert path.read_bytes() == before


@pytest.mark.usefixtures("eagerly")
def test_settings_on_which_no_weight_depends_may_change(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither what is trained nor the checkpoint is refused; the file keeps what it says of them."""
    folder, command, _ = trained
    path = folder / "models" / "tiny_1.weights.h5"
    before = path.read_bytes()
    changes = ["--set", "bag.min_agreement=0.5", "--set", "detection.min_score=0.1", "--set", "quality.min_area=0.01"]
    assert train_command.main([*command, *changes]) == 0
    said = capsys.readouterr().out
    assert f"{path}: already trained" in said and path.read_bytes() == before
    assert f"{path}: keeps its own detection.min_score, bag.min_agreement; inference.py --set detection.min_score=" in said
    path.unlink()
    assert train_command.main([*command, *changes]) == 0
    config = read_config(path)
    assert config.bag.min_agreement == 0.5 and config.detection.min_score == 0.1 and config.quality == QualityConfig()
    path.write_bytes(before)
    capsys.readouterr()
    # Of a larger bag the first members are trained already.
    assert train_command.main([*command, "--set", "bag.members=7", "--member", "1"]) == 0
    assert "already trained" in capsys.readouterr().out
    assert train_command.main([*command, "--set", "training.batch_size=2"]) == 1
    assert "another config" in capsys.readouterr().err


def test_a_training_goes_on_with_what_it_was_begun_with(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phantoms moved are the same films; a changed mask and other weights are said."""
    runs = tmp_path / "runs"
    shutil.copytree(trained[0] / "runs", runs)
    shutil.copytree(PHANTOMS, tmp_path / "phantoms", ignore=shutil.ignore_patterns("*.py"))
    config = load_config(trained[0] / "tiny.yaml")
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=(str(tmp_path / "phantoms"),)))
    films, same = (Films(one, tmp_path / "cache") for one in (config, moved))
    assert (tmp_path / KNOWN_COPIES).is_file()
    begun = training_run.beginning(films.of_member(1), films.validation, None)
    assert training_run.beginning(same.of_member(1), same.validation, None) == begun
    assert training_run.read_progress(runs / "tiny_1", config, begun).epochs == 3

    in_memory = list(films.of_member(1)), list(films.validation)
    assert training_run.beginning(*in_memory, None) == begun, "a cache has the digests of its films"
    capsys.readouterr()
    older = {key: value.removeprefix(training_run.DIGEST_MARK) for key, value in begun.items()}
    assert older != begun
    with monkeypatch.context() as context:
        context.setattr(training_run.checkpoint, "read_notes", lambda path: {"epochs": 3, "begun_with": older})
        assert training_run.read_progress(runs / "tiny_1", config, begun).epochs == 3
    assert capsys.readouterr().out.count("an older program, tells its") == 2

    blank = dataclasses.replace(films.validation[0], labels=np.zeros((64, 64), np.uint8))
    other_validation = training_run.beginning(films.of_member(1), [blank, *films.validation[1:]], None)
    with pytest.raises(training_run.TrainingError, match="begun with other validation films"):
        training_run.read_progress(runs / "tiny_1", config, other_validation)

    mask = tmp_path / "phantoms" / "masks" / films.of_member(1)[0].record.path.name
    pixels = np.array(Image.open(mask))
    pixels[:200] = 0
    Image.fromarray(pixels).save(mask)
    other = Films(moved, tmp_path / "cache")
    changed = training_run.beginning(other.of_member(1), other.validation, None)
    assert changed["validation_films"] == begun["validation_films"]
    remedy = f"or delete {runs / 'tiny_1'} to begin anew"
    with pytest.raises(training_run.TrainingError, match=f"begun with other training films; bring .*{remedy}"):
        training_run.read_progress(runs / "tiny_1", config, changed)

    (tmp_path / "models").mkdir()
    weights = trained[0] / "models" / "tiny_1.weights.h5"
    command = ["--config", str(trained[0] / "tiny.yaml"), "--out", str(tmp_path / "models"), "--runs", str(runs)]
    assert train_command.main([*command, "--device", "cpu", "--weights", str(weights)]) == 1
    (error,) = problems(capsys.readouterr().err)
    assert "begun with other initial weights (random ones, not " in error and remedy in error


def test_a_checkpoint_of_an_older_program_is_gone_on_from(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "tiny_1"
    shutil.copytree(trained[0] / "runs" / "tiny_1", run)
    config = load_config(trained[0] / "tiny.yaml")
    with h5py.File(run / "last.weights.h5", "a") as file:
        del file.attrs["format"], file.attrs["program"]
        file.attrs["notes"] = json.dumps({"epochs": 2})
    assert training_run.read_progress(run, config, {}) == training_run.Progress(2, None)
    assert "does not tell its films and first weights; going on" in capsys.readouterr().out
    with h5py.File(run / "last.weights.h5", "a") as file:
        file.attrs["notes"] = "{}"
    with pytest.raises(CheckpointError, match="does not tell its epochs; delete"):
        training_run.read_progress(run, config, {})


def test_tensorboard_holds_losses_learning_rate_dice_pace_and_pictures(
    trained: Trained,
) -> None:
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _, _ = trained
    tags: set[str] = set()
    for part in ("train", "validation"):
        events = EventAccumulator(str(folder / "runs" / "tiny_1" / part))
        events.Reload()
        tags |= {f"{part}/{tag}" for tag in events.Tags()["tensors"]}
    for name in ("loss", *LOSS_NAMES):
        assert f"train/epoch_{name}" in tags
        assert f"validation/epoch_{name}" in tags
    assert {"validation/epoch_dice", "train/epoch_films_per_second", "train/epoch_seconds"} <= tags
    pictures = EventAccumulator(str(folder / "runs" / "tiny_1" / "predictions"))
    pictures.Reload()
    assert [picture.step for picture in pictures.Images("films_of_validation")] == [0, 1, 2]
    last = Image.open(io.BytesIO(pictures.Images("films_of_validation")[-1].encoded_image_string))
    assert last.size == (2 * 536, 24 + 288)
    events = EventAccumulator(str(folder / "runs" / "tiny_1" / "train"))
    events.Reload()
    rates = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_learning_rate")]
    # A cosine over each stage, read at the end of each epoch; the second stage has half the rate.
    assert rates == pytest.approx([0, 0.00025, 0], abs=1e-9)


def test_the_dice_to_validate_by() -> None:
    """Of each lung the best detection counts; one not found counts 0, and one that the film does not show not at all."""
    both, left = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    both[:, :4], both[:, 4:], left[:, 4:] = 2, 1, 1
    wrong, half = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    half[:4, 4:] = True
    found = [
        {"class_ids": np.array([1, 1]), "masks": np.stack([half, both == 1], axis=-1)},  # the second has the lower score
        {"class_ids": np.array([2, 1]), "masks": np.stack([wrong, left == 1], axis=-1)},
    ]
    model = SimpleNamespace(detect=lambda films, batch: [found[int(film[0, 0])] for film in films])

    def film_of(number: int, labels: np.ndarray, source: str = "one.json") -> TrainingFilm:
        record = FilmRecord(Path(f"{number}.png"), source, str(number))
        return TrainingFilm(record, np.full((8, 8), number, np.uint8), labels, (0, 0, 8, 8))

    films = [film_of(number, labels) for number, labels in enumerate((both, left))]
    scores, lungs = validate(model, films, [1])  # type: ignore[arg-type]
    half_dice = 2 * 16 / (16 + 32)
    assert scores == pytest.approx({
        "val_dice": (half_dice + 1 + 0) / 3, "val_dice_left_lung": (half_dice + 1) / 2, "val_dice_right_lung": 0})
    assert lungs.keys() == {1} and np.array_equal(lungs[1][1], left == 1) and not lungs[1][2].any()
    assert validate(model, [film_of(1, np.zeros((8, 8), np.uint8))]).scores == {}  # type: ignore[arg-type]

    # Of several sources each counts once, however many films it has.
    films = [film_of(0, both), film_of(0, both), film_of(1, left, "other"), film_of(1, left, "third")]
    scores = validate(model, films).scores  # type: ignore[arg-type]
    assert scores == pytest.approx({
        "val_dice": (half_dice / 2 + 1 + 1) / 3,
        "val_dice_left_lung": (half_dice + 1 + 1) / 3, "val_dice_right_lung": 0,
        "val_dice_left_lung/one": half_dice, "val_dice_right_lung/one": 0,
        "val_dice_left_lung/other": 1, "val_dice_left_lung/third": 1})
    assert epoch_line(1, 1, scores, 5).endswith(
        f"Dice left {(half_dice + 2) / 3:.3f} right 0.000 (one {half_dice:.2f} 0.00, other 1.00 -, third 1.00 -), 5 s")


def test_an_epoch_is_one_short_line() -> None:
    scores = {"loss": 1.23456, "val_loss": 0.9, **{f"{name}_loss": 0.1 for name in ("rpn_class", "mrcnn_mask")},
              "val_dice": 0.95, "val_dice_left_lung": 0.961, "val_dice_right_lung": 0.9567, "learning_rate": 1e-3}
    waited = epoch_line(3, 21, scores | {"waited": 0.042}, 63.4)
    assert waited.endswith("right 0.957, 63 s (4% waiting), 19 min left")
    line = epoch_line(3, 21, scores, 63.4)
    assert line == "epoch 3/21, loss 1.235, validation 0.900, Dice left 0.961 right 0.957, 63 s, 19 min left"
    assert epoch_line(21, 21, {"loss": 0.5}, 7230) == "epoch 21/21, loss 0.500, 2 h 00 min"
    assert epoch_line(1, 3, {"loss": 0.5, "val_dice_right_lung": 0.0}, 600) == (
        "epoch 1/3, loss 0.500, Dice right 0.000, 10 min, 20 min left")


KEEP_ON = """
import itertools, pathlib, sys
import test_train
from mask_rcnn.training import run_folder as training_run
from mask_rcnn.config import config_from_dict
from mask_rcnn.model import MaskRCNN
run, model = pathlib.Path(sys.argv[1]), MaskRCNN(config_from_dict(test_train.TINY))
model.compile(0.001)
for epoch in itertools.count(1):
    training_run.keep_epoch(model, run, epoch, {"loss": epoch / 2}, {"weights": "random ones"})
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_and_log(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    writer = subprocess.Popen([sys.executable, "-c", KEEP_ON, str(tmp_path)], env={**os.environ, "PYTHONPATH": paths})
    log = tmp_path / "log.jsonl"
    try:
        while not log.exists() or len(log.read_bytes().splitlines()) < 3:
            assert writer.poll() is None
            time.sleep(0.005)
        time.sleep(np.random.default_rng().uniform(0, 0.2))
    finally:
        writer.kill()
        writer.wait()
    config = config_from_dict(TINY)
    begun = {"weights": "random ones", "training_films": "", "validation_films": ""}
    with pytest.raises(training_run.TrainingError, match="other training films"):
        training_run.read_progress(tmp_path, config, begun)
    epochs = read_notes(tmp_path / "last.weights.h5")["epochs"]
    assert epochs >= 2
    model = MaskRCNN(config)
    model.load_weights(tmp_path / "last.weights.h5")
    training_run.cut_log(tmp_path, epochs)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [{"epoch": epoch, "loss": epoch / 2} for epoch in range(1, epochs + 1)]


def test_trained_members_are_left_alone(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, command, _ = trained
    before = (folder / "models" / "tiny_1.weights.h5").stat().st_mtime_ns
    assert train_command.main(command) == 0
    assert "already trained" in capsys.readouterr().out
    assert (folder / "models" / "tiny_1.weights.h5").stat().st_mtime_ns == before


def test_weights_of_another_config_are_not_overwritten(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, command, _ = trained
    other = write_config(tmp_path / "tiny.yaml", seed=7)
    assert train_command.main(["--config", str(other), *command[2:]]) == 1
    assert "another config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"sources": ["/nowhere/dataset.json"]}}, "/nowhere/dataset.json: there is no such file"),
        ({"training": {"lerning_rate": 1}}, "unknown key training.lerning_rate"),
        ({"network": {"class_count": 4}}, "network.class_count must be 3"),
        ({"name": "a/b"}, "name must be a plain file name"),
    ],
)
def test_what_cannot_be_done_gets_one_line(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_command.main(command_in(tmp_path, write_config(tmp_path / "tiny.yaml", **change))) == 1
    (error,) = problems(capsys.readouterr().err)
    assert message in error
    assert not (tmp_path / "models").exists()


def test_wrong_settings_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command.main([*command_in(tmp_path), "--set", "bag.min_agrement=1"]) == 1
    error = capsys.readouterr().err
    assert "did you mean bag.min_agreement?" in error and error.count("\n") == 1


def test_weights_that_are_not_there_stop_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_bag, "Films", lambda *_: pytest.fail("films are read"))
    for weights in (tmp_path / "absent.h5", tmp_path):
        assert train_command.main([*command_in(tmp_path), "--weights", str(weights)]) == 1
        assert capsys.readouterr().err == f"train: {weights}: there is no such file; check the path\n"


def test_too_little_memory_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_memory(*_: object) -> None:
        np.zeros((2**20, 2**20, 4))

    monkeypatch.setattr(training_bag, "Films", fill_memory)
    assert train_command.main(command_in(tmp_path)) == 1
    (error,) = problems(capsys.readouterr().err)
    assert "too little memory; set training.batch_size lower" in error


@pytest.mark.usefixtures("eagerly")
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hot = write_config(tmp_path / "hot.yaml", training={
        "optimiser": "sgd", "schedule": "constant", "learning_rate": 1e30, "heads_epochs": 0, "all_epochs": 1})
    assert train_command.main([*command_in(tmp_path, hot), "--member", "1"]) == 1
    (error,) = problems(capsys.readouterr().err)
    assert "a loss is not finite at step " in error and "lower training.learning_rate" in error
    assert not list((tmp_path / "models").iterdir()) and not (tmp_path / "runs" / "tiny_1" / "last.weights.h5").exists()


def test_weights_to_start_from_must_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = tmp_path / "torn.weights.h5"
    torn.write_bytes(b"no HDF5")
    assert train_command.main([*command_in(tmp_path), "--weights", str(torn)]) == 1
    assert f"{torn}: not an HDF5 file" in capsys.readouterr().err


def test_imagenet_has_taught_no_trunk_of_this_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command.main([*command_in(tmp_path), "--weights", "imagenet"]) == 1
    (error,) = problems(capsys.readouterr().err)
    assert error.startswith("train: imagenet: there are no such weights for resnet14 of backbone_width 4; set")


def test_a_member_starts_from_weights_of_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The heads for the classes are new, and learn first: in the first stage the trunk stays as it was given.

    Through the command the one training that is traced.
    """
    start = tmp_path / "four.weights.h5"
    MaskRCNN(config_from_dict({**TINY, "network": {**TINY["network"], "class_count": 4}})).save(start)  # type: ignore
    config = write_config(tmp_path / "tiny.yaml", training={"all_epochs": 0})
    assert train_command.main([*command_in(tmp_path, config), "--weights", str(start)]) == 0
    said = capsys.readouterr().out
    assert f"tiny_1: starting from {start}\n" in said
    left_out = "left out mrcnn_class_logits, mrcnn_bbox_fc, mrcnn_mask: the file has 4 classes, the config 3"
    assert f"tiny_1: {left_out}\n" in said
    trained = tmp_path / "models" / "tiny_1.weights.h5"
    assert read_notes(trained)["begun_with"]["weights"] == hashlib.sha256(start.read_bytes()).hexdigest()
    assert "random weights" not in said
    with open_weights(start) as before, open_weights(trained) as after:
        assert after.layers.keys() == before.layers.keys()
        changed = {name for name, variables in after.layers.items() for variable, held in variables.items()
                   if not np.array_equal(before.layers[name][variable][()], held[()])}
    assert changed and all(name.startswith(("fpn_", "rpn_", "mrcnn_")) for name in changed)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(("start", "learns"), [(None, True), (Path("weights.h5"), False), (Path("imagenet"), False)])
def test_the_normalisation_learns_from_random_weights_alone(
    start: Path | None, learns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(write_config(tmp_path / "frozen.yaml", network={"train_batch_norm": False}))
    taught: list[bool] = []
    monkeypatch.setattr(training_bag, "train_member", lambda config, *_: taught.append(config.network.train_batch_norm))
    training_bag.train_bag(config, [1], tmp_path, tmp_path / "runs", start)
    assert taught == [learns] and ("the batch normalisation learns, too" in capsys.readouterr().out) == learns


def test_members_learn_by_seeds_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its seed a member's first weights, the order and changes of its films and its anchors differ from the others'."""
    shown: list[tuple[int, np.ndarray]] = []

    def note(model: MaskRCNN, batches: TrainingBatches, *_: Any, **__: Any) -> None:
        shown.append((batches.seed, model.network.named_layers()["fpn_c5p5"].get_weights()[0]))

    monkeypatch.setattr(MaskRCNN, "fit_stage", note)
    config = write_config(tmp_path / "tiny.yaml", training={"heads_epochs": 0}, bag={"members": 2}, seed=5)
    assert train_command.main(command_in(tmp_path, config)) == 0
    assert [seed for seed, _ in shown] == [6, 7]
    assert not np.array_equal(shown[0][1], shown[1][1])


def test_films_that_are_held_out_are_not_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_phantoms(tmp_path / "openist", 6)
    names = [path.name for path in sorted((folder / "images").glob("*"))]
    held_out = tmp_path / "held_out.csv"
    held_out.write_text(f"set,file,why\nopenist,images/{names[1]},held\nopenist,images/{names[4]},copy\n")
    config = config_from_dict({**TINY, "data": {"sources": [str(folder)], "held_out": str(held_out)}})
    films = Films(config, tmp_path / "cache")
    read = [record.path.name for record in films.read.records]
    assert sorted(read) == [names[k] for k in (0, 2, 3, 5)]
    assert f"{held_out}: 2 of 6 films are held out" in capsys.readouterr().out
    shown = [*films.of_member(1), *films.validation]
    assert {film.record.path.name for film in shown} <= set(read)


def test_a_list_of_films_that_is_not_there_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "tiny.yaml", data={"held_out": str(tmp_path / "absent.csv")})
    assert train_command.main(command_in(tmp_path, config)) == 1
    error = capsys.readouterr().err
    assert "absent.csv: not readable as a table" in error and "make it with scripts/hold_out.py" in error
