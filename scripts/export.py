"""Writes a network as one ONNX file, for other programs: a Mask R-CNN, or a U-Net of create_dataset.py.

    python scripts/export.py models/lungs_small_1.weights.h5 --out lungs_1.onnx
    python scripts/export.py models/unet/efficientnetb0.weights.h5 --out unet.onnx --half

It needs no TensorFlow and takes a second. docs/runtimes.md and the file itself describe what goes in and comes out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from create_dataset.unet import WeightsError, encoder_of
from mask_rcnn.config import CLASS_COUNT, READING_SECTIONS, Config, ConfigError, apply_settings, config_to_dict
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes
from mask_rcnn.version import __version__
from mask_rcnn.weights import checkpoint

ENDING = ".onnx"

OF_MASK_RCNN = """\
Mask R-CNN that finds lungs on frontal chest films, bones white. k is detection.max_instances of the configuration.
images: float32 [films, side, side, 3], the film with its histogram equalised, three times the same channel, fitted to the
  square (its long side to the square's, zeros on both sides of the other), less the metadata's mean_pixel of each channel.
windows: float32 [films, 4], where the film lies in the square: (y1, x1, y2 - 1, x2 - 1) / (side - 1), in its pixels.
detections: float32 [films, k, 6], (y1, x1, y2, x2) normalised likewise, class id, score; by falling score, zeros behind the
  last. The metadata's classes names the ids, its laterality says whose left they mean.
mask_boxes: float32 [films, k, 4], where the masks lie: a mask's first and last cells are sampled at the box's edges.
masks: float32 [films, k, m, m, classes], probabilities; a detection's own class counts, lung is where it is 0.5 or more."""

OF_UNET = """\
U-Net that finds both lungs on frontal chest films, bones white.
inputs: float32 [films, 256, 256, 3], the film stretched to the square, its histogram equalised, divided by 255, three times
  the same channel.
probabilities: float32 [films, 256, 256, 1]; lung is where it is 0.5 or more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file; returns 0, or 1 where the weights or the place cannot be used."""
    forgiving_streams()
    parser = argparse.ArgumentParser(prog="export.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, metavar="FILE", help="weights of one network")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: the weights' name with .onnx, in this folder")
    parser.add_argument("--half", action="store_true", help="keep the weights in 16 bits: half the file, computed in 32")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help=f"a value in place of the weights file's, of {', '.join(READING_SECTIONS)}")
    given = parser.parse_args(argv)
    out = given.out or Path(given.weights.name.removesuffix(checkpoint.ENDING).removesuffix(given.weights.suffix) + ENDING)
    if find_spec("onnx") is None:
        print("export: onnx is not installed; pip install onnx", file=sys.stderr)
        return 1
    try:
        content = exported(given.weights, given.settings, given.half)
        write_bytes(out, content)
    except (checkpoint.CheckpointError, WeightsError, ConfigError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export: {error.filename or out}: {error.strerror or error}; check its permissions", file=sys.stderr)
        return 1
    print(f"{out}: {len(content) / 2**20:.1f} MiB")
    return 0


def exported(weights: Path, settings: Sequence[str] = (), half: bool = False) -> bytes:
    """The ONNX file of a weights file of either kind of network.

    Raises:
        CheckpointError, WeightsError: it cannot be used.
        ConfigError: a setting is wrong, or given for a U-Net.
        OSError: it cannot be read.
    """
    from create_dataset.unet_graph import build_unet_graph
    from mask_rcnn.runtime.parts import build_whole

    facts = {"program": f"lung-mask-rcnn {__version__}", "weights": weights.name}
    if weights.is_file():
        facts["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    if _is_unet(weights):
        if settings:
            raise ConfigError(f"--set {settings[0]}: a U-Net has no settings; leave it out")
        model = build_unet_graph(weights, facts, OF_UNET, half)
    else:
        config = apply_settings(checkpoint.read_config(weights), settings, READING_SECTIONS)
        layers = checkpoint.read_weights(weights, config.network)
        model = build_whole(layers, config, facts | _facts(config), OF_MASK_RCNN, half)
    return bytes(model.SerializeToString())


def _facts(config: Config) -> dict[str, str]:
    names = {0: "background", **CATEGORIES} if config.network.class_count == CLASS_COUNT else {}
    return {
        "laterality": config.laterality,
        "classes": json.dumps(names),
        "mean_pixel": json.dumps(config.network.mean_pixel),
        "config": json.dumps(config_to_dict(config)),
    }


def _is_unet(weights: Path) -> bool:
    try:
        encoder_of(weights)
    except WeightsError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
