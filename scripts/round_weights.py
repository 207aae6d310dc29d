"""Rounds the weights of files to 8 significant bits, those of bfloat16, for files that are committed.

    python scripts/round_weights.py runs/members/*.weights.h5 --out models

History keeps every version of a file for ever, and a rounded file is a quarter smaller. Processors that compute in bfloat16
round the same weights as they take them. What normalises (gamma, beta, statistics) and every bias stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import replacing_path
from mask_rcnn.weights.checkpoint import ENDING, CheckpointError, open_weights, write_packed

BITS = 8  # significant ones, of the 11 that 16 bits have
STEPS = 2 ** (11 - BITS)


def rounded(values: np.ndarray) -> np.ndarray:
    """float16 numbers with 8 significant bits, to the nearest, of two the even one."""
    whole = values.view(np.uint16).astype(np.uint32)
    last = whole // STEPS % 2
    return ((whole + STEPS // 2 - 1 + last) // STEPS * STEPS).astype(np.uint16).view(np.float16)


def round_file(path: Path, out: Path) -> None:
    """Writes a weights file anew, its kernels rounded.

    Raises:
        CheckpointError: the file cannot be read, or its kernels are not kept in 16 bits.
    """
    with open_weights(path):  # nothing else than weights is read
        pass
    with replacing_path(out, ENDING) as partial, h5py.File(path, "r") as file, h5py.File(partial, "w") as copy:
        copy.attrs.update(file.attrs)

        def take(name: str, node: h5py.HLObject) -> None:
            if isinstance(node, h5py.Dataset):
                values = node[()]
                if values.ndim > 1:
                    if values.dtype != np.float16:
                        raise CheckpointError(f"{path}: {name} is of {values.dtype}; give the final weights of a training")
                    values = rounded(values)
                write_packed(copy, name, values)
            else:
                copy.require_group(name)
            copy[name].attrs.update(node.attrs)

        file.visititems(take)


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("weights", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    for path in arguments.weights:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
            round_file(path, arguments.out / path.name)
        except (CheckpointError, OSError) as error:
            print(f"round_weights: {error}", file=sys.stderr)
            return 1
        size, before = (some.stat().st_size / 2**20 for some in (arguments.out / path.name, path))
        print(f"{arguments.out / path.name}: {size:.1f} MiB ({before:.1f} before)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
