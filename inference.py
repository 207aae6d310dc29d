"""Finds the lungs on chest films: ``python inference.py --src films``; ``--help`` lists the options."""

import sys

from mask_rcnn.commands.launch import inference

if __name__ == "__main__":
    sys.exit(inference())
