"""Trains the members of a bag one after another, each in two stages, and goes on where it was stopped.

Several processes, each with its share of every batch, train as one does. The first one reads and writes all that lies in
the folders, and validates the Dice; the others take from it how far a training has come, and when a stage ends.

What is written, for member K of the config NAME:

- ``OUT/NAME_K.weights.h5``, the weights of its best epoch in 16 bits with their config inside, and ``OUT/NAME_K.yaml``, the
  config; beside them what ``outcome`` renders
- ``RUNS/NAME_K``, as ``run_folder`` describes it, with TensorBoard's event files
- ``RUNS/cache``, the films of all members, as ``film_cache`` describes it, and ``RUNS/copies.npz``, the copies among them

The best epoch is that of the best Dice on the films to validate on; without any it is the last one.

On one machine a training that was stopped and gone on with ends with the same bytes as one that was not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mask_rcnn.config import READING_SECTIONS, Config, differing_keys, learned_part
from mask_rcnn.run.folder import sole_run
from mask_rcnn.system.console import inform, note, step
from mask_rcnn.system.files import remove_partials_of, write_bytes
from mask_rcnn.system.precision import fixed_precision
from mask_rcnn.system.workers import ALONE, Workers
from mask_rcnn.training import outcome, run_folder
from mask_rcnn.training.best import Best, is_worn_out
from mask_rcnn.training.callbacks import callbacks_of, refuse_infinite
from mask_rcnn.training.films import Films
from mask_rcnn.training.report import epoch_report
from mask_rcnn.training.run_folder import TrainingError
from mask_rcnn.training.stages import from_random_weights, schedule_of, stages_of
from mask_rcnn.weights import checkpoint

if TYPE_CHECKING:
    from mask_rcnn.dataset.film_cache import CachedFilms
    from mask_rcnn.model import MaskRCNN


def train_bag(
    config: Config, members: Iterable[int], out: Path, runs: Path, initial_weights: Path | None = None,
    workers: Workers = ALONE, precision: str | None = None,
) -> list[Path]:  # fmt: skip
    """Trains those of these members, from 1, that are not trained yet; returns the weights of all of them.

    Args:
        out: folder of the weights.
        runs: folder of checkpoints and TensorBoard.
        initial_weights: a file to start from, ``imagenet``, or None for random weights.
        workers: the processes that train together.
        precision: in which the networks compute, as ``MaskRCNN`` takes it; None goes by the config, whose ``auto`` then is
            float32: ``choose_precision`` knows the processor.

    Raises:
        DatasetError: the films cannot be read, or used.
        CheckpointError, TrainingError, RunError: as ``train_member``, or weights that are there are another config's.
    """
    if initial_weights is None and not config.network.train_batch_norm:
        inform(f"{config.name}: from random weights the batch normalisation learns, too (network.train_batch_norm)")
        config = from_random_weights(config)
    weights = {member: out / f"{config.name}_{member}{checkpoint.ENDING}" for member in members}
    waiting = [member for member, path in weights.items() if workers.is_first and not is_trained(config, path)]
    waiting = workers.from_first(waiting)
    if waiting:
        films = Films(config, runs / "cache")
    for member in waiting:
        train_member(config, member, films, out, runs, initial_weights, workers, precision)
    if workers.is_first:
        outcome.write_members(config, out, runs)
    workers.from_first("done")  # as long as the first one is at work, none leaves it
    return list(weights.values())


def is_trained(config: Config, weights: Path) -> bool:
    """Whether a member's final weights are there.

    Raises:
        CheckpointError: they are torn.
        TrainingError: they were trained by another config.
    """
    if not weights.exists():
        return False
    held = checkpoint.read_config(weights)
    if learned_part(held) != learned_part(config):
        raise TrainingError(f"{weights}: trained with another config; move it away or give this config another name")
    inform(f"{weights}: already trained; delete it to train it again")
    differing = differing_keys(config, held, READING_SECTIONS)
    if differing:
        inform(f"{weights}: keeps its own {', '.join(differing)}; inference.py --set {differing[0]}=VALUE changes such "
               "values without training")
    return True


def train_member(
    config: Config, member: int, films: Films, out: Path, runs: Path, initial_weights: Path | None = None,
    workers: Workers = ALONE, precision: str | None = None,
) -> None:  # fmt: skip
    """Trains one member, or what is left of its training; the first process writes its weights.

    Raises:
        CheckpointError: the weights to start from, or the checkpoint to go on from, cannot be used.
        TrainingError: the checkpoint is another config's, or was begun with other films or weights; or a loss is no longer
            finite.
        RunError: another process trains it.
    """
    run = runs / f"{config.name}_{member}"
    out.mkdir(parents=True, exist_ok=True)
    with sole_run(run) if workers.is_first else nullcontext():
        if workers.is_first:
            for ending in (checkpoint.ENDING, ".yaml"):  # other members may be written to the same folder
                remove_partials_of(out / f"{run.name}{ending}")
        own = films.of_member(member)
        begun = run_folder.beginning(own, films.validation, initial_weights)
        if begun != workers.from_first(begun):
            raise TrainingError(f"{run.name}: begun with other films or first weights than those of the first process; give "
                                "all processes the same config, films and --weights")
        model, progress = _train(
            config, config.seed + member, own, films.validation, run, begun, initial_weights, workers, precision
        )
        if not workers.is_first:
            return
        path = out / f"{run.name}{checkpoint.ENDING}"
        outcome.write_curves(run_folder.read_log(run), progress.best and progress.best.epoch, path)
        outcome.write_predictions(model, films.validation, path)
        _write(model, path, run, {
            "member": member, "seed": config.seed + member, "films": count_different(own), "epochs": progress.epochs,
            "best_epoch": progress.best.epoch if progress.best else progress.epochs, "begun_with": begun,
        })  # fmt: skip


def _train(
    config: Config, seed: int, own: CachedFilms, held_out: CachedFilms, run: Path, begun: Mapping[str, str],
    initial_weights: Path | None, workers: Workers, precision: str | None,
) -> tuple[MaskRCNN, run_folder.Progress]:  # fmt: skip
    """The model with its best weights, and how far it came; its checkpoint and log lie in ``run``."""
    import keras

    from mask_rcnn.dataset.batches import TrainingBatches
    from mask_rcnn.model import MaskRCNN

    name, last = run.name, run_folder.checkpoint_path(run)
    done = run_folder.Progress()
    if workers.is_first:
        done = run_folder.read_progress(run, config, begun)
        run_folder.cut_log(run, done.epochs)
    keras.utils.set_random_seed(seed)
    with step("building the network"):
        model = MaskRCNN(config, precision or fixed_precision(config.training.precision), workers=workers)
    if done.epochs:
        model.load_weights(last)
        inform(f"{name}: going on after epoch {done.epochs}")
        done = run_folder.with_best(model, run, done)
    elif initial_weights is not None:
        inform(f"{name}: starting from {initial_weights}")
        for line in checkpoint.start_from(model.network, initial_weights):
            inform(f"{name}: {line}")
    run_folder.restore_random_state(model, done.random_state)
    epochs, best = workers.from_first([done.epochs, done.best])
    done = done._replace(epochs=epochs, best=best and Best(*best))
    different = count_different(own)
    inform(f"{name}: {len(own)} training films, {different} of them different; {len(held_out)} to validate on")
    if initial_weights is None and config.training.heads_epochs:
        inform(f"{name}: from random weights there is nothing to freeze: the first stage trains all layers too")

    stages = stages_of(config.training, from_random=initial_weights is None)
    share = workers.number, workers.count
    validation = TrainingBatches(held_out, config, seed, augment=False, share=share) if held_out else None
    for stage in stages:
        start = max(stage.first, done.epochs)
        if start >= stage.end or is_worn_out(done.best, done.epochs, stage.first, config.training.patience):
            continue
        sources = [record.source for record in own.records]
        batches = TrainingBatches(own, config, seed, augment=True, first_epoch=start, sources=sources, share=share)
        note("compiling")  # the first step waits for it
        model.compile(schedule_of(config.training, stage, len(batches)), stage.layers)
        if done.epochs > stage.first and workers.is_first:
            checkpoint.resume(model.network, last)  # once more: in the middle of a stage its optimiser goes on as well

        workers.level([*model.network.weights, *model.network.optimizer.variables, model.network.lots.state])

        def keep(epoch: int, scores: dict[str, float], first: int = stage.first, end: int = stage.end) -> None:
            nonlocal done
            done = run_folder.keep_epoch(model, run, epoch, scores, begun, done.best)
            if epoch < end and is_worn_out(done.best, epoch, first, config.training.patience):
                inform(f"{name}: no better Dice for {config.training.patience} epochs")
                model.network.stop_training = True

        def go_on(epoch: int, logs: Mapping[str, float] | None = None) -> None:
            nonlocal done
            best = done.best if workers.is_first else None
            model.network.stop_training, best = workers.from_first([model.network.stop_training, best])
            done = done._replace(epochs=epoch + 1, best=best and Best(*best))

        callbacks = [
            *(callbacks_of(model, held_out, run, keep, config.training.batch_size, batches.ready) if workers.is_first
              else [keras.callbacks.LambdaCallback(on_train_batch_end=refuse_infinite)]),
            epoch_report(name, stages[-1].end, len(batches), lambda: done.best and done.best.epoch),
            *([keras.callbacks.LambdaCallback(on_epoch_end=go_on)] if workers.count > 1 else []),
        ]
        model.fit_stage(batches, validation, start, stage.end, callbacks, verbose=0)
    if workers.is_first and done.best and done.best.epoch < done.epochs:
        model.load_weights(run_folder.best_path(run))
        inform(f"{name}: epoch {done.best.epoch} of {done.epochs} is the best, with a Dice of {done.best.dice:.3f}")
    return model, done


def _write(model: MaskRCNN, path: Path, run: Path, notes: Mapping[str, Any]) -> None:
    """Writes the final weights, and beside them the config.

    Args:
        notes: nothing that a stopped training would have otherwise.
    """
    import keras

    of_epoch = next((entry for entry in run_folder.read_log(run) if entry["epoch"] == notes["best_epoch"]), {})
    notes = {
        "command": " ".join(sys.argv),
        **notes,
        "scores": {key: value for key, value in of_epoch.items() if key not in ("epoch", *run_folder.TIMES)},
        "laterality": model.config.laterality,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    text = yaml.safe_dump(checkpoint.config_in_file(model.config), sort_keys=False, allow_unicode=True)
    write_bytes(path.with_name(f"{path.name.removesuffix(checkpoint.ENDING)}.yaml"), text.encode("utf-8"))
    checkpoint.save(model.network, model.config, path, notes=notes)
    print(f"{path.name.removesuffix(checkpoint.ENDING)}: written to {path}", flush=True)


def count_different(films: CachedFilms) -> int:
    """How many films there are, each counted once."""
    return len({record.path for record in films.records})
