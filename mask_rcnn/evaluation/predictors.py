"""Mask R-CNNs as an evaluation calls them: each for itself, and bagged both ways.

Shapes
    film    uint8 [height, width], grey, bones white
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.bag.lung import Lung
from mask_rcnn.bag.members import Member, detect
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.films.levels import equalise
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import writable


class Finding(NamedTuple):
    """What a network predicts on one film; the lungs are the patient's."""

    lungs: dict[int, Lung]  # as ``inference.py`` would give them, disjoint
    detections: list[tuple[int, Lung]]  # by category: all that it detected, or the lungs of a bag


# From a batch of films to what each network, by its name, finds on them.
Find = Callable[[Sequence[np.ndarray]], dict[str, list[Finding]]]


def bag_name(pixels: str) -> str:
    """The name of a bag that merges pixels by ``votes`` or by ``probabilities``."""
    return f"bag by {pixels}"


def unique_names(paths: Sequence[Path], *suffixes: str) -> list[str]:
    """The files' names without folder and suffixes, or their paths where two have the same name."""
    names = [path.name for path in paths]
    for suffix in suffixes:
        names = [name.removesuffix(suffix) for name in names]
    return [writable(name) for name in (names if len(set(names)) == len(names) else map(str, paths))]


def with_members(members: Sequence[Member]) -> tuple[Find, str]:
    """The members of a bag, each for itself and bagged both ways; and the name of what ``inference.py`` would give."""
    config = members[0].network.config
    names = unique_names([member.path for member in members], ".h5", ".weights")
    bags = {bag_name(pixels): replace(config.bag, pixels=pixels) for pixels in ("votes", "probabilities")}

    def patients(category: int) -> int:
        return category if config.laterality == "patient" else LEFT_LUNG + RIGHT_LUNG - category

    def of_member(detection: dict[str, np.ndarray]) -> Finding:
        lungs = {patients(category): lung for category, lung in bag_film([detection], config.bag).items()}
        detections = []
        found = zip(detection["class_ids"].tolist(), detection["rois"].tolist(), detection["scores"].tolist(), strict=True)
        for k, (category, (y1, x1, y2, x2), score) in enumerate(found):
            lung = Lung(detection["masks"][..., k] >= 0.5, (y1, x1, y2, x2), score, 1, math.nan)
            detections.append((patients(category), lung))
        return Finding(lungs, detections)

    def of_bag(detections: Sequence[dict[str, np.ndarray]], bag: str) -> Finding:
        lungs = {patients(category): lung for category, lung in bag_film(detections, bags[bag]).items()}
        return Finding(lungs, list(lungs.items()))

    def find(films: Sequence[np.ndarray]) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {name: [] for name in (*sorted(names), *(bags if len(members) > 1 else ()))}
        for detections in detect(members, [equalise(film) for film in films], soft=True):
            for name, one in zip(names, detections, strict=True):
                found[name].append(of_member(one))
            for bag in bags if len(members) > 1 else ():
                found[bag].append(of_bag(detections, bag))
        return found

    return find, bag_name(config.bag.pixels) if len(members) > 1 else names[0]
