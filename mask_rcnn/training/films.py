"""The films of a training: prepared once, split into those to train and to validate on, shared out among the members."""

from __future__ import annotations

from pathlib import Path

from mask_rcnn.config import Config
from mask_rcnn.dataset.film_cache import CachedFilms, cache_films
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.split import member_records, split_records, split_report
from mask_rcnn.dataset.training_films import join_copies
from mask_rcnn.films.known_groups import KNOWN_COPIES
from mask_rcnn.system.console import inform, step


class Films:
    """The films of a config's sources, for all members.

    Args:
        cache: folder that the fitted films are kept in; the copies that are known are kept beside it.

    Raises:
        DatasetError: a source cannot be used.
        OSError: the cache cannot be written.
    """

    def __init__(self, config: Config, cache: Path) -> None:
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
            cached, fingerprints = cache_films(records, config.network.image_size, cache)
            # Only of films that were read is it known which are copies; none may stand on both sides.
            # Beside the cache, whose lock another training may hold for as long as it reads films.
            joined = join_copies(cached.records, fingerprints, cache.parent / KNOWN_COPIES)
        self.read = CachedFilms(cached.path, cached.side, dict(zip(joined, cached.places.values(), strict=True)), joined)
        train, held_out = split_records(joined, config.data.train_fraction, config.seed)
        inform("\n".join(split_report(train, held_out)))
        corrected, weight = sum(record.corrected for record in train), config.data.corrected_weight
        if corrected:
            inform(f"{corrected} of {len(train)} films to train on are corrected by a person, each counts {weight} times")
        self.train = {
            source: [record for record in train if record.source == source for _ in range(weight if record.corrected else 1)]
            for source in sources
        }
        self.validation = self.read.of(held_out)

    def of_member(self, member: int) -> CachedFilms:
        """The training films of member ``member``, from 1; a film may be there several times."""
        own = member_records(self.train, member - 1, self.config.data.members, self.config.seed)
        return self.read.of(own)
