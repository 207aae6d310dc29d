"""Which films are for training and which for validation, and which member of the bag learns from which."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from mask_rcnn.dataset.patients import describe_split
from mask_rcnn.dataset.records import FilmRecord


def lot(seed: int, group: str) -> bytes:
    """By which groups are put in an order that is at random, and stays where groups are added."""
    return hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()


def split_records(
    records: Sequence[FilmRecord], train_fraction: float, seed: int
) -> tuple[list[FilmRecord], list[FilmRecord]]:
    """Training and validation films; a group stays together, and the order of the records does not matter.

    Every source is split for itself; a group that several sources share belongs to the first of them by name. The
    groups of a source are sorted by a hash of their name and the seed, so the share is exact to one group, and a source
    that grows keeps nearly all of its films on their side. Of two groups or more, each side has at least one.
    """

    homes: dict[str, str] = {}
    for record in records:
        homes[record.group] = min(record.source, homes.get(record.group, record.source))
    groups_of: dict[str, list[str]] = defaultdict(list)
    for group, home in homes.items():
        groups_of[home].append(group)
    training: set[str] = set()
    for groups in groups_of.values():
        groups.sort(key=lambda group: (lot(seed, group), group))
        training.update(groups[: min(max(round(train_fraction * len(groups)), 1), max(len(groups) - 1, 1))])
    train = [record for record in records if record.group in training]
    return train, [record for record in records if record.group not in training]


def split_report(train: Sequence[FilmRecord], validation: Sequence[FilmRecord]) -> list[str]:
    """A line for each source: its films and patients, how they are split, and where the patients come from."""
    rows = [(record.source, str(record.path), record.patient, record.patient_from) for record in chain(train, validation)]
    own = {str(record.path) for record in train}
    return describe_split(rows, own.__contains__)


def member_records(
    train_by_source: Mapping[str, Sequence[FilmRecord]], member: int, mode: str, seed: int
) -> list[FilmRecord]:
    """The training films of one member of the bag.

    Args:
        train_by_source: the training films of each source, in the config's order.
        member: from 0.
        mode: "bootstrap" samples as many films as there are, with replacement (Breiman, Bagging Predictors,
            Machine Learning 24, 1996); "all" takes every film, so that members differ by their random weights, order and
            augmentation alone; "sources" takes all films of source ``member`` modulo their count.
        seed: of the sample, together with ``member``.
    """
    if mode == "sources":
        return list(train_by_source[list(train_by_source)[member % len(train_by_source)]])
    records = sorted(chain.from_iterable(train_by_source.values()), key=lambda record: str(record.path))
    if mode == "all":
        return records
    sample = np.random.default_rng((seed, member)).integers(0, len(records), len(records))
    return [records[index] for index in sample]
