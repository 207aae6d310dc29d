"""What is done to each film of a run, here or on a worker of a cluster: from its file to its record and its files' bytes.

Nothing here writes or knows the folder of the run, nor its journal: what has to be known of them goes with the film.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.bag.members import Described, Member, load_members, predict
from mask_rcnn.films.levels import equalise
from mask_rcnn.inference.film import film_result, recorded_result
from mask_rcnn.inference.outputs import OF_DICOM, OF_PREDICTIONS, OUTPUTS, Finished
from mask_rcnn.inference.sources import Film
from mask_rcnn.prediction import Prediction
from mask_rcnn.results.dicom_seg import SegmentationError
from mask_rcnn.results.names import PROBABILITIES, file_names
from mask_rcnn.results.page.pictures import film_pictures
from mask_rcnn.run.engine import ReadFilm, read_once
from mask_rcnn.run.journal import Entry
from mask_rcnn.runtime.choice import Runtime
from mask_rcnn.runtime.start import start_runtime
from mask_rcnn.system.backend import library_versions

NO_FILM = np.zeros((64, 64), np.uint8)


class Task(NamedTuple):
    """A film, and what has to be known to work on it."""

    film: Film
    image_id: int
    is_dicom: bool  # where objects of DICOM films are wanted
    record: Entry | None  # of the journal, where only files are missing
    missing: Sequence[str]  # kinds of files that a film with a record lacks

    @property
    def path(self) -> Path:
        """Of the film's file."""
        return self.film.path


class Made(NamedTuple):
    """All that is to be kept of a film."""

    entry: Entry  # for the journal, but for its id; one that was made from a record is that record
    contents: dict[str, bytes]  # files by their names below the folder of the run
    warnings: list[str]
    is_recorded: bool


class Predicted(NamedTuple):
    """A film as the members saw it, and what each predicts."""

    equalised: np.ndarray  # uint8 [height, width]
    predictions: Sequence[Prediction]


@dataclass(frozen=True)
class FilmWork:
    """What a run does to each of its films."""

    save: Sequence[str]  # kinds of files
    with_page: bool
    batch: int
    identity: str  # of the networks and of how their results are read

    def read(self, film: Task) -> tuple[Task, ReadFilm]:
        """Reads the film; raises what ``read_once`` does."""
        return film, read_once(film.path)

    def predict(
        self, networks: Sequence[Member], films: Sequence[tuple[Task, ReadFilm] | None]
    ) -> list[Predicted | Entry]:
        """The members' predictions on a batch of films; of one that has a record already, that."""
        records = [_record_of(*item) if item else None for item in films]
        pixels = [equalise(item[1].radiograph.pixels) if item and not record else NO_FILM
                  for item, record in zip(films, records, strict=True)]
        if all(record or not item for item, record in zip(films, records, strict=True)):
            return [record or {} for record in records]
        predictions = zip(pixels, predict(networks, pixels, self.batch), strict=True)
        return [record or Predicted(*of_film) for record, of_film in zip(records, predictions, strict=True)]

    def finish(
        self, networks: Sequence[Member], film: Task, ready: tuple[Task, ReadFilm],
        prediction: Predicted | Entry,
    ) -> Made:  # fmt: skip
        """What is kept of the film."""
        task, read = ready
        if is_recorded := isinstance(prediction, dict):
            found = recorded_result(prediction)
            kinds = [kind for kind in task.missing if kind not in OF_PREDICTIONS]
        else:
            found = film_result(
                networks, read.radiograph, prediction.equalised, read.square, read.inverted, prediction.predictions,
                PROBABILITIES in self.save,
            )  # fmt: skip
            kinds = kinds_of(self.save, task.is_dicom and bool(found.lungs))
        laterality, result = networks[0].network.config.laterality, task.film.result
        done = Finished(task.path, read.radiograph, found, laterality, len(networks), self.identity)
        contents, warnings = _contents(done, result, kinds)
        if self.with_page:  # made now, as the film is in memory
            masks = {category: lung.mask for category, lung in found.lungs.items()}
            contents |= film_pictures(task.path, read.radiograph.pixels, masks, task.image_id, read.digest)
        known_by = {"result": result, "version": read.version, "digest": read.digest}
        return Made({**known_by, **found.record}, contents, warnings, is_recorded)


def kinds_of(save: Iterable[str], has_dicom: bool = True) -> list[str]:
    """The kinds of files that are wanted of a film; DICOM objects are of DICOM films with a lung alone."""
    return [kind for kind in save if kind not in OF_DICOM or has_dicom]


def facts_of(members: Sequence[Member]) -> tuple[list[Described], dict[str, str]]:
    """What a run has to know of members that this process has loaded, and the versions of the libraries."""
    return [member.described() for member in members], library_versions() | members[0].runtime.versions()


def warm_up(members: Sequence[Member], batch: int) -> None:
    """Has the networks compiled for batches of this size."""
    predict(members, [NO_FILM], batch)


def load_on_worker(
    files: Sequence[str], settings: Sequence[str], runtime: Runtime, device: str, batch: int
) -> tuple[list[Member], list[Described], dict[str, str]]:
    """The networks, ready to predict, in a worker of a cluster, and what ``facts_of`` gives.

    Args:
        files, settings: as ``load_members`` takes them.
        runtime: which has to run here just so.
        device: "cpu" or "gpu".
        batch: films that the networks see at a time.

    Raises:
        DeviceError: the runtime does not run here.
        InferenceError: as ``load_members``.
    """
    runtime.check_here()
    start_runtime(runtime, device)
    members = load_members(files, settings, runtime)
    warm_up(members, batch)
    return members, *facts_of(members)


def _contents(done: Finished, result: str, kinds: Iterable[str]) -> tuple[dict[str, bytes], list[str]]:
    """A film's files by their names, and what its DICOM header does not allow."""
    contents: dict[str, bytes] = {}
    warnings = []
    for kind in kinds:
        try:
            contents |= zip(file_names(kind, result), OUTPUTS[kind](done), strict=True)
        except SegmentationError as error:
            warnings.append(f"no {kind} of {done.path}: {error}")
    return contents, warnings


def _record_of(task: Task, read: ReadFilm) -> Entry | None:
    """A film's record, where there is one and the film is still the same."""
    return task.record if task.record and task.record["digest"] == read.digest else None
