"""The trained networks of a bag: loading them, and predicting with all of them.

Shapes
    film    uint8 [height, width], grey, equalised
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mask_rcnn.config import (
    CLASS_COUNT,
    READING_SECTIONS,
    Config,
    ConfigError,
    QualityConfig,
    apply_settings,
    differing_keys,
    predicting_part,
)
from mask_rcnn.prediction import Detector, Prediction
from mask_rcnn.runtime.choice import KERAS, Runtime
from mask_rcnn.system.console import detail, step
from mask_rcnn.system.memory import is_out_of_memory
from mask_rcnn.system.paths import WEIGHTS_ENDINGS, PathError, expand_files
from mask_rcnn.utils import MoldedFilm, mold_film

if TYPE_CHECKING:  # the commands import this module before they know whether they need TensorFlow
    from mask_rcnn.model import MaskRCNN

SETTABLE = (*READING_SECTIONS, "quality")  # sections of the config that a user of a bag may change: how it reads and judges


class InferenceError(ValueError):
    """Nothing can be done; the message gives the reason and the remedy."""


class Described(NamedTuple):
    """A member without its network: what a run has to know of it."""

    path: Path
    sha256: str
    config: Config
    runtime: Runtime = Runtime(KERAS)


class Member(NamedTuple):
    """One network of the bag.

    With Keras, members whose configs differ in their training alone share a network, which is built and compiled once, and
    take turns in it: that is quick, and compiling is most of a start.
    """

    path: Path
    sha256: str
    network: Detector
    load: Callable[[], None] | None = None  # its weights, before it predicts; None where it shares its network with no other
    runtime: Runtime = Runtime(KERAS)

    def described(self) -> Described:
        """The same without its network."""
        return Described(self.path, self.sha256, self.network.config, self.runtime)


def load_members(
    patterns: Sequence[str | os.PathLike[str]], settings: Sequence[str] = (), runtime: Runtime = Runtime(KERAS)
) -> list[Member]:
    """Loads the networks, in the order of their SHA-256, so that the order in which they are given changes nothing.

    A file that is there and cannot be used is named on standard error and left out, and so is one given twice.

    Args:
        patterns: files, folders of them, or glob patterns that no shell has expanded.
        settings: KEY=VALUE each, such as ``bag.min_agreement=0.9``, in place of the files' values; sections ``detection``
            and ``bag``.
        runtime: what runs them, as ``choose_runtime`` gives it.

    Raises:
        InferenceError: a path is not there, a folder holds no weights, a pattern matches nothing, a setting is wrong, none
            of the files can be used, or they differ in what their classes mean. The first three come before anything is
            loaded.
    """
    from mask_rcnn.weights.checkpoint import CheckpointError

    members: list[Member] = []
    networks: dict[Config, MaskRCNN] = {}
    paths = expand(patterns)
    with step(f"loading {len(paths)} network{'s' * (len(paths) != 1)}"):
        for number, path in enumerate(paths, 1):
            try:
                members.append(_load(path, settings, members, networks, runtime))
                detail(f"loaded {path} ({number} of {len(paths)})")
            except CheckpointError as error:
                print(f"left out {error}", file=sys.stderr)
            except OSError as error:
                print(f"left out {path}: cannot be read ({error.strerror}); check its permissions", file=sys.stderr)
    if not members:
        raise InferenceError("no weights that can be used; give --weights models/*.h5, or train them with train.py")
    members.sort(key=lambda member: member.sha256)
    _refuse_mixtures(members)
    first = members[0].network.config
    differing = sorted({key for member in members for key in differing_keys(first, member.network.config, ["bag"])})
    if differing:
        print(f"the weights differ in {', '.join(differing)}: those of {members[0].path} are used; give --set "
              f"{differing[0]}=VALUE for others", file=sys.stderr)
    users = Counter(predicting_part(member.network.config) for member in members)
    return [
        member if users[predicting_part(member.network.config)] > 1 else member._replace(load=None) for member in members
    ]


def split_settings(settings: Sequence[str]) -> tuple[QualityConfig, list[str]]:
    """Settings of the sections ``SETTABLE``: the thresholds of the checks, and the settings that are for the networks.

    Raises:
        ConfigError: a setting is wrong.
    """
    quality = apply_settings(Config(), settings, SETTABLE).quality
    return quality, [setting for setting in settings if not setting.startswith("quality.")]


def expand(patterns: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files that are meant by paths, by folders of weights, and by glob patterns that no shell has expanded.

    Raises:
        InferenceError: a path is not there, a folder holds no weights, or a pattern matches nothing.
    """
    try:
        return expand_files(patterns, "--weights", WEIGHTS_ENDINGS)
    except PathError as error:
        raise InferenceError(str(error)) from error


