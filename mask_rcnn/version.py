"""The program's version, which every file that it writes names."""

__version__ = "1.0.0"
