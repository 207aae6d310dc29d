"""Trains the Mask R-CNNs: python train.py --config lungs.yaml (see --help)."""

import sys

from mask_rcnn.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
