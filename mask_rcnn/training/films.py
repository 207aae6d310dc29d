"""The films of a training: read once, split into those to train and to validate on, shared out among the members."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mask_rcnn.config import Config
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.dataset.records import FilmRecord
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.split import member_records, split_records, split_report
from mask_rcnn.dataset.training_films import TrainingFilm, join_copies, load_films
from mask_rcnn.system.console import inform, step


class Films:
    """The films of a config's sources, in memory, for all members.

    Raises:
        DatasetError: a source cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        sources = dict.fromkeys(str(Path(source)) for source in config.data.sources)
        with step("reading films"):
            records = [record for source in sources
                       for record in read_records(source, config.laterality, config.data.patient_pattern)]
            if config.data.held_out:
                held_back = read_held_out(config.data.held_out)
                kept = [record for record in records if not held_back.why(record.path)]
                inform(f"{config.data.held_out}: {len(records) - len(kept)} of {len(records)} films are held out")
                records = kept
            # Only of films in memory is it known which are copies; none may stand on both sides.
            films = join_copies(load_films(records, config.network.image_size))
        self.read: Mapping[FilmRecord, TrainingFilm] = {film.record: film for film in films}
        train, held_out = split_records(list(self.read), config.data.train_fraction, config.seed)
        inform("\n".join(split_report(train, held_out)))
        self.train = {source: [record for record in train if record.source == source] for source in sources}
        self.validation = [self.read[record] for record in held_out]

    def of_member(self, member: int) -> list[TrainingFilm]:
        """The training films of member ``member``, from 1; a film may be there several times."""
        own = member_records(self.train, member - 1, self.config.data.members, self.config.seed)
        return [self.read[record] for record in own]
