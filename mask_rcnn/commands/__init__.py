"""The commands ``train.py`` and ``inference.py``: they parse a command line, call the library and print its results."""
