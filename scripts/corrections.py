"""Films for annotation tools, and what was corrected there back to the run: ``lungs-corrections`` in a checkout.

    python scripts/corrections.py export data/dataset to_correct
    python scripts/corrections.py import data/dataset cvat_export.zip
"""

from __future__ import annotations

from collections.abc import Sequence

from mask_rcnn.commands import corrections


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return corrections.main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
