"""Finds the lungs on chest films: ``python inference.py --weights models/*.h5``; ``--help`` lists the options."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: its notes are not for users

from mask_rcnn.inference_command import main

if __name__ == "__main__":
    sys.exit(main())
