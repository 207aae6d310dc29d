"""Finds the lungs on chest films: ``python inference.py --src FILMS``; ``--help`` lists the options."""

import sys

from mask_rcnn.commands.inference import main

if __name__ == "__main__":
    sys.exit(main())
