"""``python scripts/review.py FOLDER`` serves the page of a run; see ``mask_rcnn.commands.review``."""

from __future__ import annotations

from mask_rcnn.commands.review import main

if __name__ == "__main__":
    raise SystemExit(main())
