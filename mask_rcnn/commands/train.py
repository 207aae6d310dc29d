"""``train.py``: trains the members of a bag one after another, each in two stages, and goes on where it was stopped.

What it writes, for member K of the config NAME:

- ``models/NAME_K.weights.h5``, the weights in 16 bits with their config inside, and ``models/NAME_K.yaml``, the config
- ``runs/NAME_K``, as ``training_run`` says, with TensorBoard's event files

On one machine a training that was stopped and gone on with ends with the same bytes as one that was not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from mask_rcnn.commands.devices import DeviceError, choose_device
from mask_rcnn.config import READING_SECTIONS, Config, ConfigError, differing_keys, learned_part, load_config
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.run.folder import RunError, sole_run
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import remove_partials_of, write_bytes
from mask_rcnn.system.memory import is_out_of_memory
from mask_rcnn.training import run_folder as training_run
from mask_rcnn.training.run_folder import TrainingError
from mask_rcnn.weights import checkpoint, imagenet
from mask_rcnn.weights.checkpoint import CheckpointError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if TYPE_CHECKING:
    from mask_rcnn.dataset.records import FilmRecord
    from mask_rcnn.dataset.training_films import TrainingFilm
    from mask_rcnn.model import MaskRCNN

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 where nothing could be done, 130 where it was stopped."""
    forgiving_streams()
    arguments = _parse(argv)
    try:
        config = load_config(arguments.config, arguments.settings)
        _refuse_bad_weights(arguments.weights)
        members = range(1, config.bag.members + 1) if arguments.member is None else [arguments.member]
        if not 1 <= members[0] <= config.bag.members:
            raise ConfigError(f"--member {members[0]}: the bag has members 1 to {config.bag.members}")
        print(choose_device(arguments.device), flush=True)
        waiting = [k for k in members if not _is_done(config, arguments.out / f"{config.name}_{k}.weights.h5")]
        if waiting:
            films = Films(config)
        for member in waiting:
            train_member(config, member, films, arguments.out, arguments.runs, arguments.weights)
    except (ConfigError, DeviceError, DatasetError, CheckpointError, TrainingError, RunError) as error:
        return _fail(error)
    except OSError as error:
        return _fail(f"{error.filename or arguments.out}: {error.strerror or error}; the same command goes on")
    except KeyboardInterrupt:
        print("train: stopped; the same command goes on after the last whole epoch", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _fail("too little memory; set training.batch_size lower, or network.image_size or the networks' channels")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train.py", description="Trains the members of a bag of Mask R-CNNs.")
    parser.add_argument("--config", required=True, help="a YAML file; a bare name is looked up in configs/")
    parser.add_argument("--member", type=int, metavar="K", help="this member alone, from 1 (default: all)")
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="weights to start from, or imagenet for the ResNet's alone (default: random ones)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help="a value in place of the config's, such as training.batch_size=4; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("models"), help="where the weights go (default: models)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and TensorBoard (default: runs)")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N (default: auto, a GPU if any)")
    return parser.parse_args(argv)


def _fail(reason: object) -> int:
    print(f"train: {reason}", file=sys.stderr)
    return 1


def _refuse_bad_weights(path: Path | None) -> None:
    """Raises CheckpointError before any work where the weights to start from are not there, or are torn."""
    if path is not None and str(path) != imagenet.NAME:
        with checkpoint.open_weights(path):
            pass


def _is_done(config: Config, weights: Path) -> bool:
    """Whether the member's final weights are there.

    Raises:
        TrainingError: they are, but were trained by another config.
    """
    if not weights.exists():
        return False
    held = checkpoint.read_config(weights)
    if learned_part(held) != learned_part(config):
        raise TrainingError(f"{weights}: trained with another config; move it away or give this config another name")
    print(f"{weights}: already trained; delete it to train it again")
    differing = differing_keys(config, held, READING_SECTIONS)
    if differing:
        print(f"{weights}: keeps its own {', '.join(differing)}; inference.py --set {differing[0]}=VALUE changes such "
              "values without training")
    return True


class Films:
    """The films of a config's sources, read once for all members."""

    def __init__(self, config: Config) -> None:
        from mask_rcnn.dataset.held_out import read_held_out
        from mask_rcnn.dataset.sources import read_records
        from mask_rcnn.dataset.split import split_records, split_report
        from mask_rcnn.dataset.training_films import join_copies, load_films

        self.config = config
        sources = dict.fromkeys(str(Path(source)) for source in config.data.sources)
        records = [record for source in sources
                   for record in read_records(source, config.laterality, config.data.patient_pattern)]
        if config.data.held_out:
            held_back = read_held_out(config.data.held_out)
            learnt = [record for record in records if not held_back.why(record.path)]
            print(f"{config.data.held_out}: {len(records) - len(learnt)} of {len(records)} films are not learnt from")
            records = learnt
        # Only of films in memory is it known which are copies; none may stand on both sides.
        films = join_copies(load_films(records, config.network.image_size))
        self.read: Mapping[FilmRecord, TrainingFilm] = {film.record: film for film in films}
        train, held_out = split_records(list(self.read), config.data.train_fraction, config.seed)
        print(*split_report(train, held_out), sep="\n", flush=True)
        self.train = {source: [record for record in train if record.source == source] for source in sources}
        self.validation = [self.read[record] for record in held_out]

    def of_member(self, member: int) -> list[TrainingFilm]:
        """The training films of member ``member``, from 1."""
        from mask_rcnn.dataset.split import member_records

        return [self.read[r] for r in member_records(self.train, member - 1, self.config.data.members, self.config.seed)]


def train_member(
    config: Config, member: int, films: Films, out: Path, runs: Path, initial_weights: Path | None = None
) -> None:
    """Trains one member, or what is left of its training, and writes its weights.

    Raises:
        CheckpointError: the weights to start from, or the checkpoint to go on from, cannot be used.
        TrainingError: the checkpoint is another config's, or was begun with other films or weights; or a loss is no longer
            finite.
    """
    run = runs / f"{config.name}_{member}"
    out.mkdir(parents=True, exist_ok=True)
    with sole_run(run):
        for ending in (checkpoint.ENDING, ".yaml"):  # other members may be written to the same folder
            remove_partials_of(out / f"{run.name}{ending}")
        _train_member(config, member, films, out, run, initial_weights)


def _train_member(
    config: Config, member: int, films: Films, out: Path, run: Path, initial_weights: Path | None
) -> None:
    import keras

    from mask_rcnn.dataset.batches import TrainingBatches
    from mask_rcnn.model import MaskRCNN

    name, own = run.name, films.of_member(member)
    begun = training_run.beginning(own, films.validation, initial_weights)
    done = training_run.read_progress(run, config, begun)
    training_run.cut_log(run, done.epochs)
    last = training_run.checkpoint_path(run)
    seed = config.seed + member
    keras.utils.set_random_seed(seed)
    model = MaskRCNN(config, config.training.precision)
    if done.epochs:
        model.load_weights(last)
        print(f"{name}: going on after epoch {done.epochs}")
    elif initial_weights is not None:
        print(f"{name}: starting from {initial_weights}", flush=True)
        for line in checkpoint.start_from(model.network, initial_weights):
            print(f"{name}: {line}")
    training_run.restore_random_state(model, done.random_state)
    different = len({film.record.path for film in own})
    print(f"{name}: {len(own)} training films, {different} of them different; {len(films.validation)} to validate on")

    training = config.training
    heads_layers = "heads"
    if initial_weights is None and training.heads_epochs:
        print(f"{name}: from random weights there is nothing to freeze: the first stage trains all layers too")
        heads_layers = "all"
    stages = [
        (0, training.heads_epochs, heads_layers, training.learning_rate),
        (
            training.heads_epochs,
            training.heads_epochs + training.all_epochs,
            "all",
            training.learning_rate * training.all_learning_rate_factor,
        ),
    ]
    validation = TrainingBatches(films.validation, config, seed, augment=False) if films.validation else None
    for first, end, layers, rate in stages:
        start = max(first, done.epochs)
        if start >= end:
            continue
        batches = TrainingBatches(own, config, seed, augment=True, first_epoch=start)
        model.compile(_schedule(config, rate, (end - first) * len(batches)), layers)
        if done.epochs > first:
            checkpoint.resume(model.network, last)  # once more: in the middle of a stage its optimiser goes on as well
        callbacks = _callbacks(model, films.validation, run, begun)
        model.fit_stage(batches, validation, start, end, callbacks, verbose=1 if sys.stdout.isatty() else 2)
    notes = {  # nothing that a stopped training would say otherwise
        "command": " ".join(sys.argv),
        "member": member,
        "films": different,
        "begun_with": begun,
        "laterality": config.laterality,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    told = yaml.safe_dump(checkpoint.config_in_file(config), sort_keys=False, allow_unicode=True)
    write_bytes(out / f"{name}.yaml", told.encode("utf-8"))
    checkpoint.save(model.network, config, out / f"{name}.weights.h5", notes=notes)
    print(f"{name}: written to {out / f'{name}.weights.h5'}", flush=True)


def _schedule(config: Config, rate: float, steps: int) -> Any:
    import keras

    return keras.optimizers.schedules.CosineDecay(rate, steps) if config.training.schedule == "cosine" else rate


def _callbacks(
    model: MaskRCNN, validation: Sequence[TrainingFilm], run: Path, begun: Mapping[str, str]
) -> list[Any]:
    """What is done after every step and epoch; the order matters: what is measured first is logged and kept after."""
    import keras

    def refuse_infinite(batch: int, logs: Mapping[str, float] | None = None) -> None:
        terms = dict(logs or {})
        if not all(np.isfinite(value) for value in terms.values()):
            listed = ", ".join(f"{key} {value:.4g}" for key, value in terms.items())
            raise TrainingError(f"a loss is not finite at step {batch + 1}: {listed}; lower training.learning_rate")

    def measure(epoch: int, logs: dict[str, float] | None = None) -> None:
        if validation and logs is not None:
            logs.update(validation_dice(model, validation))

    def keep(epoch: int, logs: Mapping[str, float] | None = None) -> None:
        scores = {key: round(float(value), 5) for key, value in (logs or {}).items()}
        training_run.keep_epoch(model, run, epoch + 1, scores, begun)

    return [
        keras.callbacks.LambdaCallback(on_train_batch_end=refuse_infinite),
        keras.callbacks.LambdaCallback(on_epoch_end=measure),
        keras.callbacks.TensorBoard(run, write_graph=False, profile_batch=0),
        keras.callbacks.LambdaCallback(on_epoch_end=keep),
    ]


def validation_dice(model: MaskRCNN, films: Sequence[TrainingFilm]) -> dict[str, float]:
    """The mean Dice of each lung's best detection over films fitted to the square: ``val_dice`` and each lung's own.

    A lung that is not found counts 0; a film that shows none of that lung does not count.
    """
    from mask_rcnn.evaluation.overlap import dice

    scores: dict[int, list[float]] = {category: [] for category in CATEGORIES}
    for film, found in zip(films, model.detect([film.film for film in films]), strict=True):
        for category in CATEGORIES:
            truth = film.labels == category
            if truth.any():
                own = np.flatnonzero(found["class_ids"] == category)
                mask = found["masks"][..., own[0]] if len(own) else np.zeros_like(truth)
                scores[category].append(dice(mask, truth))
    result = {f"val_dice_{CATEGORIES[key]}": float(np.mean(values)) for key, values in scores.items() if values}
    everything = [score for values in scores.values() for score in values]
    return {"val_dice": float(np.mean(everything)), **result} if everything else {}
