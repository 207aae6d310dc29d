"""``train.py``: trains the members of a bag of Mask R-CNNs, as ``mask_rcnn.training.bag`` describes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mask_rcnn.config import ConfigError, load_config
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.run.folder import RunError
from mask_rcnn.system.backend import library_versions
from mask_rcnn.system.command_line import DONE, NOTHING_DONE, STOPPED, CommandLine
from mask_rcnn.system.console import console, detail, forgiving_streams, inform
from mask_rcnn.system.devices import DeviceError, choose_device
from mask_rcnn.system.memory import is_out_of_memory
from mask_rcnn.training.bag import train_bag
from mask_rcnn.training.run_folder import TrainingError
from mask_rcnn.weights import checkpoint, imagenet
from mask_rcnn.weights.checkpoint import CheckpointError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status.

    Raises:
        SystemExit: the command line is wrong, or wants help or the version.
    """
    forgiving_streams()
    arguments = parse(argv)
    with console(arguments.verbosity):
        try:
            run(arguments)
        except (ConfigError, DeviceError, DatasetError, CheckpointError, TrainingError, RunError) as error:
            return _fail(error)
        except OSError as error:
            return _fail(f"{error.filename or arguments.out}: {error.strerror or error}; the same command goes on")
        except KeyboardInterrupt:
            print("train: stopped; the same command goes on after the last whole epoch", file=sys.stderr)
            return STOPPED
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return _fail("too little memory; set training.batch_size lower, or network.image_size or the networks' channels")
    return DONE


def _fail(reason: object) -> int:
    print(f"train: {reason}", file=sys.stderr)
    return NOTHING_DONE


def run(arguments: argparse.Namespace) -> None:
    """Calls the library; all that was given is checked before any work."""
    config = load_config(arguments.config, arguments.settings)
    if arguments.weights is not None and str(arguments.weights) != imagenet.NAME:
        with checkpoint.open_weights(arguments.weights):  # refuses what is not there, or torn
            pass
    members = range(1, config.bag.members + 1) if arguments.member is None else [arguments.member]
    if not 1 <= members[0] <= config.bag.members:
        raise ConfigError(f"--member {members[0]}: the bag has members 1 to {config.bag.members}")
    inform(choose_device(arguments.device))
    detail(", ".join(f"{name} {version}" for name, version in library_versions().items()))
    train_bag(config, members, arguments.out, arguments.runs, arguments.weights)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = CommandLine(
        "train.py", "Trains the members of a bag of Mask R-CNNs.", "--config FILE [--weights FILE] [options]",
        ["train.py --config my_lungs.yaml --weights models/lungs_small_1.weights.h5",
         "train.py --config lungs_demo --set training.batch_size=4 --member 1"],
    )  # fmt: skip
    parser.add_argument("--config", required=True, metavar="FILE", help="a YAML file; a bare name is looked up in configs/")
    parser.add_argument("--member", type=int, metavar="K", help="this member alone, from 1 (default: all)")
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="weights to start from, or imagenet for the ResNet's alone (default: random ones)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help="a value in place of the config's, such as training.batch_size=4; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("models"), metavar="FOLDER",
                        help="where the weights go (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="checkpoints, logs and TensorBoard (default: %(default)s)")
    parser.add_common()
    arguments: argparse.Namespace = parser.parse_args(argv)
    return arguments
