"""``train.py``: trains the members of a bag of Mask R-CNNs, as ``mask_rcnn.training.bag`` describes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mask_rcnn.config import Config, ConfigError, load_config
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.run.folder import RunError
from mask_rcnn.system.command_line import DONE, CommandLine, run_command
from mask_rcnn.system.console import inform, step
from mask_rcnn.system.devices import DeviceError, start_device
from mask_rcnn.system.memory import is_out_of_memory
from mask_rcnn.system.precision import choose_precision, prepare_precision
from mask_rcnn.system.workers import ALONE, WorkersError, has_lost_others, join, workers_given
from mask_rcnn.training.bag import train_bag
from mask_rcnn.training.outcome import write_members
from mask_rcnn.training.run_folder import TrainingError
from mask_rcnn.training.side_by_side import Training, gpus_to_share, train_side_by_side
from mask_rcnn.weights import checkpoint, imagenet
from mask_rcnn.weights.checkpoint import CheckpointError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, as ``run_command`` does; returns its exit status."""
    return run_command(argv, parse, run, complaint)


def complaint(error: BaseException, arguments: argparse.Namespace) -> str | None:
    """The line about an error; None where it is a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return "train: stopped; the same command goes on after the last whole epoch"
    if isinstance(error, (ConfigError, DeviceError, DatasetError, CheckpointError, TrainingError, RunError, WorkersError)):
        return f"train: {error}"
    if isinstance(error, OSError):
        return f"train: {error.filename or arguments.out}: {error.strerror or error}; the same command goes on"
    if is_out_of_memory(error):
        return "train: too little memory; set training.batch_size lower, or network.image_size or the networks' channels"
    if has_lost_others(error):
        return "train: another process of this training has ended; the same commands go on after the last whole epoch"
    return None


def run(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Calls the library; all that was given is checked before any work."""
    config = load_config(arguments.config, arguments.settings)
    if arguments.weights is not None and str(arguments.weights) != imagenet.NAME:
        with checkpoint.open_weights(arguments.weights):  # refuses what is not there, or torn
            pass
    members = range(1, config.bag.members + 1) if arguments.member is None else [arguments.member]
    if not 1 <= members[0] <= config.bag.members:
        raise ConfigError(f"--member {members[0]}: the bag has members 1 to {config.bag.members}")
    gpus = gpus_to_share() if arguments.member is None and arguments.device == "auto" else []
    addresses, number = workers_given(arguments.workers, arguments.worker)
    if addresses and config.training.batch_size % len(addresses):
        raise ConfigError(f"training.batch_size {config.training.batch_size} is no multiple of the {len(addresses)} "
                          "processes that share a batch; set it by --set training.batch_size=N")
    workers = ALONE

    def connect() -> None:
        nonlocal workers
        with step(f"waiting for {len(addresses)} processes"):
            workers = join(addresses, number)

    if len(gpus) > 1 and not addresses:
        return _side_by_side(config, arguments, given, gpus)
    prepare_precision(config.training.precision)
    start_device(arguments.device, connect=connect if addresses else None)
    precision, line = choose_precision(config.training.precision)
    inform(line)
    train_bag(config, members, arguments.out, arguments.runs, arguments.weights, workers, precision)
    return DONE


def _side_by_side(config: Config, arguments: argparse.Namespace, given: Sequence[str], gpus: Sequence[str]) -> int:
    """Every member by this command in a process of its own, as many at once as there are GPUs.

    One that is trained already says so, and its GPU takes the next.
    """
    trainings = [Training(f"{config.name}_{member}", [*given, "--member", str(member), "--device", "gpu"])
                 for member in range(1, config.bag.members + 1)]  # fmt: skip
    failed = train_side_by_side(trainings, gpus, arguments.runs)
    write_members(config, arguments.out, arguments.runs)
    if failed:
        raise TrainingError("\n".join(failed))
    return DONE


def parse(argv: Sequence[str]) -> argparse.Namespace:
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
                        help="checkpoints, logs, TensorBoard and the cache of films (default: %(default)s)")
    parser.add_argument("--workers", metavar="HOST:PORT,...",
                        help="the processes that train together, each with its share of every batch (default: those of "
                             "TF_CONFIG, else this one alone)")
    parser.add_argument("--worker", type=int, metavar="K",
                        help="which of --workers this process is; 1 is the one that writes")
    parser.add_common()
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
