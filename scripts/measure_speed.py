"""Measures what a bag costs: bytes, GFLOPs, the start of ``inference.py`` and its time a film, pictures written and all.

    python scripts/measure_speed.py --weights models/*.h5

It runs the real command over the films of ``data/phantoms``, enlarged to several sizes.

Operations are multiplications and additions of the convolutions and dense layers, two for each product that is summed;
what lies between them is left out.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms" / "images"
SIDES = (512, 1024, 2000)  # pixels: of the films' long sides


def count_flops(network: Any) -> dict[str, int]:
    """The floating-point operations of one film, by part of the network; a multiplication and an addition are two."""
    config = network.settings
    side = config.network.image_size
    cells = sum((side // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    return {
        "pyramid": _flops(network.pyramid),
        "proposals": _flops(network.proposal_head, cells),
        "boxes": config.proposals.inference_count * _flops(network.box_head),
        "masks": config.detection.max_instances * _flops(network.mask_head),
    }


def _flops(part: Any, cells: int | None = None) -> int:
    """Of a Keras model; of one that takes maps of any size, over so many cells."""
    total = 0
    for layer in part.layers:
        if not hasattr(layer, "kernel"):
            continue
        # A kernel is applied once for each cell of what it gives, a transposed one for each of what it takes.
        shape = layer.input.shape if "Transpose" in type(layer).__name__ else layer.output.shape
        places = 1
        for extent in shape[1:-1]:
            places *= extent or 1
        total += 2 * places * (cells or 1) * math.prod(layer.kernel.shape)
    return total


def measure_run(weights: Sequence[str], side: int) -> tuple[float, float]:
    """Seconds from the start of ``inference.py`` to its first film, and seconds a film after it."""
    with tempfile.TemporaryDirectory() as folder:
        films, out = Path(folder, "films"), Path(folder, "out")
        films.mkdir()
        for path in sorted(PHANTOMS.glob("*.png")):
            with Image.open(path) as film:
                scale = side / max(film.size)
                film.resize((round(film.width * scale), round(film.height * scale))).save(films / path.name)
        command = [sys.executable, str(ROOT / "inference.py"), "--weights", *weights, "--src", str(films), "--out", str(out)]
        started = time.perf_counter()
        subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True)
        whole = time.perf_counter() - started
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return whole - run["seconds"], run["seconds"] / len(run["images"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE")
    arguments = parser.parse_args(argv)
    from mask_rcnn.model import MaskRCNN
    from mask_rcnn.weights.checkpoint import CheckpointError

    weights = [path for pattern in arguments.weights for path in sorted(glob.glob(pattern)) or [pattern]]
    try:
        networks = [MaskRCNN.load(path).network for path in weights]
    except CheckpointError as error:
        print(f"measure_speed: {error}", file=sys.stderr)
        return 1
    for path, network in zip(weights, networks, strict=True):
        print(f"{path}: {Path(path).stat().st_size / 2**20:.1f} MiB, {network.count_params() / 1e6:.2f} million weights")
    parts = count_flops(networks[0])
    listed = ", ".join(f"{part} {count / 1e9:.2f}" for part, count in parts.items())
    print(f"{sum(parts.values()) / 1e9:.2f} GFLOPs a film and member: {listed}")
    for side in SIDES:
        start, film = measure_run(weights, side)
        print(f"films of {side} pixels: {start:.1f} s to start, {1000 * film:.0f} ms a film")
    return 0


if __name__ == "__main__":
    sys.exit(main())
