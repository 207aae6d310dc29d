"""The version of this program, kept in every file that it writes."""

__version__ = "1.0.0"
