"""The members of the U-Net ensemble: their files, what these are, and the networks in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from create_dataset.unet import BACKENDS, Network, WeightsError, encoder_of, load_unet
from mask_rcnn.runtime.choice import KERAS, Runtime
from mask_rcnn.runtime.start import start_runtime
from mask_rcnn.system.backend import library_versions
from mask_rcnn.system.console import step
from mask_rcnn.system.paths import WEIGHTS_ENDINGS, PathError, expand_files
from mask_rcnn.system.progress import warn


class Unet(NamedTuple):
    """A member of the ensemble."""

    path: Path
    facts: dict[str, str]  # for the dataset: file, sha256, encoder


def find_unets(patterns: Iterable[str | os.PathLike[str]]) -> list[Unet]:
    """What the files of an ensemble are; one that is no U-Net's is named and left out.

    Args:
        patterns: files, folders of them, or glob patterns that no shell has expanded.

    Raises:
        WeightsError: a path is not there, a folder holds no weights, or a pattern matches nothing.
    """
    try:
        paths = [Path(path) for path in expand_files(patterns, "--unet", WEIGHTS_ENDINGS)]
    except PathError as error:
        raise WeightsError(str(error)) from error
    unets = []
    for path in paths:
        try:
            encoder = encoder_of(path)
        except WeightsError as error:
            warn(str(error))
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        unets.append(Unet(path, {"file": path.name, "sha256": digest, "encoder": encoder}))
    return unets


def load_members(unets: Sequence[Unet], runtime: Runtime = Runtime(KERAS)) -> tuple[list[Unet], list[Network]]:
    """The U-Nets that load, and their networks; one that does not is named and left out.

    Args:
        runtime: what runs them, as ``choose_runtime`` gives it.

    Raises:
        DeviceError: Keras does not start on the backend that the user chose.
    """
    loaded: list[Unet] = []
    members: list[Network] = []
    with step(f"loading {len(unets)} U-Net{'s' * (len(unets) != 1)}"):
        for unet in unets:
            try:
                members.append(load_network(unet.path, runtime))
            except WeightsError as error:
                warn(str(error))
                continue
            loaded.append(unet)
    return loaded, members


def load_on_worker(
    unets: Sequence[Unet], runtime: Runtime, device: str
) -> tuple[list[Network], list[Unet], dict[str, str]]:
    """The networks of ``load_members`` in a worker of a cluster, the U-Nets that loaded, and the versions of the libraries.

    Args:
        runtime: which has to run here just so.
        device: "cpu" or "gpu".

    Raises:
        DeviceError: the runtime does not run here.
    """
    runtime.check_here()
    start_runtime(runtime, device, BACKENDS)
    loaded, networks = load_members(unets, runtime)
    return networks, loaded, library_versions() | runtime.versions()


def load_network(path: Path, runtime: Runtime = Runtime(KERAS)) -> Network:
    """The U-Net of a file.

    Raises:
        WeightsError: the file holds none.
        DeviceError: as ``load_members``.
    """
    if runtime.name == KERAS:
        network: Network = load_unet(path)
        return network
    from create_dataset.unet_graph import ExportedUnet

    return ExportedUnet(path, runtime)
