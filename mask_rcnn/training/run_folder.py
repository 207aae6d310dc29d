"""The folder of one member's training, ``runs/NAME_K``: its checkpoint, its log, and what it was begun with.

- ``last.weights.h5``, weights and optimiser after the last whole epoch. Its notes hold the number of epochs, the last
  scores, which epoch is the best so far, the state of the random generator that samples the RoIs, and what the training was
  begun with.
- ``best.weights.h5``, the weights of the best epoch so far, as the final file will have them.
- ``log.jsonl``, the scores of each epoch and the seconds that it took, a line each.

Each file is whole after a kill at any moment. The log is written first: where it is ahead of the checkpoint, the lines ahead
are cut off when the training goes on. The best weights are written last: where they are behind, the checkpoint has them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mask_rcnn.config import Config, learned_part
from mask_rcnn.dataset.film_cache import CachedFilms, pixels_digest
from mask_rcnn.system.files import journal_contents, write_bytes
from mask_rcnn.training.best import Best, best_of
from mask_rcnn.weights import checkpoint, imagenet

if TYPE_CHECKING:
    from mask_rcnn.dataset.augmentation import Window
    from mask_rcnn.dataset.records import FilmRecord
    from mask_rcnn.dataset.training_films import TrainingFilm
    from mask_rcnn.model import MaskRCNN

# What a training begins with besides its config; must be the same when it goes on.
BEGUN_WITH = {
    "weights": "initial weights",
    "training_films": "training films",
    "validation_films": "validation films",
}

DIGEST_MARK = "2:"  # of digests of films; those of older programs, without it, are not compared

# Scores that no two runs have alike; the log alone has them.
TIMES = ("seconds", "films_per_second", "waited")


class TrainingError(ValueError):
    """A training that cannot go on; the message says why and what to do."""


class Progress(NamedTuple):
    """How far a training has come."""

    epochs: int = 0
    random_state: Sequence[int] | None = None  # of the network's generator; None before the first epoch, and in old files
    best: Best | None = None  # epoch so far; None without films to validate on, and in old files
    last: Best | None = None  # the last epoch, by the same measures


def beginning(
    training: Sequence[TrainingFilm], validation: Sequence[TrainingFilm], initial_weights: Path | None
) -> dict[str, str]:
    """What a member's training begins with, as the checkpoint's notes hold it: the keys of ``BEGUN_WITH``.

    Args:
        initial_weights: a file, ``imagenet``, or None for random weights.
    """
    weights = "random ones" if initial_weights is None else str(initial_weights)
    if initial_weights is not None and weights != imagenet.NAME:
        with initial_weights.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "weights": weights,
        "training_films": films_digest(training),
        "validation_films": films_digest(validation),
    }


def films_digest(films: Sequence[TrainingFilm]) -> str:
    """A SHA-256 of films in their order: where they lie in their source, their pixels and their labels.

    Films that were moved together with their source are the same films. Those of a cache are not read, since it has the
    digests of their pixels.
    """
    facts: Iterable[tuple[FilmRecord, Window, str]]
    if isinstance(films, CachedFilms):
        facts = ((record, films.places[record].window, films.places[record].pixels) for record in films.records)
    else:
        facts = ((film.record, film.window, pixels_digest(film)) for film in films)
    whole = hashlib.sha256()
    for record, window, pixels in facts:
        whole.update(f"{_place(record)}\n{window}\n{pixels}\n".encode("utf-8", "backslashreplace"))
    return DIGEST_MARK + whole.hexdigest()


def _place(record: FilmRecord) -> str:
    """The film's path below its source, or below the folder of the JSON; else its name alone."""
    source = Path(record.source)
    base = next((base for base in (source, source.parent) if record.path.is_relative_to(base)), record.path.parent)
    return record.path.relative_to(base).as_posix()


