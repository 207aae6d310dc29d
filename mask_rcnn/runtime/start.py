"""The option ``--runtime`` of a command, and starting what it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mask_rcnn.runtime.choice import AUTO, KERAS, RUNTIMES, Runtime
from mask_rcnn.system.backend import BACKENDS, library_versions
from mask_rcnn.system.console import detail, inform
from mask_rcnn.system.devices import start_device


def add_runtime(parser: argparse.ArgumentParser, default: str = AUTO) -> None:
    """Adds the option."""
    parser.add_argument("--runtime", choices=[AUTO, *RUNTIMES], default=default,
                        help="what runs the networks; auto: the fastest that is installed, on a GPU keras "
                        f"(default: {default})")


def start_runtime(runtime: Runtime, device: str, backends: Sequence[str] = BACKENDS) -> None:
    """Starts what runs the networks; what that is is a line on standard output, the libraries' versions one with ``-v``.

    Args:
        runtime: as ``choose_runtime`` gives it.
        device: as ``choose_device`` takes it, for Keras.
        backends: of Keras, as ``import_keras`` takes them.

    Raises:
        DeviceError: as ``choose_device``.
    """
    if runtime.name == KERAS:
        start_device(device, backends)
    else:
        inform(f"running {runtime} on the CPU")
        detail(", ".join(f"{library} {version}" for library, version in (library_versions() | runtime.versions()).items()))
