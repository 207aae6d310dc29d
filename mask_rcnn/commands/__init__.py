"""The commands ``train.py`` and ``inference.py``, and the choice of a device."""
