"""How the inference command starts: what its libraries read while they are imported is set first."""

from __future__ import annotations

import os


def inference() -> int:
    """``inference.py``, and ``lungs-inference`` of an installation; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are not for users
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # beside TensorFlow's own threads more only wait for one another
    from mask_rcnn.commands.inference import main

    return main()
