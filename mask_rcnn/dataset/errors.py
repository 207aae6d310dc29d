"""The error of everything that reads a dataset."""


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names the file, the reason and the remedy."""
