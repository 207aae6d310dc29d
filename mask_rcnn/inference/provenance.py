"""``run.json``: by which command, networks and versions a run's results came about."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mask_rcnn.bag.members import Described
from mask_rcnn.bag.vote import majority
from mask_rcnn.config import config_to_dict
from mask_rcnn.system.files import writable
from mask_rcnn.system.formats import RUN_FORMAT, stamp


def provenance(command: Sequence[str], members: Sequence[Described], versions: Mapping[str, str]) -> dict[str, Any]:
    """What ``run.json`` holds of the command, the bag, its networks and the libraries, whose versions these are."""
    config = members[0].config
    return {
        **stamp(RUN_FORMAT),
        "command": writable(shlex.join(command)),
        "laterality": config.laterality,
        "bag": {"members": len(members), "pixels": config.bag.pixels,
                "min_votes": majority(len(members), config.bag.min_votes), "opening": config.bag.opening,
                "min_agreement": config.bag.min_agreement, "max_risk": config.bag.max_risk},
        "weights": [{"file": writable(str(member.path)), "sha256": member.sha256,
                     "config": config_to_dict(member.config)} for member in members],
        "runtime": members[0].runtime._asdict(),
        "versions": dict(versions),
    }  # fmt: skip
