"""Serves the page of a run on this machine, so that decisions are saved as they are made: ``lungs-review`` in a checkout."""

from __future__ import annotations

from collections.abc import Sequence

from mask_rcnn.commands import review


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return review.main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