def _refuse_mixtures(members: Sequence[Member]) -> None:
    first = members[0]
    for member in members:
        config = member.network.config
        if config.network.class_count != CLASS_COUNT:
            raise InferenceError(f"{member.path}: {config.network.class_count} classes, not background and two lungs; "
                                 "leave it out")
        if config.laterality != first.network.config.laterality:
            raise InferenceError(f"{member.path}: laterality {config.laterality}, but {first.path} has "
                                 f"{first.network.config.laterality}; bag weights of one kind only")


def _load(
    path: str, settings: Sequence[str], members: Sequence[Member], networks: dict[Config, MaskRCNN], runtime: Runtime
) -> Member:
    from mask_rcnn.weights import checkpoint

    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    same = next((str(member.path) for member in members if member.sha256 == sha256), None)
    if same:
        raise checkpoint.CheckpointError(f"{path}: the same weights as {same}; each votes once")
    with _enough_memory():
        held, layers = (checkpoint.read_config(path), None) if runtime.name == KERAS else checkpoint.read_network(path)
    try:
        config = apply_settings(held, settings, READING_SECTIONS)
    except ConfigError as error:
        raise InferenceError(f"{path}: {error}") from error
    if layers is not None:
        from mask_rcnn.runtime.network import ExportedNetwork

        with _enough_memory():
            return Member(Path(path), sha256, ExportedNetwork(layers, config, runtime), None, runtime)
    from mask_rcnn.model import MaskRCNN

    alike = predicting_part(config)
    network = networks.get(alike)
    if network is None:
        with _enough_memory():
            networks[alike] = network = MaskRCNN.load(path, settings=tuple(settings))
    else:
        network = network if network.config == config else network.sharing(config)
        network.load_weights(path)
    return Member(Path(path), sha256, network, partial(network.set_weights, network.get_weights()))


def predict(
    members: Sequence[Member], films: Sequence[np.ndarray], batch: int | None = None
) -> list[list[Prediction]]:
    """The members' predictions on each of some equalised films, of any sizes; ``paste`` makes masks of them.

    Args:
        batch: films that a network sees at a time, as in ``MaskRCNN.predict``; for every size it is compiled once.

    Raises:
        InferenceError: there is too little memory.
    """
    networks = {member.network.config.network for member in members}  # one, as a rule: a film is made ready once
    molded = {network: [mold_film(film, network) for film in films] for network in networks}
    predictions = [_predict(member, molded[member.network.config.network], batch) for member in members]
    return [list(of_film) for of_film in zip(*predictions, strict=True)]


def paste(
    members: Sequence[Member], predictions: Sequence[Prediction], shape: tuple[int, int], soft: bool | None = None
) -> list[dict[str, np.ndarray]]:
    """What each member detects on one film of ``shape`` (height, width), as ``MaskRCNN.detect`` gives it.

    Args:
        predictions: one a member.
        soft: whether the masks are probabilities; by default where the bag averages them.

    Raises:
        InferenceError: there is too little memory.
    """
    if soft is None:
        soft = members[0].network.config.bag.pixels == "probabilities"
    with _enough_memory():
        return [
            member.network.unmold(prediction, shape, soft) for member, prediction in zip(members, predictions, strict=True)
        ]


def detect(
    members: Sequence[Member], films: Sequence[np.ndarray], soft: bool | None = None
) -> Iterator[list[dict[str, np.ndarray]]]:
    """``predict`` and ``paste``: what each member detects on each equalised film, one film's masks at a time."""
    for film, of_film in zip(films, predict(members, films), strict=True):
        yield paste(members, of_film, film.shape[:2], soft)


def _predict(member: Member, films: Sequence[MoldedFilm], batch: int | None) -> list[Prediction]:
    with _enough_memory():
        if member.load is not None:
            member.load()
        return member.network.predict(films, batch)


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # A file that claims more than it holds is refused as that, though its numbers found no room.
        if is_out_of_memory(error) and not isinstance(error, ValueError):
            raise InferenceError(
                "there is too little memory; give a smaller --batch, fewer weights or --device cpu"
            ) from error
        raise