def read_progress(run: Path, config: Config, begun: Mapping[str, str]) -> Progress:
    """How far the training in a folder has come; nowhere where there is no checkpoint.

    Args:
        begun: what it would begin with now, as ``beginning`` gives it.

    Raises:
        CheckpointError: the checkpoint is torn, or is none.
        TrainingError: it was left by another config, or was begun with other films or weights.
    """
    last = checkpoint_path(run)
    if not last.exists():
        return Progress()
    if learned_part(checkpoint.read_config(last)) != learned_part(config):
        raise TrainingError(f"{last}: left by another config of this name; delete {run} or rename the config")
    notes = checkpoint.read_notes(last)
    try:
        epochs, random_state = int(notes["epochs"]), notes.get("random_state")
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{last}: does not tell its epochs; delete {run} to begin anew") from error
    best = Best(*notes["best"]) if notes.get("best") else None
    progress = Progress(epochs, random_state, best, best_of(None, epochs, notes))
    known = notes.get("begun_with")
    if not isinstance(known, dict):
        print(f"{last}: written by an older program, does not tell its films and first weights; going on with those given")
        return progress
    for key, words in BEGUN_WITH.items():
        if key != "weights" and isinstance(digest := known.get(key), str) and not digest.startswith(DIGEST_MARK):
            print(f"{last}: written by an older program, tells its {words} otherwise; going on with those given")
        elif known.get(key) != begun[key]:
            former = f" ({known.get(key)}, not {begun[key]})" if key == "weights" else ""
            remedy = "give the former --weights" if key == "weights" else "bring the former films back"
            raise TrainingError(f"{run}: begun with other {words}{former}; {remedy}, or delete {run} to begin anew")
    return progress


def checkpoint_path(run: Path) -> Path:
    return run / f"last{checkpoint.ENDING}"


def best_path(run: Path) -> Path:
    return run / f"best{checkpoint.ENDING}"


def log_path(run: Path) -> Path:
    return run / "log.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """The scores of each epoch, with its number, ``epoch``."""
    return [content for *_, content in journal_contents(log_path(run))]


def cut_log(run: Path, epochs: int) -> None:
    """Leaves the log's lines on the first ``epochs`` epochs, each once; a torn line goes."""
    path = log_path(run)
    if not path.exists():
        return
    whole = range(1, epochs + 1)
    lines = {content["epoch"]: content for *_, content in journal_contents(path) if content.get("epoch") in whole}
    write_bytes(path, b"".join(_log_line(content) for content in lines.values()))


def keep_epoch(
    model: MaskRCNN, run: Path, epoch: int, scores: Mapping[str, float], begun: Mapping[str, str], best: Best | None = None
) -> Progress:
    """Writes what an epoch (counted from 1) has come to; once this returns, a kill cannot lose it.

    Args:
        best: of the epochs before it.
    """
    with log_path(run).open("ab") as log:
        log.write(_log_line({"epoch": epoch, **scores}))
    best = best_of(best, epoch, scores)
    repeatable = {key: value for key, value in scores.items() if key not in TIMES}
    state = _random_state(model)
    notes = {"epochs": epoch, **repeatable, "best": best, "random_state": state, "begun_with": dict(begun)}
    checkpoint.save(model.network, model.config, checkpoint_path(run), half=False, notes=notes)
    if best and best.epoch == epoch:
        _save_best(model, run, best)
    return Progress(epoch, state, best, best_of(None, epoch, scores))


def with_best(model: MaskRCNN, run: Path, done: Progress) -> Progress:
    """The same progress, whose best weights are there: where they are not, the last ones take their place.

    A kill before the best weights were written leaves them behind the checkpoint; older programs wrote none.

    Args:
        model: with the last weights.
    """
    if done.last is None or (done.best and _holds(run, done.best)):
        return done
    _save_best(model, run, done.last)
    return done._replace(best=done.last)


def _save_best(model: MaskRCNN, run: Path, best: Best) -> None:
    checkpoint.save(model.network, model.config, best_path(run), notes=best._asdict())


def _holds(run: Path, best: Best) -> bool:
    """Whether the weights of the best epoch are there, whole."""
    try:
        return checkpoint.read_notes(best_path(run)) == best._asdict()
    except checkpoint.CheckpointError:
        return False


def _log_line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode("ascii") + b"\n"


def _random_state(model: MaskRCNN) -> list[int]:
    import keras

    return [int(number) for number in keras.ops.convert_to_numpy(model.network.lots.state.value)]


def restore_random_state(model: MaskRCNN, state: Sequence[int] | None) -> None:
    """Sets the generator that samples the RoIs; Keras keeps it in no weights file."""
    if state is not None:
        held = model.network.lots.state
        held.assign(np.array(state, held.dtype))  # which every backend chooses for itself
