"""The commands ``train.py`` and ``inference.py``: they parse a command line, call the library and print what it returns."""

import os

# Before a command imports NumPy: beside TensorFlow's own threads those of OpenBLAS only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
