"""The page of a run, report.html: one for ``create_dataset.py`` and ``inference.py``, and the server by which it saves."""
