"""The version of the program, which every file that it writes says."""

__version__ = "1.0.0"
