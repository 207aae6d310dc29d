"""Finds the lungs on chest films: ``python inference.py --weights models/*.h5``; ``--help`` lists the options."""

import os
import sys

# Before NumPy and TensorFlow are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are not for users
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # beside TensorFlow's own threads more only wait for one another

from mask_rcnn.commands.inference import main

if __name__ == "__main__":
    sys.exit(main())
